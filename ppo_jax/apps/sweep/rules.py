"""Decisions of halving and population-based training: their moments, and functions of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ppo_jax.apps.sweep.axes import Axis, Values
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.apps.sweep.samplers import draw
from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError

# Jaderberg et al. 2017, "Population Based Training of Neural Networks", section 4.1 and appendix A.
TRUNCATION = 0.2  # the lowest fifth copies from the highest fifth
RESAMPLE = 0.25  # chance of a new draw in place of a small step
FACTOR = 1.2  # a small step on a logarithmic axis: times this, or divided by it
STEP = 0.1  # a small step on a linear axis, as a share of its width
TRIES = 100  # draws of a setting that differs from its source, before it gives up

EXPLOITS = 20  # in a run, unless another interval is asked for
LEAST = 2  # iterations before a rung: after a single update settings hardly differ


def score(returns: Sequence[float | None]) -> float:
    """The score of a setting: the mean over its seeds, -inf if a seed has failed.

    A mean sees every seed. An interquartile mean of four leaves out the lowest one, so a setting
    that fails to learn on one seed in four would look as good as one that never fails.

    Args:
        returns: one mean return for each seed; None or not finite if it failed.
    """
    known = [value for value in returns if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if len(known) == len(returns) else -math.inf


def rungs(num_iterations: int, eta: int, first: int) -> tuple[int, ...]:
    """Iterations after which settings are compared, each about `eta` times the one before.

    No rung is below `LEAST`. Except for the last one and a first one that was asked for, rungs are
    at most 1 / eta of the budget.

    Args:
        num_iterations: iterations of the whole budget, the last rung.
        first: iterations of the first rung; 0 for 1 / eta^2 and 1 / eta of the budget.
    """
    if first:
        found = [max(first, LEAST)]
        while found[-1] * eta**2 <= num_iterations:
            found.append(found[-1] * eta)
    else:
        found = [num_iterations // eta**2, max(num_iterations // eta, LEAST)]
    return (*(level for level in found if LEAST <= level < num_iterations), num_iterations)


def levels_of(config: Config, options: SweepOptions) -> tuple[int, ...]:
    """Iterations of the rungs of a halving, rising; the last one is the whole budget."""
    first = -(-options.min_env_steps // config.batch_size)
    return rungs(config.num_iterations, options.eta, first)


def survivors(
    arrived: Sequence[tuple[int, float]], records: Sequence[tuple[int, float]], eta: int
) -> list[int]:
    """Select the settings that go on from a rung: the best 1 / eta of all that were ever there.

    What ties with the last of them goes on, too. Before any setting has met a reward all scores are
    equal, so a rung that tells nothing apart drops nothing. To drop the tied ones would leave a
    sparse task to the one setting that was lucky first.

    A failed setting (-inf) never goes on. It counts among the arrivals of which 1 / eta go on.

    This is successive halving (Jamieson and Talwalkar 2016) if all settings arrive together.
    Settings that arrive later, in slots that others left, are compared with all earlier ones, as in
    asynchronous halving (Li et al. 2020).

    Args:
        arrived: (setting, score) of those that have just arrived.
        records: (setting, score) of all that arrived before.

    Returns:
        Settings of `arrived`, in its order; none if all of them failed.
    """
    everyone = [*records, *arrived]
    finite = sorted((score for _, score in everyone if math.isfinite(score)), reverse=True)
    if not finite:
        return []
    count = max(1, len(everyone) // eta)
    least = finite[:count][-1]
    return [setting for setting, score in arrived if score >= least]


def expected_share(num_settings: int, levels: Sequence[int], eta: int) -> float:
    """Ratio of a halving's iterations to those of training every setting to the end.

    Ties are not expected: each rung drops all but 1 / eta.

    Args:
        levels: iterations of the rungs, rising; the last one is the whole budget.

    Returns:
        A fraction, at most 1.
    """
    total, left, before = 0, num_settings, 0
    for level in levels:
        total += left * (level - before)
        left, before = max(1, left // eta), level
    return total / (num_settings * levels[-1])


def expected_arrivals(num_settings: int, levels: Sequence[int], eta: int) -> int:
    """Settings that are scored at the rungs before the last of a halving, each rung for itself."""
    total, left = 0, num_settings
    for _ in levels[:-1]:
        total, left = total + left, max(1, left // eta)
    return total


def exploit_interval(num_iterations: int, wanted: int) -> int:
    """Iterations between two exploits; `wanted` is 0 for the usual number of exploits."""
    return wanted or max(1, num_iterations // EXPLOITS)


def interval_of(config: Config, options: SweepOptions) -> int:
    """Iterations between two exploits of population-based training."""
    wanted = -(-options.interval // config.batch_size)
    return exploit_interval(config.num_iterations, wanted)


def require_some(config: Config, options: SweepOptions) -> None:
    """Refuse a halving or pbt that would train every setting to the end without a decision.

    Raises:
        InputError: no rung or exploit comes before the end of the budget.
    """
    steps, count = config.trained_env_steps, config.num_iterations
    if options.sampler == "halving" and len(levels_of(config, options)) == 1:
        raise InputError(
            f"min_env_steps={options.min_env_steps} leaves sampler halving no rung before the end "
            f"of total_env_steps={steps} ({count} iterations of {config.batch_size} environment "
            f"steps; a rung needs {LEAST} or more): lower it, raise total_env_steps, or "
            "choose --sampler grid or random."
        )
    if options.sampler == "pbt" and (interval := interval_of(config, options)) >= count:
        raise InputError(
            f"interval={options.interval} leaves sampler pbt no exploit before the end of "
            f"total_env_steps={steps}: the first one comes after {interval} of {count} iterations "
            f"of {config.batch_size} environment steps. Lower it, raise total_env_steps, or choose "
            "--sampler random."
        )


def exploit(scores: Sequence[float], generator: np.random.Generator) -> list[int]:
    """Choose the source of each slot: itself, or one of the best for the lowest and the failed.

    The lowest fifth copies from the highest fifth of the finite scores. Every failed slot (-inf)
    copies, too. A source is strictly above its copy: equal scores are no reason to copy.

    Args:
        scores: [K], mean returns of the slots.

    Returns:
        [K], slots; the number of a slot that keeps its own state is its own.
    """
    sources = list(range(len(scores)))
    if len(scores) < 2:
        return sources
    count = min(max(int(TRUNCATION * len(scores) + 0.5), 1), len(scores) // 2)
    finite = [slot for slot in sources if math.isfinite(scores[slot])]
    best = sorted(finite, key=lambda i: (scores[i], i))[-count:]
    ordered = sorted(sources, key=lambda i: (scores[i], i))
    for slot in ordered[: max(count, len(scores) - len(finite))]:
        above = [i for i in best if scores[i] > scores[slot]]
        if above:
            sources[slot] = int(generator.choice(above))
    return sources


def explore(
    axes: Sequence[Axis],
    values: Values,
    generator: np.random.Generator,
    allows: Callable[[Values], bool] = lambda values: True,
) -> Values:
    """Move a setting: each axis takes a small step, or with chance `RESAMPLE` a new draw.

    A step beyond the end of an axis leaves it at the end. The whole setting is drawn again until
    something differs, as a copy with equal values would train like its source, bit for bit.

    Args:
        values: of the source, by axis.
        allows: returns False for values that cannot be together; they are drawn again.

    Returns:
        Values by axis; those of the source if `TRIES` draws gave no others.
    """
    for _ in range(TRIES):
        moved = {axis.name: _moved(axis, values[axis.name], generator) for axis in axes}
        if moved != values and allows(moved):
            return moved
    return dict(values)


def _moved(axis: Axis, value: Any, generator: np.random.Generator) -> Any:
    resamples, direction, share = generator.random(3)
    up = direction < 0.5
    if resamples < RESAMPLE:
        return draw(axis, float(share))
    if axis.range is None:
        choices = _in_order(axis.choices)
        place = choices.index(value) + (1 if up else -1)
        return choices[min(max(place, 0), len(choices) - 1)]
    low, high, is_log, is_whole = axis.range
    if is_log:
        moved = value * FACTOR if up else value / FACTOR
    else:
        moved = value + (STEP if up else -STEP) * (high - low)
    if is_whole:  # a small number moves by 1 at least
        moved = max(round(moved), value + 1) if up else min(round(moved), value - 1)
    return min(max(moved, low), high)


def _in_order(choices: Sequence[Any]) -> list[Any]:
    """Rising numbers, in whatever order they were given; schedules and lists as they were given."""
    if all(isinstance(choice, int | float) for choice in choices):
        return sorted(choices)
    return list(choices)
