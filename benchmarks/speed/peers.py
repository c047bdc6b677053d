"""The trainers under comparison and the virtual environments they live in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OURS = "ppo_jax"


@dataclass(frozen=True)
class Peer:
    """A trainer: its worker script, and what pip installs for it (nothing for our own)."""

    name: str
    worker: str
    requirements: str | None = None


PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, "worker_ppo_jax.py"),
        Peer("rejax", "worker_rejax.py", "requirements_rejax.txt"),
    )
}


def ensure_venv(peer: Peer, folder: Path, python: str) -> Path:
    """The peer's interpreter; its virtual environment is made when it is absent or outdated."""
    assert peer.requirements is not None
    requirements = HERE / peer.requirements
    venv = folder / f"{peer.name}-venv"
    interpreter, stamp = venv / "bin" / "python", venv / "installed.txt"
    wanted = f"{requirements.read_text()}\n# made with {python}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    print(f"installing {peer.name} into {venv}", file=sys.stderr, flush=True)
    subprocess.run([python, "-m", "venv", "--clear", str(venv)], check=True)
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
    subprocess.run(install, check=True)
    stamp.write_text(wanted)
    return interpreter


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
            raise RuntimeError(f"the worker of {self.peer.name} ended with exit code {code}")
        return json.loads(line)


def layouts(peer: Peer, python: Path, case: str, scale: float) -> list[str]:
    """The ways in which this trainer can lay the case out over the machine."""
    command = [*_command(peer, python, case, scale), "--list-layouts"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
    return json.loads(done.stdout)


def _command(peer: Peer, python: Path, case: str, scale: float) -> list[str]:
    return [str(python), str(HERE / peer.worker), "--case", case, "--scale", str(scale)]


def _environment() -> dict[str, str]:
    """Ours is imported from this tree; nobody profits from a compile cache on disk."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = str(ROOT)
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    return environment
