"""A run's folder: what is written where, so that it can be read, repeated and trusted.

config.json      all that is needed to run it again
manifest.json    versions, device, flags, git revision, times
metrics.jsonl    one object per logged point, nothing that depends on the clock
timing.jsonl     env_steps, wall_seconds, env_steps_per_second
summary.json     what `train --json` prints
checkpoints/     step_..., see `checkpoint`
learning_curve.svg
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax import settings
from ppo_jax.config import Config, Hyper, InputError, Schedule
from ppo_jax.options import RunOptions

FORMAT = 1
_OBJECT = " (an object)"  # ends the description of what cannot be written to a file
_PACKAGES = ("ppo-jax", "jax", "jaxlib", "flax", "optax", "gymnax", "chex", "numpy")


def default_path(config: Config, now: datetime | None = None) -> Path:
    """runs/ENV-OBJECTIVE-UTCTIME."""
    now = now or datetime.now(UTC)
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in env_name(config))
    return Path("runs") / f"{name}-{config.objective}-{now:%Y%m%dT%H%M%S}"


def env_name(config: Config) -> str:
    """The environment's name, also where it was given as an object."""
    if isinstance(config.env, str):
        return config.env
    name = getattr(config.env, "name", None)
    return name if isinstance(name, str) else type(config.env).__name__


def check(path: Path) -> None:
    """Refuse a folder that cannot become a new run's, before anything is compiled.

    Raises:
        InputError: it exists and is not empty, or it cannot be made or written.
    """
    if path.is_file():
        raise InputError(f"out={str(path)!r} is a file: name a new folder.")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"out={str(path)!r} exists and is not empty: name a new folder.")
    parent = path if path.exists() else path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(
            f"out={str(path)!r} cannot be written, because {str(parent)!r} is no writable folder: "
            "name another place."
        )


def create(path: Path, config: Config, hyper: Hyper, options: RunOptions, devices: list) -> None:
    """Make the folder with its config.json and manifest.json.

    Raises:
        InputError: the folder cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "config.json", describe(config, hyper, options))
        write_json(path / "manifest.json", manifest(devices))
    except OSError as error:
        raise InputError(f"out={str(path)!r} cannot be written: {error.strerror}.") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is either the old one or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(to_json(content), indent=2, allow_nan=False) + "\n", "utf-8")
    os.replace(temporary, path)


def to_json(value: Any) -> Any:
    """Plain JSON: arrays as lists, schedules as text, infinities as "inf", NaN as null."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, Schedule):
        return str(value)
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return f"{type(value).__module__}:{type(value).__qualname__}{_OBJECT}"


def describe(config: Config, hyper: Hyper, options: RunOptions) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "format": FORMAT,
        "config": {f.name: getattr(config, f.name) for f in dataclasses.fields(config)},
        "hyper": {f.name: getattr(hyper, f.name) for f in dataclasses.fields(hyper)},
        "options": dataclasses.asdict(options),
    }


def manifest(devices: list) -> dict[str, Any]:
    """What the bits of a run depend on beside its settings."""
    return {
        "started": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "devices": [f"{device.platform}:{device.device_kind}" for device in devices],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "git": _git_revision(),
        "command": sys.argv,
    }


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


def read(path: Path, env: Any = None) -> settings.Settings:
    """The settings of a finished or interrupted run.

    Args:
        env: the environment, needed where the run was given an object rather than a name.

    Raises:
        InputError: no run folder, one of another format, or an environment that must be given.
    """
    file = path / "config.json"
    if not file.is_file():
        raise InputError(f"{str(path)!r} is no run folder: it has no config.json.")
    try:
        content = json.loads(file.read_text("utf-8"))
        found = content["format"]
        given = settings.resolve([settings.file_layer(str(file), content)])
    except (json.JSONDecodeError, KeyError, TypeError, InputError) as error:
        raise InputError(f"{str(file)!r} is damaged: {error}") from error
    if found != FORMAT:
        raise InputError(f"{str(file)!r} has format {found}; this version reads {FORMAT}.")
    config = given.config if env is None else dataclasses.replace(given.config, env=env)
    for name in ("env", "network"):
        if str(getattr(config, name)).endswith(_OBJECT):
            raise InputError(
                f"the run {str(path)!r} was given its {name} as a Python object: pass it again "
                "from Python."
            )
    return given._replace(config=config)
