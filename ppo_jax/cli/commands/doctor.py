"""`ppo-jax doctor [ENV]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli import parser as flags
from ppo_jax.cli.answer import FAILED, Answer, Command


def _add_flags(parser: flags.Parser, words: Sequence[str]) -> None:
    del words
    parser.add_argument("env", nargs="?", metavar="ENV", help="an environment to check")


def _run(given: dict[str, Any], _: dict[str, str]) -> Answer:
    from ppo_jax.apps.diagnose import doctor

    report = doctor.report(given.get("env"))
    return Answer(report, list(report["text"]), 0 if report.get("ok", True) else FAILED)


COMMAND = Command(
    "doctor",
    "[ENV]",
    "what this machine has; whether ENV keeps the contract",
    _run,
    _add_flags,
)
