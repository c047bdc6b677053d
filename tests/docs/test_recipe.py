"""The recipe for an objective in docs/extending.md, carried out in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, blocks, shell_commands

TINY = (
    "--total-env-steps 64 --num-envs 4 --rollout-length 8 --num-epochs 1 --hidden-sizes 8 "
    "--num-minibatches 1 --eval-episodes 2 --quiet --out run"
)


def recipe() -> dict[str, str]:
    """File of the package -> the lines that the recipe adds to it."""
    found = {}
    for code in blocks("docs/extending.md", "python"):
        head, _, lines = code.partition("\n")
        place = re.match(r"# (ppo_jax/[\w/]+\.py), ", head)
        if place:
            found[place[1]] = lines
    return found


def insert(file: Path, opening: str, lines: str) -> None:
    """Put lines behind the line that opens a table."""
    text = file.read_text("utf-8")
    (head,) = re.findall(rf"^{opening}.*?[({{]", text, re.MULTILINE)
    file.write_text(text.replace(head, f"{head}\n{lines}", 1), "utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "ppo_jax", tmp_path / "ppo_jax")
    return tmp_path


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_an_objective_is_a_function_a_row_and_a_word(copy: Path) -> None:
    added = recipe()
    function, row, word = added.values()
    surrogates, objectives, config = (copy / name for name in added)
    surrogates.write_text(surrogates.read_text("utf-8") + "\n\n" + function, "utf-8")
    insert(objectives, "SURROGATES", row)
    (command,) = (each for each in shell_commands("docs/extending.md") if "squared" in each)
    train = ("-m", "ppo_jax", *command, *TINY.split())
    refused = python(copy, *train)
    assert refused.returncode == 2, "without its word the objective must be unknown"
    insert(config, "OBJECTIVES", word)
    done = python(copy, *train)
    assert done.returncode == 0, done.stderr
    recorded = json.loads((copy / "run" / "config.json").read_text("utf-8"))
    assert recorded["config"]["objective"] == "squared"
    rows = (copy / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    # One step a batch: every ratio is 1, so the loss is minus the mean of standardised advantages.
    assert abs(json.loads(rows[-1])["policy_loss"][0]) < 1e-5


def test_the_recipes_function_is_the_equation_of_its_docstring(copy: Path) -> None:
    added = recipe()
    surrogates = copy / "ppo_jax/rl/surrogates.py"
    surrogates.write_text(surrogates.read_text("utf-8") + "\n\n" + next(iter(added.values())))
    code = (
        "import jax.numpy as jnp; from ppo_jax.rl.surrogates import squared;"
        "print(float(squared(jnp.float32(1.2), jnp.float32(2.0), 0.2)))"
    )
    done = python(copy, "-c", code)
    assert done.returncode == 0, done.stderr
    assert abs(float(done.stdout) + 2.3) < 1e-5  # -(1.2 x 2 - 0.04 / 0.4), by hand
