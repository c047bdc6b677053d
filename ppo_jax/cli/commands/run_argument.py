"""The argument RUN and the flag --member of the commands that read a run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppo_jax.config import layers
from ppo_jax.config.errors import InputError, nearest


def find_run(command: str, flags: Mapping[str, Any]) -> Path:
    """Return the run's folder that the flags name.

    Raises:
        InputError: none is named, or it is not the folder of a run.
    """
    if "run" not in flags:
        raise InputError(
            f"{command} needs a run's folder, for example: ppo-jax {command} runs/my-run."
        )
    run = Path(flags["run"])
    if (run / "sweep.json").is_file():
        raise InputError(
            f"{flags['run']!r} is a sweep's folder, not a run's: train its winner by ppo-jax train "
            f"ENV --preset {run / 'best.toml'}, and name that run."
        )
    if not (run / "config.json").is_file():
        beside = [path.parent.as_posix() for path in run.parent.glob("*/config.json")]
        raise InputError(
            f"{flags['run']!r} is no run's folder (there is no config.json in it)."
            + nearest(run.as_posix(), beside)
        )
    return run


def find_member(flags: Mapping[str, Any]) -> int:
    """Return the seed's place in the run, counted from 0; the first one by default."""
    member = layers.whole_number("member", flags.get("member", "0"))
    if member < 0:
        raise InputError(f"member={member} must be at least 0: seeds are counted from 0.")
    return member
