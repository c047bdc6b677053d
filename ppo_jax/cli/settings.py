"""Flags and precedence of the settings that `train`, `sweep` and `bench` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppo_jax.cli.parser import Parser, add_field_flags
from ppo_jax.cli.trust import add_trust_switch, find_trust, require_settings
from ppo_jax.config import layers, presets
from ppo_jax.config.config import Config, Hyper, canonical
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import Layer, Settings
from ppo_jax.config.reading import read_json, read_toml, read_yaml
from ppo_jax.config.trust import code_names


def add_setting_flags(
    parser: Parser,
    env: str | None,
    objective: str | None = None,
    owners: tuple[type, ...] = (Config, Hyper),
) -> None:
    """Add the flags of presets, files and single settings.

    Args:
        env, objective: of the preset whose values the help shows as defaults.
        owners: the dataclasses whose fields become flags.
    """
    common = parser.add_argument_group("common settings")
    group = parser.add_argument_group("where settings come from (flag > config > preset)")
    parser.add_value(group, "--preset", "a preset's name or FILE.toml [ENV's own]", "NAME")
    parser.add_switch(group, "--no-preset", "start from the defaults alone")
    parser.add_value(group, "--config", "settings from a TOML, YAML or JSON file", "FILE")
    add_trust_switch(parser, group)
    preset = presets.load(env, str(canonical("objective", objective or "clip"))) if env else None
    shown = layers.resolve([presets.layer(preset)] if preset else [])
    values = {**vars(shown.config), **vars(shown.hyper), **vars(shown.options)}
    add_field_flags(parser, common, values, shown.sources, owners)


def find_settings(flags: Mapping[str, Any], env_params: Mapping[str, str]) -> Settings:
    """Resolve flags over file over preset over defaults.

    Raises:
        InputError: no environment, an unknown preset, a file that holds no settings, or one that
            names a program which the user does not vouch for.
    """
    if "preset" in flags and "no_preset" in flags:
        raise InputError("--preset and --no-preset exclude each other: give one of them.")
    own = {name: value for name, value in flags.items() if name in layers.FIELDS}
    stack, files = [Layer("flag", own, env_params)], []
    if "config" in flags:
        files.append(_file(flags["config"]))
        theirs = files[0].values.get("env")
        if theirs not in (None, own.get("env", theirs)):
            files[0] = files[0]._replace(source=f"{files[0].source} (without its env {theirs})")
        stack.insert(0, files[0])
    named = layers.resolve(stack)
    if "env" not in named.sources:
        raise InputError("train needs an environment, for example: ppo-jax train CartPole-v1.")
    env, objective = named.config.env, named.config.objective
    if "preset" in flags:
        wanted = objective if "objective" in named.sources else None
        stack.insert(0, presets.layer(presets.find(flags["preset"], wanted)))
        files += stack[:1] if flags["preset"].endswith(".toml") else []
    elif "no_preset" not in flags and (preset := presets.load(env, objective)):
        stack.insert(0, presets.layer(preset))
    settings = layers.resolve(stack)
    require_settings(settings, files, find_trust(flags))
    _require_whole_envs(settings)
    return settings


def _require_whole_envs(settings: Settings) -> None:
    """Refuse a flag that asks a memory to shuffle samples; the default means nothing to it."""
    asked = settings.sources.get("shuffle") == "flag" and settings.config.shuffle == "samples"
    if asked and settings.config.memory != "none":
        raise InputError(
            f"--shuffle samples does not fit memory {settings.config.memory}, whose minibatches "
            "are whole environments: leave it out, or take env-rows."
        )


def source_of(settings: Settings) -> str:
    """Name the files and presets that the settings come from, for the first line of a run."""
    used = {source for source in settings.sources.values() if source != "flag"}
    return ", ".join(sorted(used)) or "defaults (no preset)"


_KINDS = {".toml": "TOML", ".yaml": "YAML", ".yml": "YAML"}
_READERS = {"TOML": read_toml, "YAML": read_yaml, "JSON": read_json}


def as_file(settings: Settings, title: str) -> list[str]:
    """The lines of a file that `--config` reads back to the same settings."""
    from ppo_jax.storage import sealed

    signed = sealed.sign(code_names(vars(settings.config)))
    head = [f"{name} = {layers.toml_value(text)}" for name, text in signed.items()]
    return [*title_lines(title), *head, *([""] if head else []), *layers.as_toml(settings)]


def title_lines(title: str) -> list[str]:
    """A title as remarks of a file, in lines of readable length."""
    import textwrap

    return [f"# {line}" for line in textwrap.wrap(title, 96, break_on_hyphens=False)]


def _file(name: str) -> Layer:
    """Read the settings of a file; a run's own record leaves its folder out."""
    kind = next((kind for end, kind in _KINDS.items() if name.lower().endswith(end)), "JSON")
    try:
        content = _READERS[kind](name)
    except OSError as error:
        raise InputError(
            f"--config {name!r} cannot be read: {error.strerror}; name a TOML, YAML or JSON file."
        ) from None
    except ValueError as error:
        raise InputError(
            f"--config {name!r} is no {kind}: {error}. ppo-jax train ENV --print-config > my.toml "
            "makes a file to start from."
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"--config {name!r} must hold settings by name, not a bare value.")
    if any(
        isinstance(each, dict) and each.keys() & {"config", "hyper"} for each in content.values()
    ):
        raise InputError(f"--config {name!r} is a preset: give it with --preset {name}.")
    layer = layers.file_layer(name, content)._replace(signature=content.get("signature"))
    if "format" in content:  # the record of a run
        return layer._replace(values={k: v for k, v in layer.values.items() if k != "out"})
    return layer
