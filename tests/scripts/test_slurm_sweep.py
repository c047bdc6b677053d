"""The jobs of a SLURM array share one folder, and each puts itself back if it was stopped."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slurm_sweep.sh"


@pytest.mark.parametrize("code", [0, 2, 75])
def test_a_job_of_the_array_joins_the_sweep_and_requeues_itself_after_a_stop(
    code: int, tmp_path: Path
) -> None:
    for name, ending in (("srun", code), ("scontrol", 0)):  # in place of SLURM's
        command = tmp_path / name
        command.write_text(f'#!/bin/bash\necho {name} "$@" >> {tmp_path}/log\nexit {ending}\n')
        command.chmod(0o755)
    known = {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(
        ["bash", str(SCRIPT), "CartPole-v1", "gamma=0.9,0.99"],
        env={**os.environ, **known, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    ran = "srun ppo-jax sweep CartPole-v1 gamma=0.9,0.99 --join --out runs/sweep-70"
    again = ["scontrol requeue 70_3"] if code == 75 else []
    assert (tmp_path / "log").read_text().splitlines() == [ran, *again]
    assert done.returncode == (0 if code == 75 else code)
