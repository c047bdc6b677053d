"""The notebooks are committed with their results, open in Colab, and run from top to bottom."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from documents import ROOT

import ppo_jax

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
TINY: dict[str, Any] = {
    "total_env_steps": 64,
    "num_envs": 4,
    "rollout_length": 8,
    "num_epochs": 2,
    "num_minibatches": 1,
    "hidden_sizes": (8,),
    "memory_size": 4,
}

Space = dict[str, Any]
# Notebook -> a check of the names that it leaves.
LEFT: dict[str, Callable[[Space], bool]] = {
    "first_training": lambda names: len(names["angles"]) > 5 and len(names["rows"]) == 2,
    "memory": lambda names: {c.shape for c in names["curves"].values()} == {(2, 2)},
    "seeds_and_hyperparameters": lambda names: names["sums"].shape == (5, 4, 2),
    "why_the_ratio": lambda names: np.allclose(
        [slope(np.zeros(2))[0] for slope in names["slopes"].values()], 0.5
    ),
    "your_own_environment": lambda names: (
        len(names["result"].summary["final_return"]["per_seed"]) == 2
    ),
}


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text("utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_its_results_and_opens_in_colab(path: Path) -> None:
    head, install, *_ = ("".join(cell["source"]) for cell in cells(path))
    badge = rf"colab\.research\.google\.com/github/[^/]+/[^/]+/blob/main/docs/notebooks/{path.name}"
    assert re.search(badge, head)
    assert "pip install" in install
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    # An error or a warning is no result, and a figure's repr is none without its picture.
    assert {output["output_type"] for output in outputs} <= {
        "display_data",
        "execute_result",
        "stream",
    }
    assert all(output.get("name") != "stderr" for output in outputs)
    kinds = {kind for output in outputs for kind in output.get("data", {"text/plain": ""})}
    assert {"text/plain"} <= kinds <= {"text/plain", "image/png"}
    assert not re.search(r"/(home|root|tmp|work|Users)/", json.dumps(outputs))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset, whole = ppo_jax.preset, ppo_jax.Config
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.setattr(ppo_jax, "Config", lambda **given: whole(**{**given, **TINY}))
    monkeypatch.setattr(
        ppo_jax,
        "preset",
        lambda *given: (dataclasses.replace(preset(*given)[0], **TINY), preset(*given)[1]),
    )
    names: Space = {}
    with matplotlib.rc_context({"backend": "Agg"}), np.errstate(invalid="ignore"):
        for cell in cells(path):
            if cell["cell_type"] == "code":
                exec(re.sub(r"^( *)%pip .*", r"\1pass", "".join(cell["source"]), flags=re.M), names)
        matplotlib.pyplot.close("all")
    assert LEFT[path.stem](names)
