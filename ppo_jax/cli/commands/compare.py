"""`ppo-jax compare RUN_A RUN_B...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.parser import Parser
from ppo_jax.config import values
from ppo_jax.config.errors import InputError


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    runs = "run folders; the seeds of A,B are one group; each is compared with the first"
    parser.add_argument("run", nargs="*", metavar="RUN", help=runs)
    group = parser.add_argument_group("comparison")
    margin = "returns that differ by less are equal [default: 5% of the environment's range]"
    parser.add_value(group, "--margin", margin, "X")


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    margin = None
    if "margin" in flags:
        given = values.whole_or_real("margin", flags["margin"])
        if not 0 <= given <= sys.float_info.max:
            raise InputError(f"margin={values.short(given)} must be a number of at least 0.")
        margin = float(given)
    from ppo_jax.apps.report import comparison

    found = comparison.compare(flags.get("run", []), margin)
    return Answer(found, comparison.lines(found))


COMMAND = Command(
    "compare",
    "RUN...",
    "difference of runs with its interval, and the seeds needed",
    _run,
    _add_flags,
)
