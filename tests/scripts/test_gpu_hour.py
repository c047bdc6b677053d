"""The hour on a GPU: every step runs, a failed one is named, and the table has the result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_table  # noqa: E402

# A Python that writes its words; `-c` asks for a GPU and for the plugin, and both are there.
STAND_IN = """#!/bin/bash
[ "$1" = -c ] && exit {has_gpu}
echo "$*" >> {folder}/words.txt
[[ "$1" != *{broken}* ]]
"""


def hour(folder: Path, *words: str, broken: str = "nothing", has_gpu: int = 0) -> tuple[int, str]:
    """Run the script with a stand-in for Python: exit code and standard error."""
    stand_in = folder / "python"
    text = STAND_IN.format(folder=folder, broken=broken, has_gpu=has_gpu)
    stand_in.write_text(text, "utf-8")
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["bash", f"{ROOT}/scripts/gpu_hour.sh", *words],
        env={**os.environ, "PYTHON": str(stand_in)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("broken", ["nothing", "gpu_checks.py"])
def test_all_steps_run_and_a_failed_one_is_named(tmp_path: Path, broken: str) -> None:
    out = tmp_path / "out"
    code, told = hour(tmp_path, "--out", str(out), "--wheels", "mine", broken=broken)
    lines = (tmp_path / "words.txt").read_text("utf-8").splitlines()
    steps = [Path(line.split()[0]).name for line in lines]
    assert steps == [
        "gpu_checks.py",
        "gpu.py",
        "fused_update.py",
        *["launches.py"] * 9,
        "readme.py",
    ]
    assert "--seconds 2100 --wheels mine" in lines[1]
    assert "--one-line CartPole-v1 --objective trpo" in " ".join(lines)
    assert (code, "failed: checks" in told) == ((1, True) if broken in lines[0] else (0, False))


def test_a_machine_without_a_gpu_and_an_unknown_word_are_refused(tmp_path: Path) -> None:
    code, told = hour(tmp_path, "--out", str(tmp_path), has_gpu=1)
    assert code == 2
    assert "jax finds no GPU here" in told
    code, told = hour(tmp_path, "--wet")
    assert code == 2
    assert "--wet is no option" in told


def trainer(speed: float | None, error: str = "") -> dict:
    return {"error": error} if speed is None else {"env_steps_per_second": speed}


def test_the_table_shows_speeds_ratios_shares_and_what_was_left_out() -> None:
    trainers = {
        "ppo_jax": trainer(30e6),
        "ppo_jax, tf32": trainer(40e6),
        "ppo_jax, graphs for loops": trainer(45e6),
        "ppo_jax, no graphs": trainer(None, "no answer"),
        "rejax": trainer(10e6),
    }
    share = {"fraction_of_flops": 0.125, "fraction_of_bytes": 0.5}
    case = {"settings": {"title": "T"}, "trainers": trainers, "roofline": {"ppo_jax": share}}
    alone = {"settings": {"title": "U"}, "trainers": {"ppo_jax": trainer(1e6)}}
    record = {
        "ceilings": {"device": "H100"},
        "date": "2026-11-28T01:00:00",
        "cases": {"t": case, "u": alone, "v": {"error": "not started: the time was up"}},
        "left_out": {"ajax": "not asked"},
    }
    lines = gpu_table.table(record).splitlines()
    assert lines[4] == (
        "| T | 30 M | 40 M | 45 M (graphs for loops) | 10 M | 3.00, 4.00 | 12.5%, 50.0% |"
    )
    assert lines[5] == "| U | 1 M | – | 1 M | – | –, – | – |"
    assert lines[-1] == "Left out: v: not started: the time was up; not asked"
