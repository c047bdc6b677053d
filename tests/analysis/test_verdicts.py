"""Verdicts by hand, by scipy's tests, and by simulation of how often each word is given."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from ppo_jax.analysis import stats, verdicts
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


@pytest.mark.parametrize("difference, margin", [(0.5, 0.0), (0.0, 0.5), (0.9, 0.2)])
def test_the_seeds_needed_give_the_power_of_the_t_test(difference, margin):
    """scipy's noncentral t: 80% power at alpha 0.05, for the mean of normal scores of SD 1."""
    start = 12
    reach = scipy.stats.t.ppf(0.975, start - 1) / np.sqrt(start)
    ends = (difference - reach, difference + reach)
    assert verdicts.decide(ends, margin) == UNDECIDED or margin == 0.2
    needed = verdicts.seeds_needed(difference, ends, margin, start)
    distance = max(difference, margin - difference)

    def power(n: int) -> float:
        edge = scipy.stats.t.ppf(0.975, n - 1)
        return float(scipy.stats.nct.sf(edge, n - 1, distance * np.sqrt(n)))

    assert needed is not None
    if margin == 0.5:  # both sides must lie within the margin
        assert 2 * power(needed) - 1 == pytest.approx(0.6, abs=0.06)
    else:
        assert power(needed) == pytest.approx(0.8, abs=0.05) or needed == start + 1


@pytest.mark.parametrize("difference, start", [(1.2, 2), (0.8, 3), (0.8, 8), (0.5, 20)])
def test_the_seeds_needed_of_two_groups_give_the_power_of_the_t_test(difference, start):
    """scipy's noncentral t for two samples whose variances are 1 as estimated from few seeds."""
    x = scipy.stats.norm.ppf((np.arange(start) + 0.5) / start)
    x /= x.std(ddof=1)
    found = verdicts.between([x + difference], [x], 0.0, np.mean)
    assert found.word == UNDECIDED
    seeds = found.seeds_needed
    assert seeds is not None
    edge = scipy.stats.t.ppf(0.975, 2 * seeds - 2)
    power = scipy.stats.nct.sf(edge, 2 * seeds - 2, difference * np.sqrt(seeds / 2))
    assert power == pytest.approx(0.8, abs=0.08)


def test_no_number_of_seeds_decides_a_difference_of_nothing_without_a_margin():
    found = verdicts.made(0.0, (-1.0, 1.0), 0.0, [10])
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
