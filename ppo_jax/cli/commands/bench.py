"""`ppo-jax bench [ENV]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import Answer, Command, print_progress
from ppo_jax.cli.parser import Parser, choices_and_help
from ppo_jax.cli.settings import add_setting_flags, find_settings
from ppo_jax.config import layers
from ppo_jax.config.config import Schedule
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions, validate_options
from ppo_jax.config.validate import check_seconds, validate, with_one_iteration
from ppo_jax.envs import registration

ENV = "CartPole-v1"
OPTIONS = ("seeds", "seed", "devices", "platform")  # options of a run that a timing has, too


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    env = next((word for word in words if not word.startswith("-")), ENV)
    parser.add_argument("env", nargs="?", metavar="ENV", help=f"what to time [{ENV}]")
    group = parser.add_argument_group("the timing")
    parser.add_switch(group, "--sizes", "also try more environments and more seeds")
    parser.add_value(group, "--seconds", "about how long it may take [30; 120 with --sizes]", "X")
    parser.add_switch(group, "--quiet", "no progress on stderr")
    for name in OPTIONS:
        spec = layers.FIELDS[name][1]
        metavar = "NAME" if spec.metadata["choices"] else "N"
        parser.add_value(group, f"--{name}", choices_and_help(spec), metavar)
    add_setting_flags(parser, env)


def _run(flags: dict[str, Any], env_params: dict[str, str]) -> Answer:
    seconds = flags.pop("seconds", None)
    if seconds is not None:
        seconds = check_seconds(_number(seconds))
    settings = find_settings({"env": ENV, **flags}, env_params)
    # A --config file may be the record of a run: its other options are not those of a timing.
    options = RunOptions(**{name: getattr(settings.options, name) for name in OPTIONS})
    validate(with_one_iteration(settings.config), settings.hyper)
    validate_options(options)
    registration.check_name(settings.config.env)
    from ppo_jax.apps.diagnose import bench

    result = bench.report(
        settings.config,
        settings.hyper,
        options,
        seconds,
        sizes="sizes" in flags,
        tell=None if "quiet" in flags else print_progress,
    )
    return Answer(result, list(result["text"]))


def _number(text: str) -> float:
    number = layers.parse_number("seconds", text)
    if isinstance(number, Schedule):
        raise InputError(f"seconds={text!r} must be one number, for example 30.")
    return number


COMMAND = Command(
    "bench",
    "[ENV]",
    "how fast this machine trains ENV, and where time goes",
    _run,
    _add_flags,
    True,
    True,
)
