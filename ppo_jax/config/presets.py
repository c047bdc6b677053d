"""Tuned settings as data: one TOML file per environment, one table per objective.

A file of another name suits any environment, and names the one that it was measured on.

env = "CartPole-v1"
signature = "..."  # if a sweep of this user wrote it and it names programs, see `trust`
[clip]
source = "origin of the setting"
[clip.config]      # fields of Config
[clip.hyper]       # fields of Hyper, schedules as START:END
[clip.result]      # our measurement: score, interval, seeds, env_steps, ...
[clip.reference]   # published by others: score, env_steps, source
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.data import DATA
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.layers import FILE_TABLES, Layer, file_layer, resolve
from ppo_jax.config.reading import read_toml
from ppo_jax.config.trust import Trust, code_names, require
from ppo_jax.config.values import short

FOLDER = DATA / "presets"
_KEYS = ("source", "config", "hyper", "result", "reference")


class Preset(NamedTuple):
    """A setting for one environment and objective."""

    name: str  # for --preset: the name of the environment or of the file
    env: str
    objective: str
    config: dict[str, Any]
    hyper: dict[str, Any]
    score: dict[str, Any] | None  # our measurement, None if there is none
    reference: dict[str, Any] | None  # published by others
    source: str
    signature: Any = None  # by which the user vouches for the programs in it


def load(env: str, objective: str = "clip") -> Preset | None:
    """Load the preset of an environment and an objective; None if there is none."""
    path = _stored(env)
    if path is None or objective not in _objectives(_parse(path)):
        return None
    found = read(path, objective)
    return found if found.env == env else None


def all_presets() -> list[Preset]:
    """Load every preset of the package, by name and objective."""
    return [
        read(path, objective)
        for path in sorted(FOLDER.glob("*.toml"))
        for objective in _objectives(_parse(path))
    ]


def find(name: str, objective: str | None = None) -> Preset:
    """Find the preset called `name`, or the TOML file at `name`.

    Args:
        objective: one of its tables; None for the only one, or for `clip` if there are several.

    Raises:
        InputError: there is none, or the file is no preset.
    """
    if name.endswith(".toml"):
        return read(Path(name), objective)
    path = _stored(name)
    if path is None or objective not in (None, *_objectives(_parse(path))):
        names = {each.name for each in all_presets() if objective in (None, each.objective)}
        words = "" if objective is None else f" for objective {objective}"
        if theirs := sorted(each for each in names if each.startswith(f"{name}/")):
            raise InputError(
                f"{name!r} is a suite and no preset{words}: name one of {', '.join(theirs)}."
            )
        raise InputError(
            f"There is no preset {name!r}{words}: `ppo-jax presets` lists them, "
            f"and a FILE.toml works, too.{nearest(name, sorted(names))}"
        )
    return read(path, objective)


def preset(
    name: str | Path, objective: str | None = None, *, trust: Trust = False
) -> tuple[Config, Hyper]:
    """Load a tuned setting, to train with or to change with `dataclasses.replace`.

    Args:
        name: an environment, or another name that `ppo-jax presets` lists.
        objective: None for the preset's only objective, or for `clip` if there are several.
        trust: True to take over the programs that a FILE.toml names, or a list of them.

    Raises:
        InputError: there is none; the sentence names the nearest. Or a FILE.toml names a program.
    """
    if not isinstance(name, str | Path):
        raise InputError(f"name={short(name)} must be a preset's name, or a FILE.toml.")
    name = str(name)
    found = find(name, objective)
    if name.endswith(".toml"):
        require(code_names(layer(found).values), name, trust, found.signature)
    return apply(found)


def apply(preset: Preset) -> tuple[Config, Hyper]:
    """Resolve the preset over the defaults."""
    settings = resolve([layer(preset)])
    return settings.config, settings.hyper


def layer(preset: Preset) -> Layer:
    """Make one layer of settings of the preset."""
    config = {**preset.config, "env": preset.env, "objective": preset.objective}
    found = file_layer(f"preset {preset.name}", {"config": config, "hyper": preset.hyper})
    return found._replace(signature=preset.signature)


def read(path: Path, objective: str | None = None) -> Preset:
    """Read the preset of one objective from a TOML file, chosen as in `find`.

    Raises:
        InputError: the file cannot be read, is no TOML, or holds no such objective.
    """
    content = _parse(path)
    held = _objectives(content)
    if {*held} & {*FILE_TABLES}:
        raise InputError(f"{path} holds settings and no preset: give it with --config {path}.")
    if objective is None:
        objective = held[0] if len(held) == 1 else "clip"
    table = content.get(objective)
    if not isinstance(table, Mapping):
        raise InputError(
            f"{path} has no table [{objective}]: the objectives in it are "
            f"{', '.join(held) or 'none'}."
        )
    unknown = [key for key in table if key not in _KEYS]
    if unknown:
        raise InputError(
            f"{path}: [{objective}] has no entry {unknown[0]!r}; it takes {', '.join(_KEYS)}."
        )
    env = content.get("env", path.stem)
    if not isinstance(env, str):
        raise InputError(f"{path}: env={env!r} must be the name of an environment.")
    for key in ("config", "hyper", "result", "reference"):
        if not isinstance(table.get(key, {}), Mapping):
            raise InputError(f"{path}: [{objective}] has {key}={table[key]!r}, which is no table.")
    return Preset(
        name=path.stem.replace("__", "/") if path.parent == FOLDER else path.name,
        env=env,
        objective=objective,
        config=dict(table.get("config", {})),
        hyper=dict(table.get("hyper", {})),
        score=dict(table["result"]) if "result" in table else None,
        reference=dict(table["reference"]) if "reference" in table else None,
        source=str(table.get("source", path.name)),
        signature=content.get("signature"),
    )


def file_of(name: str) -> Path:
    """The file of a preset of the package; a slash cannot stand in its name."""
    return FOLDER / f"{name.replace('/', '__')}.toml"


def _stored(name: str) -> Path | None:
    """Find the file of one of the package's presets."""
    path = file_of(name)
    # Any text is a safe name, as it is only compared with the existing files.
    return path if path in FOLDER.glob("*.toml") else None


def _objectives(content: Mapping[str, Any]) -> list[str]:
    return [key for key, value in content.items() if isinstance(value, Mapping)]


def _parse(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except OSError as error:
        raise InputError(
            f"The preset {str(path)!r} cannot be read: {error.strerror or error}; name a preset of "
            "`ppo-jax presets` or an existing FILE.toml."
        ) from None
    except ValueError as error:
        raise InputError(f"The preset {str(path)!r} is not TOML: {error}.") from None
