"""Tuned settings as data: one TOML file per environment, one table per objective.

A file of another name is taken for any environment, and says which one it was measured on.

env = "CartPole-v1"
[clip]
source = "where the setting comes from"
[clip.config]      # fields of Config
[clip.hyper]       # fields of Hyper, schedules as START:END
[clip.result]      # what we measured with it: score, interval, seeds, env_steps, ...
[clip.reference]   # what others published: score, env_steps, source
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.data import DATA
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.layers import Layer, file_layer, resolve

FOLDER = DATA / "presets"
_KEYS = ("source", "config", "hyper", "result", "reference")


class Preset(NamedTuple):
    """A setting for one environment and objective."""

    name: str  # what --preset takes: the environment's name, or the file's
    env: str
    objective: str
    config: dict[str, Any]
    hyper: dict[str, Any]
    score: dict[str, Any] | None  # measured with it, None until it was
    reference: dict[str, Any] | None  # published by others
    source: str


def load(env: str, objective: str = "clip") -> Preset | None:
    """The preset of an environment and an objective, or None."""
    path = _stored(env)
    if path is None or objective not in _objectives(_parse(path)):
        return None
    found = read(path, objective)
    return found if found.env == env else None


def all_presets() -> list[Preset]:
    """Every preset that comes with the package, by name and objective."""
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        found += [read(path, objective) for objective in _objectives(_parse(path))]
    return found


def find(name: str, objective: str | None = None) -> Preset:
    """The preset called `name`, or of the TOML file at `name`.

    Args:
        objective: which of its tables; None is the only one, or `clip` where there are several.

    Raises:
        InputError: there is none, or the file is no preset.
    """
    if name.endswith(".toml"):
        return read(Path(name), objective)
    path = _stored(name)
    if path is None or objective not in (None, *_objectives(_parse(path))):
        names = {each.name for each in all_presets() if objective in (None, each.objective)}
        words = "" if objective is None else f" for objective {objective}"
        raise InputError(
            f"There is no preset {name!r}{words}: `ppo-jax presets` lists them, "
            f"and a FILE.toml is taken too.{nearest(name, sorted(names))}"
        )
    return read(path, objective)


def preset(name: str, objective: str | None = None) -> tuple[Config, Hyper]:
    """A tuned setting, to train with or to change with `dataclasses.replace`.

    Args:
        name: an environment, or what else `ppo-jax presets` lists.
        objective: as in `find`: `clip`, unless the preset has another one only.

    Raises:
        InputError: there is none; the sentence names the nearest.
    """
    return apply(find(name, objective))


def apply(preset: Preset) -> tuple[Config, Hyper]:
    """The preset over the defaults."""
    settings = resolve([layer(preset)])
    return settings.config, settings.hyper


def layer(preset: Preset) -> Layer:
    """The preset as one layer of settings."""
    config = {**preset.config, "env": preset.env, "objective": preset.objective}
    return file_layer(f"preset {preset.name}", {"config": config, "hyper": preset.hyper})


def read(path: Path, objective: str | None = None) -> Preset:
    """The preset of one objective in a TOML file, chosen as in `find`.

    Raises:
        InputError: the file cannot be read, is no TOML, or holds no such objective.
    """
    content = _parse(path)
    held = _objectives(content)
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
    return Preset(
        name=path.stem.replace("__", "/") if path.parent == FOLDER else path.name,
        env=env,
        objective=objective,
        config=dict(table.get("config", {})),
        hyper=dict(table.get("hyper", {})),
        score=dict(table["result"]) if "result" in table else None,
        reference=dict(table["reference"]) if "reference" in table else None,
        source=str(table.get("source", path.name)),
    )


def _stored(name: str) -> Path | None:
    """The file of a preset that comes with the package."""
    path = FOLDER / f"{name.replace('/', '__')}.toml"
    # The name is only compared with those that are there, so that any text may be asked for.
    return path if path in FOLDER.glob("*.toml") else None


def _objectives(content: Mapping[str, Any]) -> list[str]:
    return [key for key, value in content.items() if isinstance(value, Mapping)]


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"The preset {str(path)!r} cannot be read: {error.strerror or error}; name a preset of "
            "`ppo-jax presets` or an existing FILE.toml."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"The preset {str(path)!r} is not TOML: {error}.") from None
