"""`ppo-jax runs [FOLDER]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.parser import Parser
from ppo_jax.config.errors import InputError
from ppo_jax.runtime.text import age, format_steps, quoted

if TYPE_CHECKING:
    from ppo_jax.storage.run_list import RunRow

SHOWN = 20  # runs, unless all are wanted


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="parent of runs [runs]")
    group = parser.add_argument_group("which ones")
    parser.add_switch(group, "--all", f"every run, not the newest {SHOWN} alone")


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    from ppo_jax.storage import run_list
    from ppo_jax.storage.run_folder import RUNS

    parent = Path(flags.get("folder", RUNS))
    if "folder" in flags and not parent.is_dir():
        raise InputError(f"{flags['folder']!r} is no folder: name a folder that holds runs.")
    found = run_list.newest_first(parent)
    shown = found if "all" in flags else found[:SHOWN]
    rows = [run_list.describe(path) for path in shown]
    if not rows:
        return Answer(
            {"runs": []},
            [f"No run is in {str(parent)!r}. ppo-jax train CartPole-v1 starts one in {RUNS}."],
        )
    table = [("run", "state", "changed", "environment", "objective", "seeds", "steps", "return")]
    table += [_columns(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(f"{x:<{w}}" for x, w in zip(line, widths)).rstrip() for line in table]
    hidden = len(found) - len(rows)
    note = f"{hidden:,} older runs: --all shows them. " if hidden else ""
    lines += ["", f"{note}Steps are those of one seed. (training) marks a return while training."]
    return Answer({"runs": [row._asdict() for row in rows], "older": hidden}, lines)


def _columns(row: RunRow) -> tuple[str, ...]:
    done = format_steps(row.env_steps)
    if row.total_env_steps is not None and row.env_steps < row.total_env_steps:
        done = f"{done} of {format_steps(row.total_env_steps)}"
    score = "-"
    if row.score is not None:
        score = f"{row.score:.4g}"
    elif row.training_return is not None:
        score = f"{row.training_return:.4g} (training)"
    seeds = "-" if row.seeds is None else str(row.seeds)
    words = (row.env or "-", row.objective or "-")
    return (quoted(row.run), row.state, age(row.seconds_ago), *words, seeds, done, score)


COMMAND = Command("runs", "[FOLDER]", "list the runs, newest first", _run, _add_flags)
