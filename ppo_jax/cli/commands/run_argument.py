"""The argument RUN and the flags --member and --checkpoint of commands that read a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppo_jax.cli.answer import print_progress
from ppo_jax.cli.parser import Parser
from ppo_jax.config import layers
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.options import CHECKPOINTS
from ppo_jax.runtime.text import quoted


def find_run(command: str, flags: Mapping[str, Any]) -> Path:
    """Return the run's folder that the flags name, or the newest one, whose name is printed.

    Raises:
        InputError: there is none, or it is not the folder of a run.
    """
    if "run" not in flags:
        return find_newest("json" not in flags)
    run = Path(flags["run"])
    if (run / "sweep.json").is_file():
        raise InputError(
            f"{flags['run']!r} is a sweep's folder, not a run's: train its winner by ppo-jax train "
            f"ENV --preset {quoted(str(run / 'best.toml'))}, and name that run."
        )
    if not (run / "config.json").is_file():
        from ppo_jax.storage import run_list

        inside = [path.as_posix() for path in run_list.newest_first(run)]
        if inside:
            raise InputError(
                f"{flags['run']!r} holds runs and is none itself: name one of them, for example "
                f"ppo-jax {command} {quoted(inside[0])}, the newest"
                + (f", or {', '.join(map(quoted, inside[1:3]))}." if inside[1:] else ".")
            )
        beside = [
            path.parent.as_posix() for path in run.parent.glob("*/config.json") if path.is_file()
        ]
        raise InputError(
            f"{flags['run']!r} is no run's folder (there is no config.json in it)."
            + nearest(run.as_posix(), beside)
        )
    return run


def find_newest(is_printed: bool) -> Path:
    """Return the newest run in the folder `runs`, and print which one on stderr.

    Raises:
        InputError: there is none.
    """
    from ppo_jax.storage import run_list

    run = run_list.newest()
    if is_printed:
        print_progress(f"run: {quoted(run.as_posix())} (the newest one)")
    return run


def add_run_argument(parser: Parser) -> None:
    """Add the argument RUN."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run's folder [the newest one]")


def add_checkpoint_flag(parser: Parser, group: Any) -> None:
    """Add the flag --checkpoint."""
    words = f"{' | '.join(CHECKPOINTS)} (by --eval-every) | environment steps [default: newest]"
    parser.add_value(group, "--checkpoint", words, "NAME|N")


def find_checkpoint(flags: Mapping[str, Any]) -> str | int:
    """Return the choice of a checkpoint: a word, or a number of environment steps.

    Raises:
        InputError: it is neither.
    """
    return layers.checkpoint_choice(flags.get("checkpoint", CHECKPOINTS[0]))


def find_member(flags: Mapping[str, Any]) -> int:
    """Return the seed's place in the run, counted from 0; the first one by default."""
    member = layers.whole_number("member", flags.get("member", "0"))
    if member < 0:
        raise InputError(f"member={member} must be at least 0: seeds are counted from 0.")
    return member
