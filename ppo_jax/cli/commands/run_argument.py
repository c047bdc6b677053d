"""The argument RUN and the flag --member of the commands that read a run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppo_jax.config import layers
from ppo_jax.config.errors import InputError, nearest


def find_run(command: str, given: Mapping[str, Any]) -> Path:
    """The run's folder that was named; refuses what is none."""
    if "run" not in given:
        raise InputError(
            f"{command} needs a run's folder, for example: ppo-jax {command} runs/my-run."
        )
    run = Path(given["run"])
    if (run / "sweep.json").is_file():
        raise InputError(
            f"{given['run']!r} is a sweep's folder and no run's: train its winner by ppo-jax train "
            f"ENV --preset {run / 'best.toml'}, and name that run."
        )
    if not (run / "config.json").is_file():
        beside = [path.parent.as_posix() for path in run.parent.glob("*/config.json")]
        raise InputError(
            f"{given['run']!r} is no run's folder (there is no config.json in it)."
            + nearest(run.as_posix(), beside)
        )
    return run


def find_member(given: Mapping[str, Any]) -> int:
    """Which seed of the run, counted from 0; the first one where it is not said."""
    member = layers.whole_number("member", given.get("member", "0"))
    if member < 0:
        raise InputError(f"member={member} must be at least 0: seeds are counted from 0.")
    return member
