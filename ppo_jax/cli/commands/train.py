"""`ppo-jax train ENV`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ppo_jax.cli import parser as flags
from ppo_jax.cli.answer import Answer, Command
from ppo_jax.config import layers as settings
from ppo_jax.config import presets
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import Layer, Settings
from ppo_jax.config.options import validate_options
from ppo_jax.config.validate import validate
from ppo_jax.envs import registration
from ppo_jax.runtime import signals
from ppo_jax.runtime.text import summary_lines


def _add_flags(parser: flags.Parser, words: Sequence[str]) -> None:
    env = next((word for word in words if not word.startswith("-")), None)
    parser.add_argument("env", nargs="?", metavar="ENV", help="`ppo-jax envs`, or module:attribute")
    sources = parser.add_argument_group("where settings come from (flag > config > preset)")
    parser.add_value(sources, "--preset", "a preset's name or FILE.toml [ENV's own]", "NAME")
    parser.add_switch(sources, "--no-preset", "start from the defaults alone")
    parser.add_value(sources, "--config", "settings from a JSON or TOML file", "FILE")
    given = [word.partition("=")[2] for word in words if word.startswith("--objective=")]
    given += [after for word, after in pairwise(words) if word == "--objective"]
    preset = presets.load(env, *given[:1]) if env else None
    shown = settings.resolve([presets.layer(preset)] if preset else [])
    values = {**vars(shown.config), **vars(shown.hyper), **vars(shown.options)}
    flags.add_field_flags(parser, values, shown.sources)


def _run(given: dict[str, Any], env_params: dict[str, str]) -> Answer:
    chosen = find_settings(given, env_params)
    validate(chosen.config, chosen.hyper)
    validate_options(chosen.options)
    registration.check_name(chosen.config.env)
    out = chosen.options.out
    from ppo_jax.storage import run_folder

    goes_on = chosen.options.resume == "auto" and out is not None and run_folder.is_run(out)
    if not goes_on:
        run_folder.check(out)
    used = {source for source in chosen.sources.values() if source != "flag"}
    source = ", ".join(sorted(used)) or "defaults (no preset)"
    with signals.listening():  # from here on: importing jax takes a while
        from ppo_jax.apps.run import runner

        result = runner.run(chosen.config, chosen.hyper, chosen.options, source=source)
    return Answer(result.summary, summary_lines(result.summary), result.exit_code)


def find_settings(given: Mapping[str, Any], env_params: Mapping[str, str]) -> Settings:
    """Flag over file over preset over default."""
    if "preset" in given and "no_preset" in given:
        raise InputError("--preset and --no-preset exclude each other: give one of them.")
    own = {name: value for name, value in given.items() if name in settings.FIELDS}
    layers = [Layer("flag", own, env_params)]
    if "config" in given:
        layers.insert(0, _config_layer(given["config"]))
    named = settings.resolve(layers)
    if "env" not in named.sources:
        raise InputError("train needs an environment, for example: ppo-jax train CartPole-v1.")
    env, objective = named.config.env, named.config.objective
    if "preset" in given:
        wanted = objective if "objective" in named.sources else None
        layers.insert(0, presets.layer(presets.find(given["preset"], wanted)))
    elif "no_preset" not in given:
        preset = presets.load(env, objective)
        layers = ([presets.layer(preset)] if preset else []) + layers
    return settings.resolve(layers)


def _config_layer(name: str) -> Layer:
    import tomllib

    try:
        text = Path(name).read_text("utf-8")
        content = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except OSError as error:
        raise InputError(
            f"--config {name!r} cannot be read: {error.strerror}; name a JSON or TOML file."
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"--config {name!r} is neither JSON nor TOML: {error}.") from None
    if not isinstance(content, dict):
        raise InputError(f"--config {name!r} must hold settings by name, not a bare value.")
    layer = settings.file_layer(name, content)
    if "format" in content:  # a run's own record: its folder is taken
        return layer._replace(values={k: v for k, v in layer.values.items() if k != "out"})
    return layer


COMMAND = Command("train", "ENV", "train on an environment, evaluate, save", _run, _add_flags, True)
