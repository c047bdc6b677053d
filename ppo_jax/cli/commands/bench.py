"""`ppo-jax bench [ENV]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ppo_jax.cli import parser as flags
from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.commands.train import find_settings
from ppo_jax.config import layers, presets
from ppo_jax.config.config import Config, Hyper, Schedule, parse_number
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions, validate_options
from ppo_jax.config.validate import check_seconds, validate, with_one_iteration
from ppo_jax.envs import registration

ENV = "CartPole-v1"
OPTIONS = ("seeds", "seed", "devices", "platform")  # of a run's, those that a timing has too


def _add_flags(parser: flags.Parser, words: Sequence[str]) -> None:
    env = next((word for word in words if not word.startswith("-")), ENV)
    parser.add_argument("env", nargs="?", metavar="ENV", help=f"what to time [{ENV}]")
    group = parser.add_argument_group("the timing")
    parser.add_switch(group, "--sizes", "also try more environments and more seeds")
    parser.add_value(group, "--seconds", "about how long it may take [30; 120 with --sizes]", "X")
    parser.add_switch(group, "--quiet", "say nothing on stderr")
    for name in OPTIONS:
        spec = layers.FIELDS[name][1]
        choices = spec.metadata["choices"]
        text = spec.metadata["help"] + (f": {' | '.join(choices)}" if choices else "")
        metavar = "NAME" if choices else "N"
        parser.add_value(group, f"--{name}", text, metavar)
    sources = parser.add_argument_group("where settings come from (flag > config > preset)")
    parser.add_value(sources, "--preset", "a preset's name or FILE.toml [ENV's own]", "NAME")
    parser.add_switch(sources, "--no-preset", "start from the defaults alone")
    parser.add_value(sources, "--config", "settings from a JSON or TOML file", "FILE")
    preset = presets.load(env)
    shown = layers.resolve([presets.layer(preset)] if preset else [])
    values = {**vars(shown.config), **vars(shown.hyper)}
    flags.add_field_flags(parser, values, shown.sources, (Config, Hyper))


def _run(given: dict[str, Any], env_params: dict[str, str]) -> Answer:
    seconds = given.pop("seconds", None)
    if seconds is not None:
        seconds = check_seconds(_number(seconds))
    chosen = find_settings({"env": ENV, **given}, env_params)
    # What a run's record in --config says of its carrying out is not what is timed here.
    own = {name: getattr(chosen.options, name) for name in OPTIONS}
    options = RunOptions(**own)
    validate(with_one_iteration(chosen.config), chosen.hyper)
    validate_options(options)
    registration.check_name(chosen.config.env)
    from ppo_jax.apps.diagnose import bench

    tell = None if "quiet" in given else _tell
    found = bench.report(
        chosen.config, chosen.hyper, options, seconds, sizes="sizes" in given, tell=tell
    )
    return Answer(found, list(found["text"]))


def _number(text: str) -> float:
    number = parse_number("seconds", text)
    if isinstance(number, Schedule):
        raise InputError(f"seconds={text!r} must be one number, for example 30.")
    return number


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


COMMAND = Command(
    "bench",
    "[ENV]",
    "how fast this machine trains ENV, and where time goes",
    _run,
    _add_flags,
    True,
)
