"""Intervals of means over tasks and seeds, and of their differences: by moments, not resampling.

The mean of N scores on T tasks, n_t seeds each, has the variance of its independent tasks:

    v_t = w_t^2 s_t^2 / n_t,  w_t = n_t / N,  error = sqrt(sum_t v_t)
    degrees of freedom = (sum_t v_t)^2 / sum_t (v_t^2 / (n_t - 1))     (Satterthwaite 1946)

With one task on each side the interval of a difference is that of Welch's test. A difference of
two methods is nearly symmetric. The mean of one method is as skewed as its seeds, so its t is
transformed (Hall 1992, "On the removal of skewness by transformation", section 2):

    g = k / (sum_t v_t)^(3/2),  k = sum_t w_t^3 k_t / n_t^2,  k_t the third cumulant, unbiased
    t -> t + g t^2 / 3 + g^2 t^3 / 27 + g / 6

benchmarks/results/coverage.md has the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Mean over all seeds of all tasks, and what is known of its distribution."""

    mean: float
    variances: tuple[float, ...]  # v_t of each task; the mean's variance is their sum
    degrees: tuple[int, ...]  # n_t - 1 of each task
    cumulant: float  # third cumulant of the mean; a task of two seeds adds none

    @property
    def variance(self) -> float:
        return sum(self.variances)


class Part(NamedTuple):
    """An independent part of a difference's variance: a task of a side, or a whole side."""

    variance: float  # as the interval has it
    unit: float  # the unbiased variance that one seed of each task would have; see power.py
    tasks: int


class Difference(NamedTuple):
    """Interval of a difference, and how it would narrow with more seeds."""

    ends: tuple[float, float]
    degrees: float  # degrees of freedom
    parts: tuple[Part, ...]


def interval(groups: Sequence[Any], confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of the mean over all seeds of all tasks, corrected for skewness.

    Args:
        groups: one array of finite scores for each task, [S_t].

    Returns:
        Both ends, or None if some task has fewer than two seeds.
    """
    found = moments(groups)
    if found is None:
        return None
    error = math.sqrt(found.variance)
    if error == 0.0:
        return found.mean, found.mean
    skewness = found.cumulant / error**3
    reach = quantile(welch([found]), confidence)
    low, high = (found.mean - error * inverse(y, skewness) for y in (reach, -reach))
    return low, high


def difference(
    groups: Sequence[Any], others: Sequence[Any], confidence: float = 0.95
) -> Difference | None:
    """Interval of mean(groups) - mean(others) by Welch's t.

    Args:
        groups, others: as in `interval`, one for each side.

    Returns:
        None if some task has fewer than two seeds.
    """
    first, second = moments(groups), moments(others)
    if first is None or second is None:
        return None
    degrees = welch([first, second])
    reach = quantile(degrees, confidence) * math.sqrt(first.variance + second.variance)
    middle = first.mean - second.mean
    return Difference((middle - reach, middle + reach), degrees, (*parts(first), *parts(second)))


def parts(side: Moments) -> list[Part]:
    """The tasks of a side: with n_t = 1 everywhere, v_t would be s_t^2 / T^2."""
    sizes = [own + 1 for own in side.degrees]
    scale = (sum(sizes) / len(sizes)) ** 2
    return [Part(v, v * scale / n, 1) for v, n in zip(side.variances, sizes, strict=True)]


def moments(groups: Sequence[Any]) -> Moments | None:
    """Moments of the mean; None if some task has fewer than two seeds."""
    tasks = [np.asarray(group, np.float64) for group in groups]
    if not tasks or min(x.size for x in tasks) < 2:
        return None
    total = sum(x.size for x in tasks)
    scores = np.concatenate(tasks)
    # Equal scores have no variance: their mean may be rounded.
    apart = [x - x.mean() if np.ptp(x) > 0.0 else np.zeros_like(x) for x in tasks]
    return Moments(
        mean=float(scores[0] if np.ptp(scores) == 0.0 else scores.mean()),
        variances=tuple(
            float((d**2).sum() / (d.size - 1)) * d.size / total**2 for d in apart
        ),  # w^2 s^2 / n
        degrees=tuple(x.size - 1 for x in tasks),
        cumulant=sum(_third(d) * d.size / total**3 for d in apart),  # w^3 k / n^2
    )


def _third(apart: np.ndarray) -> float:
    """Unbiased third cumulant (k-statistic) of deviations from their mean; 0 of two."""
    n = apart.size
    return 0.0 if n < 3 else float((apart**3).sum()) * n / ((n - 1) * (n - 2))


def welch(sides: Sequence[Moments]) -> float:
    """Degrees of freedom (Welch, Satterthwaite); their sum if nothing varies."""
    pairs = [pair for side in sides for pair in zip(side.variances, side.degrees, strict=True)]
    total = sum(variance for variance, _ in pairs)
    if total == 0.0:
        return float(sum(own for _, own in pairs))
    return 1.0 / sum((variance / total) ** 2 / own for variance, own in pairs)


def inverse(y: float, skewness: float) -> float:
    """Hall's transformation backwards: the t whose transform is y."""
    third = skewness / 3.0
    if abs(third) < 1e-6:
        return y - skewness / 6.0
    return float(np.cbrt(1.0 + 3.0 * third * (y - skewness / 6.0)) - 1.0) / third


def quantile(degrees: float, confidence: float) -> float:
    """Upper quantile of Student's t for a two-sided interval."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + confidence / 2.0))
