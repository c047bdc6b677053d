"""`ppo-jax doctor [ENV]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import FAILED, Answer, Command
from ppo_jax.cli.parser import Parser
from ppo_jax.config import layers
from ppo_jax.config.validate import check_count


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    parser.add_argument("env", nargs="?", metavar="ENV", help="an environment to check")
    group = parser.add_argument_group("memory")
    note = "print the bytes of N environments, without a network [default: 4096]"
    parser.add_value(group, "--num-envs", note, "N")


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    num_envs = layers.whole_number("num_envs", flags.get("num_envs", "4096"))
    check_count("num_envs", num_envs, 1, 2**31 - 1)
    from ppo_jax.apps.diagnose import doctor

    report = doctor.report(flags.get("env"), num_envs)
    return Answer(report, list(report["text"]), 0 if report.get("ok", True) else FAILED)


COMMAND = Command(
    "doctor",
    "[ENV]",
    "check this machine, and that ENV keeps the contract",
    _run,
    _add_flags,
)
