"""Verdicts by hand, by scipy's tests, and by simulation of how often each word is given."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from ppo_jax.analysis import power, stats, verdicts
from ppo_jax.analysis.verdicts import BETTER, EQUAL, UNDECIDED, WORSE


@pytest.mark.parametrize(
    "ci95, word",
    [
        ((0.5, 3.0), BETTER),
        ((0.5, 1.0), EQUAL),  # surely better, and by less than counts
        ((-1.0, 1.0), EQUAL),
        ((-1.1, 1.0), UNDECIDED),
        ((-0.5, 9.0), UNDECIDED),
        ((-0.9, -0.1), EQUAL),
        ((-1.1, -0.1), WORSE),
        (None, UNDECIDED),
    ],
)
def test_the_word_follows_the_interval_and_the_margin(ci95, word):
    assert verdicts.decide(ci95, 1.0) == word


def test_without_a_margin_only_better_and_worse_can_be_decided():
    assert verdicts.decide((-0.1, 0.1), 0.0) == UNDECIDED
    assert verdicts.decide((0.0, 0.0), 0.0) == EQUAL  # no difference at all
    assert verdicts.margin_of(None, 3.0) == 0.0
    assert verdicts.margin_of(-200.0, -100.0) == pytest.approx(5.0)


def test_a_published_number_is_compared_with_the_living_seeds():
    scores = [10.0, 12.0, 11.0, 13.0, 9.0]
    found = verdicts.against(scores, 20.0, margin=1.0)
    low, high = stats.bootstrap_interval(scores, generator=np.random.default_rng(0)) or (0.0, 0.0)
    assert (found.word, found.difference) == (WORSE, 11.0 - 20.0)
    assert found.ci95 == (low - 20.0, high - 20.0)
    assert verdicts.against([500.0] * 4, 500.0, margin=0.0).word == EQUAL


@pytest.mark.parametrize("failed", [None, float("nan")])
def test_a_failed_seed_is_worse_than_a_published_agent(failed):
    assert verdicts.against([50.0, 60.0, failed], 10.0, margin=1.0).word == WORSE
    assert verdicts.against([failed], 10.0, margin=1.0).difference is None


def test_two_methods_are_compared_task_by_task():
    ours, theirs = [[1.0, 1.1, 0.9], [5.0, 5.1, 5.2]], [[0.0, 0.1, 0.2], [5.0, 5.2, 5.1]]
    found = verdicts.between(ours, theirs, margin=0.1, statistic=np.mean)
    assert found.difference == pytest.approx((1.0 - 0.1) / 2)
    assert found.word == BETTER
    back = verdicts.between(theirs, ours, margin=0.1, statistic=np.mean)
    assert (back.word, back.difference) == (WORSE, pytest.approx(-0.45))


def quantiles(count: int) -> np.ndarray:
    """Scores of a normal sample whose mean is 0 and whose variance is 1, as estimated."""
    x = scipy.stats.norm.ppf((np.arange(count) + 0.5) / count)
    return x / x.std(ddof=1)


def decided(difference: float, margin: float, error: float, freedom: int) -> float:
    """Chance by Student's t that an interval lies above 0, below 0, or within the margin."""
    edge = scipy.stats.t.ppf(0.975, freedom)

    def above(bar: float) -> float:
        return float(scipy.stats.nct.sf(edge, freedom, (difference - bar) / error))

    def below(bar: float) -> float:
        return float(scipy.stats.nct.cdf(-edge, freedom, (difference - bar) / error))

    if margin and difference == 0.0:  # within: above -margin and below margin
        return above(-margin) + below(margin) - 1.0
    return above(0.0)


@pytest.mark.parametrize("difference, margin", [(0.5, 0.0), (0.0, 0.5), (0.0, 0.3)])
def test_the_seeds_needed_give_the_power_of_the_t_test(difference, margin):
    """scipy's noncentral t: 80% power at alpha 0.05, for the mean of normal scores of SD 1."""
    start = 12
    reach = scipy.stats.t.ppf(0.975, start - 1) / np.sqrt(start)
    ends = (difference - reach, difference + reach)
    assert verdicts.decide(ends, margin) == UNDECIDED
    now = power.of_one_group(start)
    seeds = power.seeds_needed(difference, ends, margin, now, power.of_one_group, start)
    assert seeds is not None
    found = decided(difference, margin, 1 / np.sqrt(seeds), seeds - 1)
    assert found == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    "difference, margin, sizes",
    [
        (1.2, 0.0, (2, 2)),
        (0.8, 0.0, (3, 3)),
        (0.8, 0.0, (8, 8)),
        (0.5, 0.0, (20, 20)),
        (0.7, 0.0, (4, 20)),  # as many on both sides
        (0.7, 0.0, (20, 4)),
        (0.0, 0.5, (20, 20)),
    ],
)
def test_the_seeds_needed_of_two_groups_give_the_power_of_the_t_test(difference, margin, sizes):
    """scipy's noncentral t for two samples whose variances are 1 as estimated."""
    x, y = (quantiles(count) for count in sizes)
    found = verdicts.between([x + difference], [y], margin, np.mean)
    assert found.word == UNDECIDED
    seeds = found.seeds_needed
    assert seeds is not None
    chance = decided(difference, margin, np.sqrt(2 / seeds), 2 * seeds - 2)
    assert chance == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize("start", [3, 6])  # the interval of 2 seeds has nearly no shape
def test_the_seeds_needed_of_few_seeds_give_the_power_of_the_t_test(start):
    found = verdicts.against(quantiles(start) + 0.5, 0.0, 0.0)
    assert found.word == UNDECIDED
    assert found.seeds_needed is not None
    freedom = found.seeds_needed - 1
    chance = decided(0.5, 0.0, 1 / np.sqrt(found.seeds_needed), freedom)
    assert chance == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize("sizes", [(10, 10), (4, 20)])
def test_the_seeds_needed_of_two_tasks_are_those_of_each_task(sizes):
    ours = [quantiles(sizes[0]) + 0.4, 3.0 * quantiles(sizes[1]) + 0.4]
    theirs = [quantiles(sizes[1]), 3.0 * quantiles(sizes[0])]
    by_means, by_iqm = (
        verdicts.between(ours, theirs, 0.0, statistic).seeds_needed
        for statistic in (np.mean, stats.iqm)
    )
    assert by_means is not None
    assert by_iqm is not None
    error = np.sqrt(2 * (1 + 9) / 4 / by_means)
    assert decided(0.4, 0.0, error, 10**4) == pytest.approx(0.8, abs=0.02)
    assert 0.5 * by_means < by_iqm < 2.0 * by_means  # near: its resamples are not those of the mean


@pytest.mark.parametrize(
    "difference, below, above, error, margin",
    [
        (0.3, 0.5, 0.7, 0.25, 0.0),
        (0.1, 0.5, 0.7, 0.3, 0.9),
        (0.4, 0.2, 0.2, 0.1, 0.6),  # equal and better overlap
        (0.0, 1.0, 1.0, 0.5, 0.4),
    ],
)
def test_the_chance_to_decide_is_the_share_of_decided_intervals(
    difference, below, above, error, margin
):
    drawn = np.random.default_rng(0).normal(difference, error, 20_000)
    share = np.mean([verdicts.decide((x - below, x + above), margin) != UNDECIDED for x in drawn])
    assert power.chance(difference, below, above, error, margin) == pytest.approx(share, abs=0.01)


def test_a_failed_seed_is_seen_although_the_iqm_leaves_it_out():
    whole = [10.0] * 40
    found = verdicts.between_seeds([10.0] * 38 + [None] * 2, whole, 0.3, least=0.0)
    assert (found.difference, found.word) == (-0.5, UNDECIDED)
    assert verdicts.between_seeds([10.0] * 38 + [0.0] * 2, whole, 0.3, least=0.0).word == EQUAL
    assert verdicts.between_seeds([10.0] * 8 + [None] * 32, whole, 0.3, least=0.0).word == WORSE
    assert verdicts.between_seeds(whole, [10.0] * 8 + [None] * 32, 0.3, least=0.0).word == BETTER


def test_no_number_of_seeds_decides_a_difference_of_nothing_without_a_margin():
    found = verdicts.against([-1.0, -0.5, 0.5, 1.0], 0.0, 0.0)
    assert found.seeds_needed is None
    assert verdicts.described(found) == "undecided (more than 10000 seeds needed)"
    assert verdicts.described(found._replace(seeds_needed=40)) == "undecided (40 seeds needed)"


@pytest.mark.parametrize(
    "shift, check",
    [
        (0.0, lambda share: share[EQUAL] + share[UNDECIDED] >= 0.93),
        (-0.5, lambda share: share[EQUAL] < 0.1),  # half a standard deviation is the margin
        (-1.0, lambda share: share[WORSE] > 0.9),
    ],
)
def test_how_often_each_word_is_given_with_20_seeds(shift, check):
    generator = np.random.default_rng(0)
    words = [
        verdicts.against(generator.normal(shift, 1.0, 20), 0.0, margin=0.5).word for _ in range(150)
    ]
    assert check({word: words.count(word) / 150 for word in verdicts.WORDS})


def test_more_seeds_turn_undecided_into_equal():
    generator = np.random.default_rng(0)
    counts = [
        sum(
            verdicts.against(generator.normal(size=n), 0.0, margin=0.5).word == EQUAL
            for _ in range(60)
        )
        for n in (8, 24, 60)
    ]
    assert counts[0] < counts[1] < counts[2]
