"""Verdicts: a difference with its interval, a margin within which scores count as equal, a word.

    equal      the interval lies within the margin on either side of 0
    better     else, it lies above 0
    worse      else, it lies below 0
    undecided  it holds 0 and leaves the margin: more seeds decide

At equality better and worse are as rare as the interval misses, 5%, and more seeds turn undecided
into equal. benchmarks/results/coverage.md has the shares of the words, measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.analysis import means, power, stats

BETTER, EQUAL, UNDECIDED, WORSE = WORDS = ("better", "equal", "undecided", "worse")
MARGIN = 0.05  # share of the range from the random policy to the best known return


class Verdict(NamedTuple):
    """A comparison of scores with a number, or with other scores."""

    word: str
    difference: float | None  # ours minus theirs; None if a side has no score
    ci95: tuple[float, float] | None
    margin: float  # half-width of equality, in returns
    seeds_needed: int | None  # a side, if undecided: for a chance of 80% to decide; None if unknown


def margin_of(low: float | None, high: float | None, share: float = MARGIN) -> float:
    """Margin of equality for returns between `low` and `high`; 0 if an end is unknown."""
    return 0.0 if low is None or high is None else share * abs(high - low)


def rounding(score: float) -> float:
    """Rounding of a sum of rewards in float32: a smaller difference is none."""
    return 1e-4 * max(1.0, abs(score))


def decide(ci95: Sequence[float] | None, margin: float) -> str:
    """Choose the word for the interval of a difference; without one nothing is decided."""
    if ci95 is None:
        return UNDECIDED
    low, high = ci95
    if -margin <= low and high <= margin:
        return EQUAL
    return BETTER if low > 0.0 else WORSE if high < 0.0 else UNDECIDED


def against(
    per_seed: Sequence[float | None], published: float, margin: float, statistic: Any = stats.iqm
) -> Verdict:
    """Compare the living seeds with one published number, which has no interval of its own.

    A published agent did not fail. So scores with a failed seed are worse, whatever the others are.
    """
    known = stats.known(per_seed)
    margin = max(margin, rounding(published))
    if not known:
        return Verdict(WORSE, None, None, margin, None)
    difference = float(statistic(np.array(known), axis=-1)) - published
    ends = stats.bootstrap_interval(known, statistic, generator=np.random.default_rng(0))
    ci95 = None if ends is None else (ends[0] - published, ends[1] - published)
    if len(known) < len(per_seed):
        return Verdict(WORSE, difference, ci95, margin, None)
    if ci95 is None:
        return made(difference, None, margin)
    seeds = len(known)
    now = power.of_one_group(seeds)
    return made(difference, ci95, margin, (now, power.of_one_group, seeds))


def between(
    ours: Sequence[Any], theirs: Sequence[Any], margin: float, statistic: Any = stats.iqm
) -> Verdict:
    """Compare two methods on the same tasks.

    Args:
        ours, theirs: one array of finite scores for each task, with the same tasks in both.
    """
    first, second = (np.concatenate([np.asarray(x, np.float64) for x in s]) for s in (ours, theirs))
    difference = float(statistic(first, axis=-1) - statistic(second, axis=-1))
    margin = max(margin, rounding(float(statistic(second, axis=-1))))
    found = (
        means.difference(ours, theirs)
        if statistic is np.mean
        else stats.welch_interval(ours, theirs, statistic, generator=np.random.default_rng(0))
    )
    if found is None:
        return made(difference, None, margin)
    sizes = [np.size(group) for group in (*ours, *theirs)]
    widths = power.of_difference(found.parts, statistic is np.mean or len(ours) > 1)
    return made(difference, found.ends, margin, (power.now(found), widths, min(sizes)))


def between_seeds(
    ours: Sequence[float | None], theirs: Sequence[float | None], margin: float, least: float
) -> Verdict:
    """Compare two methods on one task, where seeds may have failed.

    The IQM leaves out up to a quarter of failed seeds. So means are compared if a seed failed.

    Args:
        ours, theirs: [S] and [S'], None or a non-finite number for a failed seed.
        least: the score of a failed seed.
    """
    whole = [completed(side, least) for side in (ours, theirs)]
    has_failed = any(len(stats.known(side)) < len(side) for side in (ours, theirs))
    return between(whole[:1], whole[1:], margin, np.mean if has_failed else stats.iqm)


def completed(per_seed: Sequence[float | None], least: float) -> list[float]:
    """The scores of all seeds: a failed one, None or non-finite, has the score `least`."""
    return [least if x is None or not math.isfinite(x) else float(x) for x in per_seed]


def made(
    difference: float,
    ci95: tuple[float, float] | None,
    margin: float,
    widths: tuple[power.Width, power.Widths, int] | None = None,
) -> Verdict:
    """Make a verdict of a difference and its interval.

    Args:
        widths: the width of the interval, that of more seeds, and the seeds that there are; None
            if the seeds needed cannot be known.
    """
    word = decide(ci95, margin)
    needed = None
    if word == UNDECIDED and ci95 is not None and widths is not None:
        needed = power.seeds_needed(difference, ci95, margin, *widths)
    return Verdict(word, difference, ci95, margin, needed)


def described(verdict: Verdict) -> str:
    """The word; with the side if equal scores surely differ, or the seeds that would decide."""
    if verdict.ci95 is None or verdict.word not in (EQUAL, UNDECIDED):
        return verdict.word
    if verdict.word == EQUAL:
        low, high = verdict.ci95
        small = rounding(0.0)
        side = "higher" if low > small else "lower" if high < -small else ""
        return f"{EQUAL} ({side} by less than the margin)" if side else EQUAL
    seeds = verdict.seeds_needed
    return f"{UNDECIDED} ({'more than ' * (seeds is None)}{seeds or power.MOST_SEEDS} seeds needed)"
