"""Scores over seeds: robust means and their intervals, with the seed as the unit.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". Host
only; numbers in, numbers out. All random draws come from the generator that a caller passes.

An interval of an interquartile mean is the percentile bootstrap, with both ends moved away from the
estimate by `stretch`. Intervals of means are in means.py.
The plain percentile bootstrap is too narrow for few seeds: it covers 88% with 4 and 93% with 10.
An end beyond the largest or the least possible return moves back to it, if a caller knows these.
`benchmarks/coverage.py` measures this and its alternatives; benchmarks/results/coverage.md has
the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ppo_jax.analysis import means

WHOLE = 4  # seeds from which on an interquartile mean leaves some out
_CHUNK = 1 << 22  # resampled numbers held at once by the bootstrap, 32 MiB
# Further stretch of one group of so few seeds, calibrated by benchmarks/coverage.py: resamples of
# 2 or 3 seeds have too small a variance, and those of 4 end at the lowest and the highest seed.
_FEW = {2: 1.96, 3: 1.32, 4: 1.23}


def iqm(x: Any, axis: int = -1) -> Any:
    """Interquartile mean: the mean without the lowest and the highest quarter.

    floor(n / 4) of n numbers are cut at each end (scipy.stats.trim_mean with 0.25). With fewer than
    four numbers none is cut, and the IQM is the mean.

    Args:
        x: array with at least one finite number along `axis`.

    Raises:
        ValueError: `x` has no number along `axis`.
    """
    ordered = np.sort(np.asarray(x, np.float64), axis=axis)
    size = ordered.shape[axis]
    if size == 0:
        raise ValueError("the IQM of no numbers is undefined: pass at least one.")
    middle = np.take(ordered, np.arange(size // 4, size - size // 4), axis=axis)
    # A mean of equal numbers may be off in the last bit: keep it between its ends.
    return np.clip(middle.mean(axis=axis), middle.min(axis=axis), middle.max(axis=axis))


def bootstrap_interval(
    per_seed: Sequence[float] | np.ndarray,
    statistic: Callable[..., Any] = iqm,
    confidence: float = 0.95,
    resamples: int = 2000,
    *,
    generator: np.random.Generator,
) -> tuple[float, float] | None:
    """Stretched bootstrap interval of `statistic`, resampling seeds; None for fewer than two.

    Args:
        per_seed: [S], finite, one number per seed (not per episode).
        statistic: called with an array [R, S] and `axis=-1`, gives [R]; numpy's mean is one.
        confidence: chance that the interval covers the statistic of the population.
        resamples: R, how often S seeds are drawn with replacement.
    """
    x = np.asarray(per_seed, np.float64)
    if x.size < 2:
        return None
    rows = max(1, _CHUNK // x.size)
    resampled = [
        statistic(x[generator.integers(0, x.size, (min(rows, resamples - done), x.size))], axis=-1)
        for done in range(0, resamples, rows)
    ]
    factor = stretch([x.size], confidence)
    return _stretched(np.concatenate(resampled), float(statistic(x, axis=-1)), factor, confidence)


def stretch(sizes: Sequence[int], confidence: float = 0.95) -> float:
    """Factor on the distance of a percentile interval's ends from the estimate.

    It is t / z, the quantile of Student's t with sum(size - 1) degrees of freedom over the normal
    one: the bootstrap takes the variance of few seeds for known. One group of 2 to 4 seeds has a
    further factor, and several groups have that of `_unbiased`.

    Args:
        sizes: number of seeds of each group.
    """
    factor = t_over_z(sum(size - 1 for size in sizes), confidence)
    return factor * (_FEW.get(sizes[0], 1.0) if len(sizes) == 1 else _unbiased(sizes))


def _unbiased(sizes: Sequence[int]) -> float:
    """Factor on the deviation of stratified resamples: theirs is as of n - 1 of n seeds.

    Rao and Wu 1988, "Resampling inference with complex survey data". One group alone needs none:
    its interquartile mean varies more between resamples than between samples.
    """
    return math.sqrt(sum(sizes) / (sum(sizes) - len(sizes)))


def t_over_z(degrees: float, confidence: float = 0.95) -> float:
    """Quantile of Student's t with that many degrees of freedom over the normal one."""
    from scipy.special import ndtri

    return means.quantile(degrees, confidence) / float(ndtri(0.5 + confidence / 2.0))


def probability_of_improvement(x: Any, y: Any) -> float:
    """P(X > Y) + P(X = Y) / 2 over all pairs: the Mann-Whitney U of x, divided by its maximum.

    Args:
        x: [S], one finite number per seed of the method in question.
        y: [S'], the same of the method that it is compared with.

    Raises:
        ValueError: either side has no seed.
    """
    ordered = np.sort(np.asarray(y, np.float64))
    x = np.asarray(x, np.float64)
    if x.size == 0 or ordered.size == 0:
        raise ValueError("probability of improvement needs at least one seed on either side.")
    below = np.searchsorted(ordered, x, side="left")
    not_above = np.searchsorted(ordered, x, side="right")
    return float(np.mean(below + not_above) / (2 * ordered.size))


def optimality_gap(x: Any, target: float = 1.0, axis: int = -1) -> Any:
    """Mean shortfall of the scores below `target`; scores above `target` count as `target`.

    gap = mean(max(target - x, 0))  (Agarwal et al. 2021, section 4.3), 0 if all have reached it.
    """
    return np.mean(np.maximum(target - np.asarray(x, np.float64), 0.0), axis=axis)


def performance_profile(scores: Any, thresholds: Any) -> np.ndarray:
    """Share of the scores above each threshold, [K] (Agarwal et al. 2021, section 4.2).

    Args:
        scores: finite scores of all runs on all tasks, of any shape. thresholds: [K].

    Raises:
        ValueError: there is no score.
    """
    ordered = np.sort(np.asarray(scores, np.float64).ravel())
    if ordered.size == 0:
        raise ValueError("a performance profile needs at least one score.")
    return 1.0 - np.searchsorted(ordered, np.asarray(thresholds), side="right") / ordered.size


def stratified_resamples(
    groups: Sequence[Any], resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Resample scores with replacement, [R, N]: seeds change places within their task only.

    Args:
        groups: one array of scores for each task, [S_t] each; N is the sum of the S_t.
        resamples: R.

    Raises:
        ValueError: a task has no score.
    """
    drawn = []
    for group in groups:
        x = np.asarray(group, np.float64)
        if x.size == 0:
            raise ValueError("a task without any score cannot be resampled.")
        drawn.append(x[generator.integers(0, x.size, (resamples, x.size))])
    return np.concatenate(drawn, axis=1)


def stratified_interval(
    groups: Sequence[Any],
    statistic: Callable[..., Any] = iqm,
    confidence: float = 0.95,
    resamples: int = 2000,
    *,
    generator: np.random.Generator,
) -> tuple[float, float] | None:
    """Stretched bootstrap interval of a statistic over all tasks, stratified by task.

    None if some task has fewer than two seeds. Arguments are as in `stratified_resamples` and
    `bootstrap_interval`; with one task the result is the latter's.
    """
    if not groups or min(np.size(group) for group in groups) < 2:
        return None
    drawn = statistic(stratified_resamples(groups, resamples, generator), axis=-1)
    factor = stretch([np.size(group) for group in groups], confidence)
    return _stretched(drawn, _over_all(groups, statistic), factor, confidence)


def difference_interval(
    groups: Sequence[Any],
    others: Sequence[Any],
    statistic: Callable[..., Any] = iqm,
    confidence: float = 0.95,
    resamples: int = 2000,
    *,
    generator: np.random.Generator,
) -> tuple[float, float] | None:
    """Interval of statistic(groups) - statistic(others), see `welch_interval`."""
    found = welch_interval(groups, others, statistic, confidence, resamples, generator=generator)
    return None if found is None else found.ends


def welch_interval(
    groups: Sequence[Any],
    others: Sequence[Any],
    statistic: Callable[..., Any] = iqm,
    confidence: float = 0.95,
    resamples: int = 2000,
    *,
    generator: np.random.Generator,
) -> means.Difference | None:
    """Interval of statistic(groups) - statistic(others), both resampled task by task.

    Student's t has the degrees of freedom of Welch's test, from the variances of both sides'
    resamples, each widened by `_widening`. None if some task has fewer than two seeds.
    """
    sides = (groups, others)
    if any(not side or min(np.size(group) for group in side) < 2 for side in sides):
        return None
    estimates = [_over_all(side, statistic) for side in sides]
    drawn = [statistic(stratified_resamples(side, resamples, generator), axis=-1) for side in sides]
    first, second = (
        middle + _widening([np.size(group) for group in side]) * (x - middle)
        for middle, x, side in zip(estimates, drawn, sides, strict=True)
    )
    degrees = [sum(np.size(group) - 1 for group in side) for side in sides]
    freedom = _welch(first, second, degrees)
    factor = t_over_z(freedom, confidence)
    ends = _stretched(first - second, estimates[0] - estimates[1], factor, confidence)
    parts = (_part(float(first.var()), groups), _part(float(second.var()), others))
    return means.Difference(ends, freedom, parts)


def _widening(sizes: Sequence[int]) -> float:
    """Factor on the resamples of one side of a difference.

    That of `_unbiased`, except for the interquartile mean of one task, which varies more between
    resamples than between samples. The one of 2 or 3 seeds is their mean.
    """
    return _unbiased(sizes) if len(sizes) > 1 or sizes[0] < WHOLE else 1.0


def _part(variance: float, side: Sequence[Any]) -> means.Part:
    """One side of a difference; plain resamples of one task have (n - 1) / n of its variance."""
    sizes = [np.size(group) for group in side]
    unbiased = variance * (_unbiased(sizes) / _widening(sizes)) ** 2
    return means.Part(variance, unbiased * sum(sizes) / len(sizes), len(sizes))


def _over_all(groups: Sequence[Any], statistic: Callable[..., Any]) -> float:
    scores = np.concatenate([np.asarray(group, np.float64).ravel() for group in groups])
    return float(statistic(scores, axis=-1))


def _welch(first: np.ndarray, second: np.ndarray, degrees: Sequence[int]) -> float:
    """Degrees of freedom of a difference (Welch and Satterthwaite), from both sides' resamples."""
    variances = float(first.var()), float(second.var())
    if sum(variances) == 0.0:
        return float(sum(degrees))
    shares = [variance / sum(variances) for variance in variances]
    return 1.0 / sum(share**2 / own for share, own in zip(shares, degrees, strict=True))


def _stretched(
    drawn: np.ndarray, estimate: float, factor: float, confidence: float
) -> tuple[float, float]:
    """Percentiles of resampled statistics, `factor` times as far from the estimate."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    # The estimate of a skewed sample may lie outside its percentiles: such an end stays.
    low = min(low, estimate - factor * (estimate - low))
    high = max(high, estimate + factor * (high - estimate))
    return float(low), float(high)


def known(per_seed: Sequence[float | None] | np.ndarray) -> list[float]:
    """Scores of the seeds that have not failed: neither None nor non-finite."""
    return [float(x) for x in per_seed if x is not None and math.isfinite(x)]


def summarise(
    per_seed: Sequence[float | None] | np.ndarray,
    generator: np.random.Generator | None = None,
    statistic: Callable[..., Any] = iqm,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> dict[str, Any]:
    """Scores of all seeds as a JSON-ready object: null for unknown values, never NaN.

    A seed that is None or not finite has failed. It stays null in `per_seed` and counts in
    `num_failed`; IQM, mean and interval are over the rest. The interval is that of `statistic`:
    the one of means.py for `np.mean`, else a bootstrap.
    Without a generator it is drawn from a fixed stream, so that a report can be repeated. Its ends
    lie within `limits`, the least and the largest possible score.
    """
    scores = [None if x is None or not math.isfinite(x) else float(x) for x in per_seed]
    living = known(scores)
    generator = np.random.default_rng(0) if generator is None else generator
    interval = (
        means.interval([living])
        if statistic is np.mean
        else bootstrap_interval(living, statistic, generator=generator)
    )
    return {
        "per_seed": scores,
        "iqm": float(iqm(living)) if living else None,
        "mean": float(np.mean(living)) if living else None,
        "ci95": None if interval is None else np.clip(interval, *limits).tolist(),
        "num_failed": len(scores) - len(living),
    }
