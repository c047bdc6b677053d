"""The cases of the GPU benchmark: its workers know them, and its ratios compare equals."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEED = ROOT / "benchmarks" / "speed"


@pytest.fixture(autouse=True)
def _speed_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import the benchmarks as scripts of one folder; no case stays registered."""
    monkeypatch.syspath_prepend(str(SPEED))
    cases = importlib.import_module("cases")
    before = dict(cases.ALL_CASES)
    yield
    cases.ALL_CASES.clear()
    cases.ALL_CASES.update(before)


def found(**speeds: float | None) -> dict[str, Any]:
    """A result with the speed of each label; None for a trainer that failed."""
    rows = {
        label.replace("_tf32", ", tf32"): {"error": "ended"}
        if speed is None
        else {"env_steps_per_second": speed}
        for label, speed in speeds.items()
    }
    return {"trainers": rows}


@pytest.mark.parametrize("trainer", ["ppo_jax", "rejax"])
def test_a_worker_knows_every_case_of_the_gpu(
    trainer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_cases, worker = (importlib.import_module(name) for name in ("gpu_cases", "worker"))
    ran: list[str] = []
    monkeypatch.setattr(runpy, "run_path", lambda path, run_name: ran.append(Path(path).name))
    monkeypatch.setattr(sys, "argv", [])
    for name, case in gpu_cases.gpu_cases(True).items():
        gpu_cases.serve(Namespace(worker=trainer, case=name, precision="tf32", small=True))
        assert sys.argv[1:] == ["--case", name]
        assert worker.ALL_CASES[name].precision == "tf32"
        assert worker.ALL_CASES[name].env_steps == case.env_steps
    assert ran == [f"worker_{trainer}.py"] * len(gpu_cases.gpu_cases(True))


def test_our_process_starts_and_answers() -> None:
    words = ["--worker", "ppo_jax", "--case", "g2048", "--precision", "tf32", "--small"]
    done = subprocess.run(
        [sys.executable, str(SPEED / "gpu_cases.py"), *words],
        input="run\nquit\n",
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    about, answer = map(json.loads, done.stdout.splitlines())
    assert about["layout"] == "default"
    assert answer == {"error": "'run' before 'compile'"}


def test_a_peers_environment_needs_no_package_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gpu_cases", raising=False)
    for name in ("ppo_jax", "jax", "numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    assert importlib.import_module("gpu_cases").PEER == "rejax"


def test_variants_are_of_cases_and_have_labels_of_their_own() -> None:
    gpu_cases = importlib.import_module("gpu_cases")
    assert set(gpu_cases.VARIANTS) <= set(gpu_cases.gpu_cases(False))
    for variants in (gpu_cases.DEFAULTS, *gpu_cases.VARIANTS.values()):
        labels = [variant.label for variant in variants]
        assert len(set(labels)) == len(labels)
        assert labels[0] == gpu_cases.OURS


def test_ratios_are_of_both_defaults_and_of_each_at_its_best() -> None:
    against = importlib.import_module("gpu_cases").against
    both = found(ppo_jax=30.0, ppo_jax_tf32=40.0, rejax=10.0)
    assert against(both) == {"default": 3.0, "best": 4.0}


def test_another_variant_is_never_taken_for_a_default() -> None:
    against = importlib.import_module("gpu_cases").against
    assert against(found(ppo_jax=None, ppo_jax_tf32=40.0, rejax=10.0)) == {"best": 4.0}
    assert against(found(ppo_jax=30.0, ppo_jax_tf32=40.0, rejax=None)) == {}
    assert against(found(rejax=10.0)) == {}
