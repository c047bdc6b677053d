"""The manifest of a run: program, machine and command, beside its settings."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ppo_jax.config.values import masked
from ppo_jax.envs.suite_table import SUITES

# The shape of manifest.json, see `reading.expect`; older ones have less in them.
MANIFEST = {
    "started?": str,
    "versions?": (dict, None),
    "python?": (str, None),
    "machine?": (str, None),
    "cores?": (int, None),
    "devices?": ([str], None),
    "xla_flags?": (str, None),
    "git?": (str, None),
    "command?": ([str], None),
    "resumed?": list,
}
PACKAGES = ("ppo-jax", "jax", "jaxlib", "flax", "optax", "gymnax", "chex", "numpy")


def make_manifest(devices: Sequence[Any]) -> dict[str, Any]:
    """The content of manifest.json.

    Args:
        devices: the jax devices that are used.
    """
    return {
        "started": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "versions": package_versions(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": core_count(),
        "devices": [f"{device.platform}:{device.device_kind}" for device in devices],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "git": _git_revision(),
        "command": [Path(sys.argv[0]).name, *map(without_folders, map(masked, sys.argv[1:]))],
    }


def without_folders(word: str) -> str:
    """A word of the command line whose absolute path is its last name: results are published."""
    flag, equals, value = word.rpartition("=")
    return f"{flag}{equals}{Path(value).name}" if value.startswith("/") else word


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that a run computes with; None if one is not installed.

    A suite of environments is among them if this process has imported its adapter.
    """
    others = [suite.name for suite in SUITES.values() if not suite.is_ours]
    suites = [name for name in others if f"ppo_jax.envs.suites.{name}" in sys.modules]
    return {name: _version(name) for name in (*PACKAGES, *suites)}


def core_count() -> int | None:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor() -> str:
    """The CPU's model: XLA compiles for its instructions."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def hardware() -> str:
    """The CPU's model and the number of cores that this process may use, in words."""
    return f"{processor()}, {cores_in_words(core_count())}"


def cores_in_words(count: int | None) -> str:
    """A number of cores in words, singular or plural."""
    return f"{count} core{'' if count == 1 else 's'}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """The revision of the folder the run was started in, None outside a repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
