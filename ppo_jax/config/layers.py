"""Conversion and precedence of settings, from texts and files to the three dataclasses.

A layer maps field names to values: texts of the command line, or values of a JSON or TOML file.
Later layers win, name by name.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ppo_jax.config.config import Config, Hyper, Schedule, canonical, hint
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.options import CHECKPOINTS, RunOptions
from ppo_jax.config.values import env_value, plain_number, short

# Field name -> (the dataclass it belongs to, its specification).
FIELDS: dict[str, tuple[type, dataclasses.Field]] = {
    spec.name: (owner, spec)
    for owner in (Config, Hyper, RunOptions)
    for spec in dataclasses.fields(owner)
    if (owner, spec.name) != (Hyper, "env")  # --env.NAME, a layer's env_params
}
FILE_TABLES = {"config": Config, "hyper": Hyper, "options": RunOptions}
OWN_AUTO = ("ray_address",)  # Ray's word for a cluster that runs here; elsewhere auto is None

# Fields that a record without them was not trained with: their value before they were there.
BEFORE = {
    "config": {"scale_bytes": False, "one_hot_integers": False, "scale_integers": False},
    "hyper": {"learning_rate": 3e-4},
}


class Layer(NamedTuple):
    """Values of one source."""

    source: str  # "preset ...", a file name or "flag"
    values: Mapping[str, Any]  # by the field names of Config, Hyper and RunOptions
    env_params: Mapping[str, Any]  # the environment's own parameters
    signature: Any = None  # by which the user vouches for the programs in it, see `trust`


class Settings(NamedTuple):
    """The settings of a run, and the source of each."""

    config: Config
    hyper: Hyper
    options: RunOptions
    sources: dict[str, str]  # field name -> source; names that no layer set are absent


def resolve(layers: Iterable[Layer]) -> Settings:
    """Convert every value and let later layers win.

    Raises:
        InputError: a name that does not exist or a value of the wrong type.
    """
    values: dict[type, dict[str, Any]] = {Config: {}, Hyper: {}, RunOptions: {}}
    given: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.values.items():
            owner, spec = FIELDS[name] if name in FIELDS else _unknown(name, layer.source)
            _refuse_object(spec, value)
            values[owner][name] = convert(owner, spec, value)
            sources[name] = layer.source
        for name, value in layer.env_params.items():
            given[name] = value
            sources[f"env.{name}"] = layer.source
    is_suite = "/" in str(values[Config].get("env", "")).partition(":")[0]
    env_params = {name: _env_value(name, value, is_suite) for name, value in given.items()}
    hyper = Hyper(**values[Hyper], env=env_params)
    return Settings(Config(**values[Config]), hyper, RunOptions(**values[RunOptions]), sources)


def _env_value(name: str, value: Any, is_suite: bool) -> Any:
    """A parameter as numbers; words for a suite stay, as its adapter knows what a factory sets."""
    try:
        return env_value(f"env.{name}", value)
    except InputError:
        if is_suite and isinstance(value, str):
            return value
        raise


def file_layer(source: str, content: Mapping[str, Any]) -> Layer:
    """Make a layer of a settings file: tables `config`, `hyper`, `options`, or their names flat.

    A run's own `config.json` holds both `config` and `hyper`; its other entries are skipped.
    """
    content = {name.replace("-", "_"): value for name, value in content.items()}
    tables = [name for name in FILE_TABLES if isinstance(content.get(name), Mapping)]
    flat = {name: value for name, value in content.items() if name not in tables}
    if {"config", "hyper"} <= set(tables):
        flat = {}
    values, env_params = _split_env(flat, Config)
    for table in tables:
        inner = {name.replace("-", "_"): value for name, value in content[table].items()}
        more_values, more_params = _split_env(inner, FILE_TABLES[table])
        values.update(more_values)
        env_params.update(more_params)
    return Layer(source, values, env_params)


def as_toml(settings: Settings) -> list[str]:
    """Write settings as a file that gives them again; a remark names the source of each."""
    lines: list[str] = []
    for table, record in zip(FILE_TABLES, settings[:3]):
        lines += ["", f"[{table}]"]
        for name, value in vars(record).items():
            if value is None or (table, name) == ("hyper", "env"):
                continue
            lines.append(f"{name} = {toml_value(value)}{_remark(settings.sources, name)}")
        if table == "hyper" and settings.hyper.env:
            lines += ["", "[hyper.env]"]
            for name, value in settings.hyper.env.items():
                remark = _remark(settings.sources, f"env.{name}")
                lines.append(f"{json.dumps(name)} = {toml_value(value)}{remark}")
    return lines[1:]


def _remark(sources: Mapping[str, str], name: str) -> str:
    return f"  # {' '.join(sources[name].split())}" if name in sources else ""


def toml_value(value: Any) -> str:
    """Spell a value as TOML does, to the last digit; a schedule is text or a table."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Schedule):
        start, end, cosine = (float(part) for part in vars(value).values())
        if cosine in (0.0, 1.0):
            return json.dumps(f"{start!r}:{end!r}{':cosine' if cosine else ''}")
        return f"{{ start = {start!r}, end = {end!r}, cosine = {cosine!r} }}"
    if isinstance(value, float):
        return repr(float(value))  # inf and nan, too
    if isinstance(value, tuple | list):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return json.dumps(str(value), ensure_ascii=False)


def with_new_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add the fields that are newer than a record of `config` and `hyper`.

    Two records are comparable only after this: an earlier version wrote fewer fields.
    """
    completed = with_old_values(record)
    for table, owner in (("config", Config), ("hyper", Hyper)):
        if isinstance(record.get(table), Mapping):
            defaults = {name: _as_json(value) for name, value in vars(owner()).items()}
            completed[table] = {**defaults, **completed[table]}
    return completed


def with_old_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add the fields that a record lacks and whose default is not what it was trained with."""
    return {
        name: {**BEFORE[name], **table} if name in BEFORE and isinstance(table, Mapping) else table
        for name, table in record.items()
    }


def _as_json(default: Any) -> Any:
    """Spell a field's default as `config.json` does."""
    if isinstance(default, tuple):
        return list(default)
    return "inf" if default == math.inf else default


def _split_env(table: Mapping[str, Any], owner: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split off `env` if it is a table of parameters; in Config it is the environment's name."""
    values = dict(table)
    env_params: dict[str, Any] = {}
    if owner is Hyper or isinstance(values.get("env"), Mapping):
        given = values.pop("env", None)
        given = {} if given is None else given
        if not isinstance(given, Mapping):
            raise InputError(
                f"hyper.env={short(given)} must be a table of the environment's parameters by name."
            )
        env_params = _dotted(given)
    return values, env_params


def _dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A table of tables as one, its names joined by dots: precedence goes name by name."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        name = prefix + name.replace("-", "_")
        found |= _dotted(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def _refuse_object(spec: dataclasses.Field, value: Any) -> None:
    """Refuse what is no name in place of an environment, a network or an optimiser."""
    may_lack = spec.default is None
    if spec.type == "Any" and not isinstance(value, str) and not (may_lack and value is None):
        raise InputError(f"{spec.name}={short(value)} must be a name.")


def convert(owner: type, spec: dataclasses.Field, value: Any) -> Any:
    """Convert a value, or its text on the command line, to the field's type.

    Raises:
        InputError: a value of the wrong type.
    """
    name, kind = spec.name, str(spec.type)
    optional = kind.endswith(" | None")
    if optional and (value is None or (value == "auto" and name not in OWN_AUTO)):
        return None
    kind = kind.removesuffix(" | None")
    if owner is Hyper:
        return _hyper_number(name, value)
    if kind == "int":
        return whole_number(name, value)
    if kind == "float":
        return _real(name, value)
    if kind == "bool":
        return _truth(name, value)
    if kind.startswith("tuple"):
        return _sizes(name, value)
    if kind == "str" and not isinstance(value, str):
        raise InputError(f"{name}={short(value)} must be a word.")
    return canonical(name, value)


def parse_number(name: str, text: Any) -> float | Schedule:
    """Read `0.1`, `1e-3:0` or `1e-3:0:cosine` as a number or a `Schedule`.

    Raises:
        InputError: the text is neither.
    """
    if not isinstance(text, str):
        return text
    parts = text.split(":")
    shape = parts.pop() if len(parts) == 3 else "linear"
    try:
        numbers = [plain_number(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or shape not in ("linear", "cosine"):
        raise InputError(
            f"{name}={text!r} is not a number: write a number such as 0.001, or a schedule "
            "START:END or START:END:cosine."
        )
    if len(numbers) == 1:
        return numbers[0]
    return Schedule(numbers[0], numbers[1], float(shape == "cosine"))


def whole_number(name: str, value: Any) -> int:
    """Read an integer, also if it is spelled 1e6, 1M, 1_000_000 or 1000000.0.

    Raises:
        InputError: the value is no whole number, or a truth value.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, str) and value.strip().lstrip("+-").replace("_", "").isdigit():
            return int(value)
        number = plain_number(value)
        if number == int(number):
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{name}={short(value)} must be a whole number, for example 1000, 1e6 or 1M.")


def checkpoint_choice(value: Any) -> str | int:
    """Read the choice of a checkpoint: newest, best, or a number of environment steps.

    Raises:
        InputError: another word, or no whole number.
    """
    if isinstance(value, str) and value in CHECKPOINTS:
        return value
    try:
        return whole_number("checkpoint", value)
    except InputError:
        raise InputError(
            f"checkpoint={short(value)} must be {', '.join(CHECKPOINTS)} or the environment steps "
            f"of a checkpoint, for example 1e6.{nearest(str(value), CHECKPOINTS)}"
        ) from None


def _real(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return plain_number(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name}={short(value)} must be one number.") from None


def _hyper_number(name: str, value: Any) -> Any:
    if isinstance(value, Mapping) and {"start", "end"} <= set(value) <= {"start", "end", "cosine"}:
        parts = (value["start"], value["end"], value.get("cosine", 0.0))
        return Schedule(*(_real(name, part) for part in parts))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{name}={short(value)} must be a number or a schedule START:END.")
    number = parse_number(name, value)
    return number if isinstance(number, Schedule) else _real(name, number)


def _truth(name: str, value: Any) -> bool:
    words = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise InputError(f"{name}={short(value)} must be true or false.")


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    elif not isinstance(value, list | tuple):
        value = [value]
    try:
        return tuple(whole_number(name, part) for part in value)
    except InputError:
        raise InputError(
            f"{name}={short(value)} must be widths, separated by commas, for example 64,64."
        ) from None


def _unknown(name: str, source: str) -> Any:
    if name in FILE_TABLES:
        raise InputError(f"{source}: {name!r} must be a table of settings by name.")
    raise InputError(f"{source}: {name!r} is not a setting.{hint(name, FIELDS)}")
