"""Scripts that start one run on several hosts, with stand-ins for the cluster's programs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PROGRAMS = {
    # Each host appends its words to a file of its own.
    "ppo-jax": 'for last; do :; done\necho "$@" >> "$LOG.$last"\nexit "$CODE"\n',
    "srun": 'shift\ncode=0\nfor i in 0 1; do SLURM_PROCID=$i "$@" || code=$?; done\nexit $code\n',
    "scontrol": 'case $1 in show) printf "n7\\nn8\\n";; *) echo "$@" >> "$LOG.scontrol";; esac\n',
    "ssh": 'echo "$1" >> "$LOG.ssh"\nexec sh -c "$2"\n',
}


def started(
    tmp_path: Path, script: str, words: list[str], code: int, **variables: str
) -> tuple[int, dict[str, str]]:
    """Exit code of a script, and what the stand-ins wrote."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
    done = subprocess.run(
        ["bash", str(SCRIPTS / script), *words],
        env={**environment, "CODE": str(code), **variables},
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    logs = {path.suffix[1:]: path.read_text().strip() for path in tmp_path.glob("log.*")}
    return done.returncode, logs


@pytest.mark.parametrize(
    "code, ended, requeued", [(0, 0, None), (75, 0, "requeue 5"), (2, 2, None)]
)
def test_slurm_starts_a_task_a_node_and_goes_on_after_a_stop(
    tmp_path: Path, code: int, ended: int, requeued: str | None
) -> None:
    slurm = {"SLURM_JOB_ID": "5", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "n[7-8]"}
    words = ["brax/ant", "--env.name", "two words"]
    found, logs = started(tmp_path, "slurm_hosts.sh", words, code, **slurm)
    common = "train brax/ant --env.name two words --out runs/slurm-5 --resume auto"
    joined = f"{common} --coordinator n7:49157 --num-hosts 2 --host-index"
    assert (logs["0"], logs["1"]) == (f"{joined} 0", f"{joined} 1")
    assert (found, logs.get("scontrol")) == (ended, requeued)


def test_ssh_starts_every_machine_with_its_number(tmp_path: Path) -> None:
    variables = {"HOSTS": "a b", "SSH": "ssh", "COMMAND": "resume"}
    found, logs = started(tmp_path, "ssh_hosts.sh", ["runs/my run"], 75, **variables)
    for i in (0, 1):
        assert logs[f"{i}"] == (
            f"resume runs/my run --coordinator a:5577 --num-hosts 2 --host-index {i}"
        )
    assert sorted(logs["ssh"].split()) == ["a", "b"]
    assert found == 75
