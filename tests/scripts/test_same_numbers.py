"""`same_numbers` finds one changed bit, and nothing where only clocks and paths differ."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

sys.path.insert(0, str(SCRIPTS))  # a script's own folder is where it finds its cases
same_numbers = importlib.import_module("same_numbers")
sys.path.remove(str(SCRIPTS))

STEP = "run/checkpoints/step_000000000128"
WEIGHTS = np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)


def write_case(folder: Path, seconds: float) -> None:
    """The files that a training run and a sweep leave, in small."""
    (folder / STEP).mkdir(parents=True)
    safetensors.numpy.save_file(
        {"params/w": WEIGHTS, "step": np.array(3)}, folder / STEP / "arrays.safetensors"
    )
    (folder / STEP / "manifest.json").write_text(json.dumps({"train_seconds": seconds}))
    rows = [{"env_steps": 128, "kl": [0.5, 0.25]}, {"env_steps": 256, "kl": [0.125, 0.0625]}]
    (folder / "run/metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "run/timing.jsonl").write_text(json.dumps({"seconds": seconds}))
    summary = {"final_return": {"iqm": 56.5}, "train_seconds": seconds, "run": str(folder)}
    for name in ("run/summary.json", "stdout-1.json"):
        (folder / name).write_text(json.dumps(summary))
    (folder / "table.csv").write_text("setting,learning_rate,iqm\n0,0.01,9.5\n1,0.1,7.5\n")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    found = tmp_path / "before", tmp_path / "after"
    for seconds, folder in enumerate(found):
        write_case(folder, float(seconds))
    return found


def test_folders_that_differ_in_clocks_and_paths_are_the_same(folders: tuple[Path, Path]) -> None:
    assert same_numbers.first_difference(*folders) is None
    assert sorted(same_numbers.numbers(folders[0])) == [
        f"{STEP}/arrays.safetensors",
        "run/metrics.jsonl",
        "run/summary.json",
        "stdout-1.json",
        "table.csv",
    ]


def test_folders_without_metrics_are_not_the_same(tmp_path: Path) -> None:
    assert same_numbers.first_difference(tmp_path, tmp_path) is not None


def replaced(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return change


def with_arrays(arrays: dict[str, np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: safetensors.numpy.save_file(arrays, folder / STEP / "arrays.safetensors")


NEXT = WEIGHTS.copy()
NEXT[1, 0] = np.nextafter(NEXT[1, 0], np.float32(1.0))
STEP_3 = {"step": np.array(3)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            replaced("run/metrics.jsonl", "0.0625", "0.0626"),
            "run/metrics.jsonl, row 2, kl: [0.125, 0.0625] before, [0.125, 0.0626] after",
        ),
        (
            replaced("run/metrics.jsonl", '"kl": [0.5', '"kl":  [0.5'),
            "run/metrics.jsonl, row 1: ",
        ),
        (
            replaced("table.csv", "7.5", "7.6"),
            'table.csv, row 2, iqm: "7.5" before, "7.6" after',
        ),
        (
            replaced("stdout-1.json", "56.5", "56.6"),
            "stdout-1.json, final_return.iqm: 56.5 before, 56.6 after",
        ),
        (
            with_arrays({"params/w": NEXT, **STEP_3}),
            f"{STEP}/arrays.safetensors, params/w[1, 0]: "
            f"0.3 before, {NEXT[1, 0]!s} after; 1 of 4 entries differ",
        ),
        (
            with_arrays({"params/w": WEIGHTS, "step": np.array(4)}),
            f"{STEP}/arrays.safetensors, step[]: 3 before, 4 after; 1 of 1 entries differ",
        ),
        (
            with_arrays({"params/w": WEIGHTS.astype(np.float64), **STEP_3}),
            f"{STEP}/arrays.safetensors, params/w: float32 [2, 2] before, float64 [2, 2] after",
        ),
        (
            with_arrays({"params/v": WEIGHTS, **STEP_3}),
            f"{STEP}/arrays.safetensors, params/w exists before only",
        ),
        (
            lambda folder: shutil.rmtree(folder / STEP),
            f"{STEP}/arrays.safetensors exists before only",
        ),
    ],
)
def test_one_change_is_named(
    folders: tuple[Path, Path], change: Callable[[Path], None], told: str
) -> None:
    change(folders[1])
    assert same_numbers.first_difference(*folders).startswith(told)
