"""Samplers of a sweep's settings: their only source of randomness is the generator given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppo_jax.apps.sweep.axes import ENV, Axis, Range, Values, grid
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError
from ppo_jax.envs import params as parameters

MOST_WHOLE = 100_000  # limit of a range of whole numbers, which are listed one by one


def draw(axis: Axis, share: float) -> Any:
    """Value of an axis at `share`, a uniform number in [0, 1)."""
    if axis.range is not None:
        return axis.range.at(share)
    return axis.choices[int(share * len(axis.choices))]


def random(axes: Sequence[Axis], count: int, generator: np.random.Generator) -> list[Values]:
    """Draw `count` independent settings; with one seed, a longer list begins with the shorter."""
    shares = generator.random((count, len(axes)))
    return [
        {axis.name: draw(axis, float(share)) for axis, share in zip(axes, row, strict=True)}
        for row in shares
    ]


def shuffled_grid(axes: Sequence[Axis], seed: Sequence[int]) -> list[Values]:
    """List every point of the grid in random order, so that the first do not depend on the axes."""
    points = grid(axes)
    return [points[i] for i in np.random.default_rng(seed).permutation(len(points))]


def whole_env_ranges(axes: Sequence[Axis], defaults: Any) -> tuple[Axis, ...]:
    """Make ranges of the environment's integer parameters hold whole numbers only.

    A linear range becomes the list of its numbers. A logarithmic one keeps its scale.

    Args:
        defaults: the environment's default parameters; their dtypes show which are integers.

    Raises:
        InputError: a range holds no whole number, or a linear one more than `MOST_WHOLE`.
    """
    settled = []
    for axis in axes:
        default = parameters.value_of(defaults, axis.name.removeprefix(ENV))
        is_whole = default is not None and np.issubdtype(np.asarray(default).dtype, np.integer)
        if axis.name.startswith(ENV) and is_whole and axis.range is not None:
            low, high = int(np.ceil(axis.range.low)), int(np.floor(axis.range.high))
            if high < low:
                raise InputError(f"axis {axis.name} needs whole numbers and holds no whole number.")
            if axis.range.is_log:
                settled.append(Axis(axis.name, (), Range(low, high, True, is_whole=True)))
                continue
            if high - low >= MOST_WHOLE:
                raise InputError(
                    f"axis {axis.name}={low}..{high} holds {high - low + 1} whole numbers, more "
                    f"than the {MOST_WHOLE} that a sweep lists: narrow it, or list some values."
                )
            axis = Axis(axis.name, tuple(range(low, high + 1)))
        elif axis.name.startswith(ENV) and is_whole:
            whole = [_whole_if_near(choice) for choice in axis.choices]
            axis = axis._replace(choices=tuple(whole))
        settled.append(axis)
    return tuple(settled)


def _whole_if_near(value: Any) -> Any:
    """Round a float that lies next to a whole number; return any other value unchanged."""
    is_near = isinstance(value, float) and abs(math.remainder(value, 1.0)) < 1e-9
    return round(value) if is_near else value


def from_arrays(hyper: Hyper) -> tuple[Hyper, list[Values]]:
    """Split a `Hyper` with arrays [P] in some fields into one setting and P changes to it.

    A list among the environment's parameters is one value of an array parameter.

    Raises:
        InputError: arrays of different lengths, or of more than one dimension.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, value in vars(hyper).items():
        if name != "env" and not isinstance(value, Schedule) and np.ndim(value):
            arrays[name] = np.asarray(value)
    for name, value in hyper.env.items():
        if np.ndim(value) and not isinstance(value, list | tuple):  # these are one value
            arrays[ENV + name] = np.asarray(value)
    shapes = {value.shape for value in arrays.values()}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        told = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
        raise InputError(
            f"arrays in hyper are the settings of a sweep and must have one length: {told}."
        )
    if not arrays:
        return hyper, [{}]
    first = {name: value[0].item() for name, value in arrays.items()}
    env = {name: first.get(ENV + name, value) for name, value in hyper.env.items()}
    plain = {name: value for name, value in first.items() if not name.startswith(ENV)}
    count = next(iter(shapes))[0]
    changes = [{name: value[i].item() for name, value in arrays.items()} for i in range(count)]
    return dataclasses.replace(hyper, **plain, env=env), changes


def crossed(first: Sequence[Mapping[str, Any]], second: Sequence[Values]) -> list[Values]:
    """Combine every setting of `first` with every one of `second`."""
    return [{**a, **b} for a in first for b in second]


def settle_budget(
    config: Config, sampler: str, budget: int | None, count: int | None, seeds: int
) -> tuple[Config, int]:
    """Settle the total budget, settings and steps per setting: any two give the third.

    Args:
        budget: environment steps of all settings and seeds, each trained to the end, or None. A
            halving takes fewer; episodes of evaluations are not counted.
        count: settings; None if the budget decides.

    Returns:
        `config` with its own budget, and the number of settings.

    Raises:
        InputError: the budget is too small.
    """
    if budget is None:
        assert count is not None
        return config, count
    if count is None:
        count = budget // (seeds * config.trained_env_steps)
        needed = seeds * config.trained_env_steps
    else:
        iterations = budget // (count * seeds * config.batch_size)
        config = dataclasses.replace(config, total_env_steps=iterations * config.batch_size)
        needed = count * seeds * config.batch_size
    if budget < needed:
        raise InputError(
            f"budget={budget} environment steps is less than {needed}, the least that this "
            f"{sampler} sweep with {seeds} seeds can do: raise it, or take fewer seeds or settings."
        )
    return config, count
