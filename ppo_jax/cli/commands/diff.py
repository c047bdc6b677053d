"""`ppo-jax diff A B`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.commands.run_argument import find_run
from ppo_jax.cli.parser import Parser
from ppo_jax.config import layers, reading
from ppo_jax.config.errors import InputError

_SHAPE = {"config": dict, "hyper": dict, "options": dict}
_OWN = ("out", "quiet", "resume", "init_from")  # options that say nothing about a training


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    help = "two runs' folders [the newest two]"
    parser.add_argument("run", nargs="*", metavar="RUN", help=help)


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    from ppo_jax.storage import run_list
    from ppo_jax.storage.run_folder import RUNS

    named = flags.get("run") or [str(path) for path in run_list.newest_first(RUNS)[:2][::-1]]
    if len(named) != 2:
        raise InputError(
            f"diff compares two runs, and {len(named)} are named: ppo-jax diff RUN RUN, or without "
            "names for the newest two."
        )
    runs = [find_run("diff", {"run": name}) for name in named]
    first, second = (_settings(run) for run in runs)
    names = list(dict.fromkeys([*first, *second]))
    differing = {
        name: [first.get(name), second.get(name)]
        for name in names
        if first.get(name) != second.get(name)
    }
    results = [_result(run) for run in runs]
    rows = [("", *map(str, runs))]
    rows += [(name, *map(_show, pair)) for name, pair in differing.items()]
    rows += [("", "", "")] if differing else [("settings", "the same", "the same")]
    rows += [(name, *(_show(each[name]) for each in results)) for name in results[0]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{x:<{w}}" for x, w in zip(row, widths)).rstrip() for row in rows]
    data = {"runs": list(map(str, runs)), "settings": differing, "results": results}
    return Answer(data, lines)


def _settings(run: Path) -> dict[str, Any]:
    """The settings of a run by name, of its environment's parameters as env.NAME."""
    record = reading.read_record(run / "config.json", _SHAPE)
    record = layers.with_new_fields(record)
    hyper = dict(record["hyper"])
    params = hyper.pop("env", None) or {}
    options = {name: value for name, value in record["options"].items() if name not in _OWN}
    found = {**record["config"], **hyper, **options}
    if isinstance(params, Mapping):
        found |= {f"env.{name}": value for name, value in params.items()}
    return found


def _result(run: Path) -> dict[str, Any]:
    from ppo_jax.storage import run_list

    row = run_list.describe(run)
    return {
        "state": row.state,
        "environment steps": row.env_steps,
        "final return": row.score,
        "return in training": row.training_return,
    }


def _show(value: Any) -> str:
    if isinstance(value, Mapping) and "start" in value:
        value = layers.Schedule(value["start"], value.get("end", 0.0), value.get("cosine", 0.0))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)


COMMAND = Command(
    "diff", "[RUN RUN]", "settings and results in which two runs differ", _run, _add_flags
)
