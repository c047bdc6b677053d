"""`ppo-jax resume RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.commands.run_argument import add_run_argument, find_run
from ppo_jax.cli.parser import Parser, choices_and_help, metavar_of
from ppo_jax.cli.trust import add_trust_flags, find_trust
from ppo_jax.config import layers, names
from ppo_jax.config.layers import FIELDS, Layer
from ppo_jax.config.options import CHANGEABLE, RunOptions, validate_options
from ppo_jax.runtime import signals
from ppo_jax.runtime.text import summary_lines

_BUDGET = {
    "total_env_steps": "raise the budget, in environment steps of one seed",
    "schedule_env_steps": "move the end of the schedules [default: where it was]",
}


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    parser.elsewhere = _elsewhere
    add_run_argument(parser)
    group = parser.add_argument_group("what may change [default: as the run was started]")
    for name, text in _BUDGET.items():
        parser.add_value(group, f"--{name.replace('_', '-')}", text, "N")
    for name in CHANGEABLE:
        spec, flag = FIELDS[name][1], f"--{name.replace('_', '-')}"
        if spec.type == "bool":
            parser.add_switch(group, flag, spec.metadata["help"])
        else:
            parser.add_value(group, flag, choices_and_help(spec), metavar_of(RunOptions, spec))
    add_trust_flags(parser)


def _elsewhere(name: str) -> str:
    """Answer a setting that a run keeps: a new run may start from this one's policy."""
    field = names.OTHER_NAMES.get(name, name)
    if field not in FIELDS or field == "env":
        return ""
    flag = f"--{field.replace('_', '-')}"
    return (
        f" A run keeps its {field}; a new run that starts from its policy may have another: "
        f"ppo-jax train ENV --init-from RUN {flag} VALUE."
    )


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


COMMAND = Command("resume", "[RUN]", "go on with a run that was stopped", _run, _add_flags)
