"""The axes of a sweep: `learning_rate=1e-4..1e-2:log`, `clip_epsilon=0.1,0.2`, `num_envs=64,256`.

A list has commas; a range is LOW..HIGH or LOW..HIGH:log. A range with a number of points
(LOW..HIGH:5, LOW..HIGH:5:log) becomes the list of these points. Importing this file loads no jax.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ppo_jax.apps.sweep.options import MAX_SETTINGS, NUMERIC_ONLY, SweepOptions
from ppo_jax.config.config import Config, Hyper, Schedule, hint
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import FIELDS, convert
from ppo_jax.config.validate import check_choice, validate, without_effect
from ppo_jax.config.values import env_value, plain_number, short, split_list

Values = dict[str, Any]  # axis name -> value: one setting
ALIASES = {"lr": "learning_rate"}
ENV = "env."


class Range(NamedTuple):
    """An interval to draw from, on a logarithmic or a linear scale."""

    low: float
    high: float
    is_log: bool
    is_whole: bool = False  # whole numbers only; the ends are whole

    def at(self, share: float) -> float:
        """Value at `share` of the way from low to high; exactly low at 0 and high at 1.

        A whole number stands for the numbers that are rounded to it, so the ends' own are reached.
        """
        if share in (0.0, 1.0):
            return self.high if share else self.low
        low, high = self.low - 0.5 * self.is_whole, self.high + 0.5 * self.is_whole
        if self.is_log:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        value = min(max(value, self.low), self.high)
        return round(value) if self.is_whole else value

    def points(self, count: int) -> tuple[float, ...]:
        return tuple(self.at(i / (count - 1)) for i in range(count))


class Axis(NamedTuple):
    """A number or word that differs between settings: a list of choices, or a range."""

    name: str  # a field of Config or Hyper, or env.NAME
    choices: tuple[Any, ...]  # empty for a range
    range: Range | None = None

    @property
    def is_numeric(self) -> bool:
        """True if its values share one compiled program."""
        return is_numeric(self.name)

    def examples(self) -> tuple[Any, ...]:
        """Values that represent all: the choices, or the ends of a range."""
        return self.choices if self.range is None else (self.range.low, self.range.high)


def is_numeric(name: str) -> bool:
    """Check whether an axis of this name stays within one compiled program."""
    return name.startswith(ENV) or FIELDS[name][0] is Hyper


def parse(words: Iterable[str]) -> tuple[Axis, ...]:
    """Read axes as the command line spells them.

    Raises:
        InputError: an unknown field, a range without values, or a value of the wrong kind.
    """
    given: list[tuple[str, Any]] = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name or not text:
            raise InputError(
                f"{word!r} is not an axis: write NAME=VALUE,VALUE or NAME=LOW..HIGH, for example "
                "learning_rate=1e-4..1e-2:log."
            )
        given.append((name, text))
    return _axes(given)


def from_python(given: Any) -> tuple[Axis, ...]:
    """Read axes as `ppo_jax.sweep` takes them: names with values, or axes that are read already.

    Raises:
        InputError: anything else, or what `parse` refuses.
    """
    if isinstance(given, Mapping):
        return from_mapping(given)
    if isinstance(given, Sequence) and all(isinstance(each, Axis) for each in given):
        return tuple(given)
    raise InputError(
        f"axes={short(given)} must map names to values, such as {{'gamma': [0.9, 0.99]}} or "
        "{'gamma': '0.9,0.99'}."
    )


def from_mapping(given: Mapping[str, Any]) -> tuple[Axis, ...]:
    """Read axes from Python: name -> values, or the text that the command line takes."""
    return _axes(given.items())


def _axes(given: Iterable[tuple[str, Any]]) -> tuple[Axis, ...]:
    axes: list[Axis] = []
    for name, values in given:
        axis = _axis(str(name).replace("-", "_"), values)
        if axis.name in (other.name for other in axes):
            raise InputError(f"axis {axis.name} is given twice: write all its values in one list.")
        axes.append(axis)
    return tuple(axes)


def _axis(name: str, values: Any) -> Axis:
    name = ALIASES.get(name, name)
    _check_name(name)
    if not isinstance(values, str):
        if not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0:
            raise InputError(
                f"axis {name}={short(values)} is no list of values: write them as [0.9, 0.99], or "
                "as a text such as '1e-4..1e-2:log'."
            )
        return Axis(name, _choices(name, list(values)))
    if ".." in values:
        return _range(name, values)
    parts = split_list(values) if name.startswith(ENV) else values.split(",")
    return Axis(name, _choices(name, parts))


def _check_name(name: str) -> None:
    if name.startswith(ENV) and name != ENV:
        return  # the environment's own parameter, checked when the environment is made
    sweepable = [n for n, (owner, _) in FIELDS.items() if owner in (Config, Hyper)]
    if name == "env":
        raise InputError("env is not an axis: returns of two environments have no common scale.")
    if name == "total_env_steps":
        raise InputError(
            "total_env_steps is not an axis but the budget of every setting: give "
            "--total-env-steps, or choose --sampler halving, which spends less on bad settings."
        )
    if name in FIELDS and name not in sweepable:
        raise InputError(
            f"{name} is not an axis but an option of the sweep (--{name.replace('_', '-')})."
        )
    if name not in sweepable:
        raise InputError(
            f"{name!r} is not a field that a sweep can vary.{hint(name, sweepable)} Write the "
            "environment's own parameters as env.NAME."
        )


def _value(name: str, text: Any) -> Any:
    """Read one value of an axis; widths of layers are joined by x, as in 64x64."""
    if name.startswith(ENV):
        return _hashable(env_value(name, text))
    if hasattr(text, "item"):
        text = text.item() if text.size == 1 else text.tolist()  # numpy's and jax's
    owner, spec = FIELDS[name]
    if owner is Hyper and isinstance(text, Schedule):
        return text
    if spec.name == "hidden_sizes" and isinstance(text, str):
        text = text.replace("x", ",")
    return convert(owner, spec, text)


def _hashable(value: Any) -> Any:
    """Turn lists into tuples: the values of an axis are keys of tables."""
    return tuple(_hashable(part) for part in value) if isinstance(value, list) else value


def _choices(name: str, texts: Sequence[Any]) -> tuple[Any, ...]:
    texts = [text.strip() if isinstance(text, str) else text for text in texts]
    if not texts or "" in [text for text in texts if isinstance(text, str)]:
        raise InputError(f"axis {name} has an empty place in its list: write NAME=VALUE,VALUE.")
    if len(texts) > MAX_SETTINGS:
        raise InputError(f"axis {name} has {len(texts)} values: give at most {MAX_SETTINGS}.")
    values = tuple(_value(name, text) for text in texts)
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise InputError(f"axis {name} names {show(value)} twice: leave one out.")
        seen.add(value)
    return values


def _range(name: str, text: str) -> Axis:
    if not name.startswith(ENV) and FIELDS[name][1].type != "int" and FIELDS[name][0] is Config:
        raise InputError(f"axis {name}={text}: {name} is not a number; list its values instead.")
    low_text, _, rest = text.partition("..")
    high_text, *modes = rest.split(":")
    is_log = "log" in modes
    counts = [mode for mode in modes if mode != "log"]
    low, high = (_end(name, text, end) for end in (low_text, high_text))
    if len(counts) > 1 or len(modes) > 2 or not all(count.isdigit() for count in counts):
        raise InputError(
            f"axis {name}={text} is not a range: write LOW..HIGH, LOW..HIGH:log, LOW..HIGH:5 or "
            "LOW..HIGH:5:log."
        )
    if not low < high:
        raise InputError(
            f"axis {name}={text} is empty: its low end {low:g} must be below its high end {high:g}."
        )
    if is_log and low <= 0.0:
        raise InputError(
            f"axis {name}={text} takes the logarithm of {low:g}: a log range must start above 0, "
            f"for example at {high / 1000:g}."
        )
    ends = Range(low, high, is_log)
    if not counts:
        if not name.startswith(ENV) and FIELDS[name][0] is Config:
            raise InputError(
                f"axis {name}={text}: every value of {name} needs its own program; list the "
                f"values, or give the range a number of points ({text}:3)."
            )
        return Axis(name, (), ends)
    count = int(counts[0])
    if not 2 <= count <= MAX_SETTINGS:
        raise InputError(
            f"axis {name}={text} needs at least 2 points, its two ends, and at most {MAX_SETTINGS}."
        )
    points: tuple[Any, ...] = ends.points(count)
    if not name.startswith(ENV) and FIELDS[name][0] is Config:
        points = tuple(dict.fromkeys(round(point) for point in points))
    return Axis(name, points)


def _end(name: str, text: str, end: str) -> float:
    try:
        number = plain_number(end)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"axis {name}={text}: {end.strip() or 'nothing'!r} is not a finite number: write "
            "LOW..HIGH with finite ends."
        )
    return number


def check(axes: Sequence[Axis], options: SweepOptions) -> None:
    """Refuse axes that the sampler cannot use.

    Raises:
        InputError: no axes, a range under grid, or a field that changes the program if the
            sampler keeps one population.
    """
    if not axes:
        raise InputError(
            "sweep needs at least one axis, for example learning_rate=1e-4..1e-2:5:log."
        )
    takes_grid = options.sampler == "grid" or takes_points(axes, options)
    for axis in axes:
        if takes_grid and axis.range is not None:
            log = ":log" if axis.range.is_log else ""
            span = f"{axis.range.low:g}..{axis.range.high:g}"
            raise InputError(
                f"axis {axis.name}={span}{log} is a range, and a grid needs a number of points: "
                f"{axis.name}={span}:5{log} (or choose --sampler random --settings N)."
            )
        if options.sampler in NUMERIC_ONLY and not axis.is_numeric:
            raise InputError(
                f"axis {axis.name} changes the compiled program, and sampler {options.sampler} "
                "keeps one population: sweep it with grid, random or tpe, and only numbers "
                f"with {options.sampler}."
            )
    points = math.prod(len(axis.choices) for axis in axes)
    if takes_grid and points > MAX_SETTINGS:
        raise InputError(
            f"the grid of these axes has {points} points, and a sweep takes at most "
            f"{MAX_SETTINGS}: give fewer points, or choose --sampler random --settings N."
        )


def takes_points(axes: Sequence[Axis], options: SweepOptions) -> bool:
    """Check whether a population begins with the points of the grid; a budget may draw ranges."""
    is_list = all(axis.range is None for axis in axes)
    return (
        options.sampler in NUMERIC_ONLY
        and options.settings is None
        and (options.budget is None or is_list)
    )


def check_values(axes: Sequence[Axis], config: Config, hyper: Hyper) -> None:
    """Refuse a value that no setting can have, before any is drawn; a range is checked at its ends.

    Fields that shape the program are checked for their words only. Other axes may decide if a
    number fits.

    Raises:
        InputError: a value that no setting can have.
    """
    for axis in axes:
        for value in axis.examples():
            if axis.is_numeric:
                validate(*apply(config, hyper, {axis.name: value}))
            else:
                check_choice(FIELDS[axis.name][1], value)


def without_readers(axes: Sequence[Axis], config: Config, hyper: Hyper) -> list[str]:
    """A sentence for the settings and axes that no setting of a sweep reads."""
    choosing = ("objective", "optimizer", "memory", "policy")  # these decide what is read
    if any(axis.name in choosing for axis in axes):
        return []
    found = without_effect(config, hyper)
    bare = Config(**{name: getattr(config, name) for name in choosing})
    for axis in axes:
        for value in axis.examples():
            found += without_effect(*apply(bare, Hyper(), {axis.name: value}))
    return list(dict.fromkeys(found))


def apply(config: Config, hyper: Hyper, values: Mapping[str, Any]) -> tuple[Config, Hyper]:
    """Put one setting's values into the base."""
    shapes: Values = {}
    numbers: Values = {}
    env: Values = dict(hyper.env)
    for name, value in values.items():
        if name.startswith(ENV):
            env[name.removeprefix(ENV)] = value
        else:
            (shapes if FIELDS[name][0] is Config else numbers)[name] = value
    return dataclasses.replace(config, **shapes), dataclasses.replace(hyper, **numbers, env=env)


def read_values(values: Mapping[str, Any]) -> Values:
    """Read the numbers of one setting from a file, in which schedules and infinities are text.

    Raises:
        InputError: a field that is no number, which no axis of a population of slots can be.
    """
    for name in values:
        if not (name.startswith(ENV) or (name in FIELDS and is_numeric(name))):
            raise InputError(f"{name!r} is no number of a setting: the file is damaged.")
    return read_any(values)


def read_any(values: Mapping[str, Any]) -> Values:
    """Read one setting from a file, of any fields that an axis may have."""
    for name in values:
        _check_name(name)
    return {name: _value(name, value) for name, value in values.items()}


def from_ends(name: str, low: float, high: float, is_log: bool) -> Axis:
    """Read a range from a file, which holds its ends."""
    _check_name(name)
    text = f"{float(low)!r}..{float(high)!r}" + ":log" * is_log
    return _range(name, text)


def env_ends(axes: Sequence[Axis], values: Mapping[str, Any]) -> list[Values]:
    """Change one setting to each end of each axis of the environment, one at a time."""
    found = []
    for axis in axes:
        ends = axis.examples() if axis.name.startswith(ENV) else ()
        if ends and all(isinstance(end, int | float) for end in ends):
            ends = (min(ends), max(ends))
        found += [{**values, axis.name: end} for end in ends]
    return found


def grid(axes: Sequence[Axis]) -> list[Values]:
    """List every combination of the axes' choices; the last axis changes fastest."""
    names = [axis.name for axis in axes]
    return [
        dict(zip(names, chosen, strict=True))
        for chosen in itertools.product(*(axis.choices for axis in axes))
    ]


def show(value: Any) -> str:
    """Spell a value as tables and command lines do."""
    if isinstance(value, tuple):
        return "x".join(str(part) for part in value)
    if isinstance(value, float) and not isinstance(value, Schedule):
        return f"{value:.6g}"
    return str(value)


def describe(values: Mapping[str, Any]) -> str:
    """Describe one setting in a line."""
    return ", ".join(f"{name}={show(value)}" for name, value in values.items())
