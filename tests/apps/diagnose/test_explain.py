"""The experiment on the founding question: one small cell, and the crossing of made-up ones."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ppo_jax.analysis import stats
from ppo_jax.apps.diagnose import explain, explain_figure
from ppo_jax.config.errors import InputError
from ppo_jax.rl.metrics import METRICS


def row(objective: str, epochs: int, level: float = 1.0) -> dict[str, Any]:
    """A cell as `run_cell` makes one, with made-up numbers."""
    made = {name: stats.summarise([level, level + 1.0] * 4) for name in explain_figure.TITLES}
    return {"objective": objective, "epochs": epochs, "entropy": made["return"], **made}


def test_a_cell_at_one_epoch_is_on_policy() -> None:
    config = dataclasses.replace(
        explain.SETTING, env="probe:action-choice", total_env_steps=1024, hidden_sizes=(4,)
    )
    cell = explain.run_cell(config, "is", 1, seeds=2)
    # At E = 1 every gradient is taken at theta_old: the ratio is 1, and L^PG and L^IS agree.
    assert cell["kl_old_new"]["per_seed"] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert cell["ess_fraction"]["per_seed"] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert cell["gradient_cosine"]["per_seed"] == pytest.approx([1.0, 1.0], abs=1e-4)
    assert set(cell) == set(row("is", 1))


def test_the_experiment_crosses_objectives_and_epochs_and_writes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "run_cell", lambda _, objective, count, __: row(objective, count))
    lines: list[str] = []
    out = tmp_path / "explain"
    result = explain.surrogate(
        "probe:action-choice", seeds=2, epochs=(1, 4), out=out, tell=lines.append
    )
    cells = [(cell["objective"], cell["epochs"]) for cell in result["rows"]]
    assert cells == [("trpo", 1), *((name, n) for n in (1, 4) for name in explain.OBJECTIVES)]
    assert len(lines) == 1 + len(cells)
    assert re.fullmatch(r"9 trainings of 2 seeds x 60,416 .* about \d+ (s|min) on .*", lines[0])
    assert lines[1].startswith("trpo  E=1   return 1.5 (")
    assert all(re.search(r"; \d+ (s|min) left$", line) for line in lines[1:-1])
    assert json.loads((out / "explain.json").read_text("utf-8"))["text"] == result["text"]
    assert all((out / f"explain.{suffix}").stat().st_size > 5000 for suffix in ("svg", "png"))


# Returns by objective and E that bear out all five claims.
AS_TOLD = {
    **{(name, 1): 50.0 for name in explain.OBJECTIVES},
    **{("pg", 8): 10.0, ("is", 8): 30.0, ("kl", 8): 70.0, ("clip", 8): 90.0, ("trpo", 1): 80.0},
}
UNSHOWN = "Not shown at this budget: "


@pytest.mark.parametrize(
    ("change", "unshown"),
    [
        ({}, []),
        ({("pg", 1): 40.0}, ["at E = 1"]),
        ({("pg", 8): 50.0}, ["reuse of a batch", "the ratio alone does"]),
        ({("is", 8): 10.5}, ["the ratio alone does"]),
        ({("is", 8): 50.0}, ["the ratio alone is"]),
        ({("kl", 8): 30.5, ("clip", 8): 29.0}, ["with a bound"]),
    ],
)
def test_a_claim_needs_intervals_that_are_apart(
    change: dict[tuple[str, int], float], unshown: list[str]
) -> None:
    levels = AS_TOLD | change
    lines = explain.conclusions([row(*cell, level) for cell, level in levels.items()])
    assert len(lines) == 5
    refused = [line.removeprefix(UNSHOWN) for line in lines if line.startswith(UNSHOWN)]
    assert len(refused) == len(unshown)
    assert all(map(str.startswith, refused, unshown))
    assert all("[" in line for line in lines)  # no return without its interval


def test_the_panels_show_metrics_of_the_table() -> None:
    assert set(explain_figure.MEASURED.values()) <= set(METRICS)
    assert len(explain_figure.TITLES) == 4


def test_one_seed_has_no_interval_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2 seeds"):
        explain.surrogate(seeds=1, out=tmp_path / "explain")
    assert list(tmp_path.iterdir()) == []
