"""`ppo-jax doctor [ENV]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import FAILED, Answer, Command
from ppo_jax.cli.parser import Parser


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    parser.add_argument("env", nargs="?", metavar="ENV", help="an environment to check")


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    from ppo_jax.apps.diagnose import doctor

    report = doctor.report(flags.get("env"))
    return Answer(report, list(report["text"]), 0 if report.get("ok", True) else FAILED)


COMMAND = Command(
    "doctor",
    "[ENV]",
    "check this machine, and that ENV keeps the contract",
    _run,
    _add_flags,
)
