"""`ppo-jax sweep ENV AXIS...`, and `ppo-jax sweep FOLDER` to go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppo_jax.apps.sweep import axes
from ppo_jax.apps.sweep.options import SweepOptions, validate_sweep
from ppo_jax.cli import parser as flags
from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.commands.train import find_settings
from ppo_jax.config import layers, presets
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.validate import validate
from ppo_jax.envs import registration
from ppo_jax.runtime import signals

_METAVARS = {"out": "DIR", "storage": "URL", "memory": "SIZE", "study": "NAME"}


def _add_flags(parser: flags.Parser, words: Sequence[str]) -> None:
    env = next((word for word in words if not word.startswith("-") and "=" not in word), None)
    parser.rest = "axes"
    parser.add_argument("env", nargs="?", metavar="ENV", help="`ppo-jax envs`, or module:attribute")
    parser.add_argument_group(
        "axes", "NAME=VALUE,VALUE or NAME=LOW..HIGH[:POINTS][:log]; env.NAME for the environment's"
    )
    group = parser.add_argument_group("the sweep (steps are environment steps of one seed)")
    parser.add_switch(group, "--plan", "show groups, members, memory and time, and stop there")
    for spec in dataclasses.fields(SweepOptions):
        flag = f"--{spec.name.replace('_', '-')}"
        if spec.type == "bool":
            parser.add_switch(group, flag, spec.metadata["help"])
        else:
            parser.add_value(group, flag, _help(spec), _metavar(spec))
    sources = parser.add_argument_group("where settings come from (flag > config > preset)")
    parser.add_value(sources, "--preset", "a preset's name or FILE.toml [ENV's own]", "NAME")
    parser.add_switch(sources, "--no-preset", "start from the defaults alone")
    parser.add_value(sources, "--config", "settings from a JSON or TOML file", "FILE")
    preset = presets.load(env) if env else None
    shown = layers.resolve([presets.layer(preset)] if preset else [])
    values = {**vars(shown.config), **vars(shown.hyper)}
    flags.add_field_flags(parser, values, shown.sources, (Config, Hyper))


def _help(spec: dataclasses.Field) -> str:
    choices = spec.metadata["choices"]
    text = spec.metadata["help"] + (f": {' | '.join(choices)}" if choices else "")
    return text if spec.default is None else f"{text} [default: {spec.default}]"


def _metavar(spec: dataclasses.Field) -> str:
    if spec.metadata["choices"]:
        return "NAME"
    return _METAVARS.get(spec.name, "N" if "int" in str(spec.type) else "X")


def read_options(given: Mapping[str, Any]) -> SweepOptions:
    """The sweep's own flags, checked."""
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(SweepOptions):
        if spec.name not in given:
            continue
        values[spec.name] = layers.convert(SweepOptions, spec, given[spec.name])
    options = SweepOptions(**values)
    validate_sweep(options)
    return options


def _run(given: dict[str, Any], env_params: dict[str, str]) -> Answer:
    words = [word for word in (given.pop("env", None), *given.pop("axes", [])) if word]
    plain = [word for word in words if "=" not in word]
    if len(plain) > 1:
        raise InputError(
            f"{plain[1]!r} is no axis: write NAME=VALUE,VALUE or NAME=LOW..HIGH, for example "
            "learning_rate=1e-4..1e-2:log."
        )
    if not plain:
        raise InputError(
            "sweep needs an environment, for example: ppo-jax sweep CartPole-v1 "
            "learning_rate=1e-4..1e-2:5:log."
        )
    if len(words) == 1 and _is_sweep(plain[0]):
        return _go_on(plain[0], given, env_params)
    known = axes.parse([word for word in words if "=" in word])
    options = read_options(given)
    axes.check(known, options)
    own = {name for name, (owner, _) in layers.FIELDS.items() if owner in (Config, Hyper)}
    kept = {"preset", "no_preset", "config"} | own
    named = {name: value for name, value in given.items() if name in kept}
    chosen = find_settings({**named, "env": plain[0]}, env_params)
    for axis in known:
        if chosen.sources.get(axis.name) == "flag":
            flag = f"--{axis.name.replace('_', '-')}"
            raise InputError(f"{axis.name} is an axis and {flag} is given, too: leave one out.")
    validate(chosen.config, chosen.hyper)
    registration.check_name(chosen.config.env)
    axes.check_values(known, chosen.config, chosen.hyper)
    used = {source for source in chosen.sources.values() if source != "flag"}
    source = ", ".join(sorted(used)) or "defaults (no preset)"
    with signals.listening():  # from here on: importing jax takes a while
        from ppo_jax.apps.sweep import driver, folder, pack, plan
        from ppo_jax.apps.sweep.results import summary
        from ppo_jax.runtime import progress

        sweep = folder.Sweep(chosen.config, chosen.hyper, known, [{}], options)
        if "plan" in given:
            data, lines = plan.plan_only(sweep, source)
            return Answer(data, lines)
        with progress.sweep_display(options.quiet) as shown:
            listener = pack.Listener(shown.message, shown.update)
            table = driver.carry_out(sweep, listener, source)
    return Answer(table.summary, summary.lines(table), table.exit_code)


def _is_sweep(word: str) -> bool:
    return (Path(word) / "sweep.json").is_file()


def _go_on(path: str, given: Mapping[str, Any], env_params: Mapping[str, str]) -> Answer:
    more = [name for name in given if name not in ("quiet", "json", "debug")]
    more += [f"env.{name}" for name in env_params]
    if more:
        raise InputError(
            f"{path!r} is a sweep's folder, which says by itself what the sweep is: leave "
            f"--{more[0].replace('_', '-')} out to go on with it."
        )
    with signals.listening():
        from ppo_jax.apps.sweep import driver, pack
        from ppo_jax.apps.sweep.results import summary
        from ppo_jax.runtime import progress

        with progress.sweep_display("quiet" in given) as shown:
            listener = pack.Listener(shown.message, shown.update)
            table = driver.resume(path, listener=listener)
    return Answer(table.summary, summary.lines(table), table.exit_code)


COMMAND = Command(
    "sweep",
    "ENV AXIS...",
    "try settings x seeds at once, find the best",
    _run,
    _add_flags,
    True,
)
