"""The SLURM scripts pass all words on, and requeue the job if and only if the exit code is 75."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JOB = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_SUBMIT_DIR": f"{ROOT}"}


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder with an `srun` that exits with $CODE and an `scontrol`; both write their words."""
    for name, code in (("srun", "$CODE"), ("scontrol", "0")):
        (tmp_path / name).write_text(
            f'#!/bin/bash\nprintf "%s\\n" "$*" >> {tmp_path}/{name}.txt\nexit {code}\n', "utf-8"
        )
        (tmp_path / name).chmod(0o755)
    return tmp_path


def submit(cluster: Path, script: str, *words: str, **env: str) -> int:
    path = f"{cluster}:{os.environ['PATH']}"
    command = ["bash", f"{ROOT}/scripts/{script}", *words]
    whole = {**JOB, "CODE": "0", **env, "PATH": path}
    return subprocess.run(command, cwd=cluster, env=whole, check=False).returncode


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        ([], "CartPole-v1 --out runs/slurm-7"),
        (["--seeds", "8"], "CartPole-v1 --seeds 8 --out runs/slurm-7"),
        (["Pendulum-v1", "--out", "runs/mine"], "Pendulum-v1 --out runs/mine"),
    ],
)
def test_every_word_reaches_the_command(cluster: Path, words: list[str], passed: str) -> None:
    assert submit(cluster, "slurm_requeue.sh", *words) == 0
    assert (cluster / "srun.txt").read_text() == f"ppo-jax train {passed} --resume auto\n"
    assert not (cluster / "scontrol.txt").exists()


@pytest.mark.parametrize(("code", "end", "requeued"), [("75", 0, True), ("2", 2, False)])
def test_a_stopped_run_is_requeued_and_a_refused_one_is_not(
    cluster: Path, code: str, end: int, requeued: bool
) -> None:
    assert submit(cluster, "slurm_requeue.sh", "Pendulum-v1", CODE=code) == end
    assert (cluster / "scontrol.txt").exists() == requeued


def test_a_task_of_an_array_takes_its_own_line(cluster: Path) -> None:
    (cluster / "runs.txt").write_text("CartPole-v1 --seeds 2\nPendulum-v1 --env.g '9.0'\n")
    task = {"SLURM_ARRAY_TASK_ID": "2", "CODE": "75"}
    assert submit(cluster, "slurm_array.sh", "runs.txt", **task) == 0
    sent = "ppo-jax train Pendulum-v1 --env.g 9.0 --out runs/slurm-5_2 --resume auto\n"
    assert (cluster / "srun.txt").read_text() == sent
    assert (cluster / "scontrol.txt").read_text() == "requeue 7\n"
    assert submit(cluster, "slurm_array.sh", "runs.txt", SLURM_ARRAY_TASK_ID="3") == 2
