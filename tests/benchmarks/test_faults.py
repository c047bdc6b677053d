"""A short version of benchmarks/faults: real processes, real SIGKILLs, a fault at every call."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ppo_jax.storage import checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "faults"))

import damages
import saves

pytestmark = pytest.mark.slow

TINY = (
    "tiny:Walk --num-envs 4 --rollout-length 8 --num-epochs 1 --num-minibatches 2 --hidden-sizes 8 "
    "--total-env-steps 1600 --seeds 2 --eval-episodes 2 --log-every 96 --checkpoint-every 32 "
    "--resume auto --quiet --json"
)


def start(out: Path, *more: str) -> subprocess.Popen:
    words = [sys.executable, "-m", "ppo_jax", "train", *TINY.split(), "--out", str(out), *more]
    path = os.pathsep.join([str(Path(__file__).parents[1] / "helpers"), os.environ["PYTHONPATH"]])
    environment = os.environ | {
        "PYTHONPATH": path,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_training(process: subprocess.Popen, out: Path) -> None:
    """Until the run has written something that was not there before."""
    timing = out / "timing.jsonl"
    before = timing.stat().st_size if timing.exists() else 0
    while process.poll() is None:
        if timing.exists() and timing.stat().st_size not in (0, before):
            return
        time.sleep(0.005)


def bits(folder: Path) -> tuple[bytes, bytes]:
    newest = sorted((folder / "checkpoints").glob("step_*"))[-1]
    return (newest / "arrays.safetensors").read_bytes(), (folder / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "a"
    process = start(folder)
    assert process.wait() == 0, process.communicate()
    return folder


def test_a_run_killed_and_signalled_in_real_processes_has_the_bits_of_one_that_was_not(
    whole: Path, tmp_path: Path
) -> None:
    out, chance = tmp_path / "a", random.Random(0)
    wanted = {signal.SIGKILL: -9, signal.SIGTERM: 75, signal.SIGINT: 130}
    for number, code in wanted.items():
        process = start(out)
        wait_for_training(process, out)
        time.sleep(chance.uniform(0.0, 0.1))
        process.send_signal(number)
        assert process.wait() == code, process.communicate()
    process = start(out)
    assert process.wait() == 0, process.communicate()
    assert bits(out) == bits(whole)


@pytest.mark.parametrize("kind", saves.KINDS)
def test_every_fault_in_a_save_leaves_a_whole_checkpoint_and_none_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(saves, "KINDS", (kind,))
    monkeypatch.setattr(saves, "LENGTH", 1000)
    found = saves.results(tmp_path)
    assert found.pop("faults") >= 25
    assert set(found.values()) == {0}


def test_every_damage_to_a_run_is_seen_and_the_checkpoint_before_it_is_taken(
    whole: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    found = damages.results(whole, made_another(other), 150, tmp_path, 0)
    assert found["seen"] == found["damages"] == 150
    for count in found["by_kind"].values():
        assert count["fell_back"] == count["damages"]
    assert len(found["by_kind"]) == len(damages.COMMON + damages.OTHERS)


def made_another(run: Path) -> Path:
    """A copy of a run turned into another run: another name and other arrays."""
    for folder in sorted((run / "checkpoints").iterdir()):
        arrays, metadata = checkpoint.load_raw(folder)
        changed = {name: np.roll(value, 1) for name, value in arrays.items()}
        checkpoint.save(folder, changed, {**metadata, "run_id": "another"})
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "run_id": "another"}))
    return run
