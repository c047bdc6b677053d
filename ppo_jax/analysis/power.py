"""Power: the number of seeds with which the interval of a difference decides.

The interval has two arms, below and above the estimate, which narrow as more seeds are trained:

    arm(n) = arm * width(n) / width(now)

The estimate is taken as normal around the measured difference, with the deviation that the arms
have. The true difference may be another one, so take the number as a rough size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

from ppo_jax.analysis import means, stats

POWER = 0.8
MOST_SEEDS = 10_000
Z = NormalDist().inv_cdf(0.975)


class Width(NamedTuple):
    """The half-width of an interval, up to a constant, as a function of the seeds of a task."""

    deviation: float
    factor: float  # Student's t, and few seeds: the half-width is Z * factor * deviation


Widths = Callable[[int], Width]


def of_one_group(count: int) -> Width:
    """The width of a bootstrap interval of one group, see `stats.stretch`.

    The IQM of 2 or 3 seeds is their mean, and plain resamples of it vary as if there were n - 1
    seeds in place of n. The IQM of more seeds varies more between resamples than between samples.
    """
    is_mean = count < stats.WHOLE
    deviation = math.sqrt(count - 1) / count if is_mean else 1.0 / math.sqrt(count)
    return Width(deviation, stats.stretch([count]))


def now(found: means.Difference) -> Width:
    """The width of the interval of a difference as it is."""
    deviation = math.sqrt(sum(part.variance for part in found.parts))
    return Width(deviation, stats.t_over_z(found.degrees))


def of_difference(parts: Sequence[means.Part], is_unbiased: bool) -> Widths:
    """The width of the interval of a difference, with equally many seeds everywhere.

    Args:
        parts: independent parts of the difference's variance.
        is_unbiased: False for the interquartile mean of one task. From `stats.WHOLE` seeds on, its
            deviation is that of plain resamples, sqrt((n - 1) / n) of the unbiased one.
    """

    def width(count: int) -> Width:
        variances = [part.unit / count for part in parts]
        total = sum(variances)
        freedoms = [part.tasks * (count - 1) for part in parts]
        if total == 0.0:
            return Width(0.0, stats.t_over_z(sum(freedoms)))
        own = sum((v / total) ** 2 / k for v, k in zip(variances, freedoms, strict=True))
        bias = 1.0 if is_unbiased or count < stats.WHOLE else math.sqrt((count - 1) / count)
        return Width(bias * math.sqrt(total), stats.t_over_z(1.0 / own))

    return width


def seeds_needed(
    difference: float,
    ci95: Sequence[float],
    margin: float,
    now: Width,
    widths: Widths,
    fewest: int,
) -> int | None:
    """Seeds of a task and side with which a difference is decided in 80% of the repetitions.

    Args:
        difference, ci95: the measured difference and its interval.
        margin: half-width of equality.
        now: the width of `ci95`.
        widths: the width with n seeds.
        fewest: more seeds than these.

    Returns:
        None if `MOST_SEEDS` do not suffice.
    """
    below, above = difference - ci95[0], ci95[1] - difference
    size = now.deviation * now.factor
    count = fewest
    while count < MOST_SEEDS:
        count = min(MOST_SEEDS, max(count + 1, round(1.02 * count)))
        width = widths(count)
        scale = width.deviation * width.factor / size if size else 0.0
        arms = scale * below, scale * above
        if chance(difference, *arms, sum(arms) / (2.0 * Z * width.factor), margin) >= POWER:
            return count
    return None


def chance(difference: float, below: float, above: float, error: float, margin: float) -> float:
    """Chance that an interval is decided: above 0, below 0, or within the margin.

    Args:
        difference: the mean of the estimate, which is normal.
        below, above: the interval's arms.
        error: the estimate's standard deviation.
    """
    spans = [(-math.inf, -above), (below, math.inf)]
    if below - margin <= margin - above:
        spans.append((below - margin, margin - above))
    if error == 0.0:
        return float(any(low <= difference <= high for low, high in spans))
    normal, total, reached = NormalDist(difference, error), 0.0, -math.inf
    for low, high in sorted(spans):
        if high > reached:
            total += normal.cdf(high) - normal.cdf(max(low, reached))
            reached = high
    return total
