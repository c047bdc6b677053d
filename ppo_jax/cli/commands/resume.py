"""`ppo-jax resume RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.commands.run_argument import find_run
from ppo_jax.cli.parser import Parser
from ppo_jax.cli.trust import add_trust_flags, find_trust
from ppo_jax.config import layers
from ppo_jax.config.layers import FIELDS, Layer
from ppo_jax.config.options import CHANGEABLE, validate_options
from ppo_jax.runtime import signals
from ppo_jax.runtime.text import summary_lines

_BUDGET = {
    "total_env_steps": "raise the budget, in environment steps of one seed",
    "schedule_env_steps": "move the end of the schedules [default: where it was]",
}


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run's folder")
    group = parser.add_argument_group("what may change [default: as the run was started]")
    for name, text in _BUDGET.items():
        parser.add_value(group, f"--{name.replace('_', '-')}", text, "N")
    for name in CHANGEABLE:
        spec, flag = FIELDS[name][1], f"--{name.replace('_', '-')}"
        if spec.type == "bool":
            parser.add_switch(group, flag, spec.metadata["help"])
        else:
            parser.add_value(group, flag, spec.metadata["help"], "VALUE")
    add_trust_flags(parser)


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    folder = find_run("resume", flags)
    texts = {name: text for name, text in flags.items() if name in (*CHANGEABLE, *_BUDGET)}
    settings = layers.resolve([Layer("flag", texts, {})])
    changes = {
        name: getattr(next(part for part in settings[:3] if hasattr(part, name)), name)
        for name in texts
    }
    validate_options(settings.options)
    with signals.listening():  # from here on, because importing jax takes seconds
        from ppo_jax.apps.run import runner

        result = runner.resume(folder, trust=find_trust(flags), **changes)
    return Answer(result.summary, summary_lines(result.summary), result.exit_code)


COMMAND = Command("resume", "RUN", "go on with a run that was stopped", _run, _add_flags)
