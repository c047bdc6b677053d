"""The compared trainers and their virtual environments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cases import ALL_CASES, CASES, SUITE_CASES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OURS, CEILING, ENVIRONMENT = "ppo_jax", "sgemm", "environment"
SUITES = "requirements_suites.txt"
CONSTRAINTS = HERE / "constraints.txt"
NEWEST_PYTHONS = ((3, 12), (3, 13))  # all trainers run in these; the first found is used


@dataclass(frozen=True)
class Peer:
    """A trainer: its worker script, its pip requirements, and its cases."""

    name: str
    package: str  # package whose version is shown in tables and pictures
    worker: str
    requirements: str
    cases: tuple[str, ...] = tuple(CASES)
    python: tuple[int, int] = (3, 11)  # the oldest it runs on
    is_old: bool = False  # it runs on this version of Python only, beside an older jax
    is_compiled: bool = True  # one program for the environment and the learning
    scale: float = 1.0  # factor on the budget, as speeds are rates and slow trainers take long


PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, "ppo-jax", "worker_ppo_jax.py", "requirements_ppo_jax.txt", tuple(ALL_CASES)),
        Peer("rejax", "rejax", "worker_rejax.py", "requirements_rejax.txt"),
        Peer(
            *("ajax", "ajax-rl", "worker_ajax.py", "requirements_ajax.txt"),
            cases=(*CASES, "m16", "m256"),
            python=(3, 12),
        ),
        Peer(
            *("purejaxrl", "jax", "worker_purejaxrl.py", "requirements_purejaxrl.txt"),
            cases=("s16", "s256"),
            is_old=True,
        ),
        Peer(
            *("sb3", "stable-baselines3", "worker_sb3.py", "requirements_sb3.txt"),
            cases=("a",),
            is_compiled=False,
            scale=1 / 32,
        ),
        *(
            Peer(s, s, f"worker_{s}.py", SUITES, tuple(case for case in SUITE_CASES if s in case))
            for s in ("brax", "craftax", "jumanji", "xminigrid")
        ),
        Peer("navix", "navix", "worker_navix.py", SUITES, ("navix",), python=(3, 12)),
        # No trainers: the environment alone, and the rate of this machine's matrix products.
        Peer(ENVIRONMENT, "ppo-jax", "worker_environment.py", SUITES, tuple(SUITE_CASES)),
        Peer(CEILING, "numpy", "worker_sgemm.py", "requirements_ppo_jax.txt", ("c", "craftax")),
    )
}


def find_python(versions: tuple[tuple[int, int], ...] = NEWEST_PYTHONS) -> str:
    """Find an interpreter that all trainers can be installed for; else the running one."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for wanted in versions:
        if sys.version_info[:2] == wanted:
            return sys.executable
        name = ".".join(map(str, wanted))
        on_path = shutil.which(f"python{name}")
        built = sorted(root.glob(f"versions/{name}.*/bin/python"))
        for candidate in [*([on_path] if on_path else []), *map(str, built)]:
            if version_of(candidate) == wanted:
                return candidate
    return sys.executable


def version_of(python: str) -> tuple[int, ...] | None:
    """Major and minor version, None if it is no working interpreter (such as some shims)."""
    ask = [python, "-c", "import sys, venv; print(*sys.version_info[:2])"]
    done = subprocess.run(ask, capture_output=True, text=True)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def interpreters(names: list[str], cases: list[str], folder: Path, given: Any) -> dict[str, Path]:
    """The interpreter of each trainer.

    Args:
        given: the options `python`, `own_python` and `peer_python` of `compare.py`.
    """
    found = {}
    for name in names:
        peer, ready = PEERS[name], given.own_python if name == OURS else given.peer_python
        if name in (OURS, CEILING) and set(cases) & set(SUITE_CASES):
            peer = replace(peer, requirements=SUITES)
        found[name] = Path(ready) if ready else ensure_venv(peer, folder, given.python)
    return found


def ensure_venv(peer: Peer, folder: Path, python: str) -> Path:
    """The peer's interpreter; its virtual environment is made when it is absent or outdated."""
    requirements = HERE / peer.requirements
    venv = folder / f"{requirements.stem.removeprefix('requirements_')}-venv"
    interpreter, stamp = venv / "bin" / "python", venv / "installed.txt"
    if peer.is_old:
        python = find_python((peer.python,))
    constraints = [] if peer.is_old else ["-c", str(CONSTRAINTS)]
    shared = "" if peer.is_old else CONSTRAINTS.read_text()
    wanted = f"{shared}{requirements.read_text()}\n# made with {python}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    print(f"installing {requirements.name} into {venv}", file=sys.stderr, flush=True)
    subprocess.run([python, "-m", "venv", "--clear", str(venv)], check=True)
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
    subprocess.run([*install, *constraints], check=True)
    stamp.write_text(wanted)
    return interpreter


class WorkerEnded(RuntimeError):
    """A worker process is gone."""


class Process:
    """A worker process that answers each command with one JSON object."""

    def __init__(self, peer: Peer, python: Path, case: str, layout: str, scale: float) -> None:
        self.peer, self.layout = peer, layout
        command = [*_command(peer, python, case, scale), "--layout", layout]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )
        self.info = self._read()

    def ask(self, command: str) -> dict:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise RuntimeError(f"{self.peer.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise WorkerEnded(f"the worker of {self.peer.name} ended with exit code {code}")
        return json.loads(line)


def layouts(peer: Peer, python: Path, case: str, scale: float) -> list[str]:
    """The ways in which this trainer can lay the case out over the machine."""
    command = [*_command(peer, python, case, scale), "--list-layouts"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
    return json.loads(done.stdout)


def _command(peer: Peer, python: Path, case: str, scale: float) -> list[str]:
    worker = str(HERE / peer.worker)
    return [str(python), worker, "--case", case, "--scale", str(scale * peer.scale)]


def _environment() -> dict[str, str]:
    """Variables of a worker: ours is imported from this tree; no compile cache on disk."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = str(ROOT)
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    return environment
