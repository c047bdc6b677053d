"""Statistics over seeds against scipy, hand-computed numbers and known coverage."""

from __future__ import annotations

import itertools
import json
import time

import numpy as np
import pytest
import scipy.stats

from ppo_jax.analysis import means
from ppo_jax.analysis.ranges import limits
from ppo_jax.analysis.stats import (
    bootstrap_interval,
    difference_interval,
    iqm,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
    stratified_resamples,
    stretch,
    summarise,
    welch_interval,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def stretched(ends, estimate, factor):
    """Ends of an interval, `factor` times as far from the estimate."""
    return estimate + factor * (np.asarray(ends) - estimate)


def test_iqm_of_eight_numbers_is_the_mean_of_the_middle_four():
    assert iqm([100.0, 3.0, -50.0, 1.0, 2.0, 4.0, 0.0, 99.0]) == (1 + 2 + 3 + 4) / 4


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 31, 100])
def test_iqm_equals_scipys_trimmed_mean(size):
    x = rng(size).normal(size=(6, size))
    np.testing.assert_allclose(iqm(x), scipy.stats.trim_mean(x, 0.25, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(iqm(x.T, axis=0), iqm(x), rtol=1e-12)


def test_iqm_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        iqm([])


@pytest.mark.parametrize("size", range(2, 12))
def test_constant_scores_have_the_constant_as_iqm_and_interval(size):
    x = [0.1] * size
    assert iqm(x) == 0.1
    assert bootstrap_interval(x, generator=rng()) == (0.1, 0.1)


def test_one_seed_has_no_interval():
    assert bootstrap_interval([3.0], generator=rng()) is None
    assert bootstrap_interval([], generator=rng()) is None


def test_bootstrap_of_three_seeds_matches_the_enumeration_of_all_27_resamples():
    x = np.array([0.0, 1.0, 10.0])
    means = np.array([np.mean(draw) for draw in itertools.product(x, repeat=3)])
    # 80%: the tails of 10% hold 2.7 of 27 equally likely resamples, so neither end is at a step.
    low, high = bootstrap_interval(x, np.mean, 0.8, 20_000, generator=rng()) or (np.nan, np.nan)
    expected = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    np.testing.assert_allclose([low, high], stretched(expected, x.mean(), stretch([3], 0.8)))


def test_interval_of_the_mean_equals_scipys_percentile_bootstrap():
    x = rng(1).exponential(size=40)
    ours = bootstrap_interval(x, np.mean, resamples=20_000, generator=rng(2))
    theirs = scipy.stats.bootstrap(
        (x,), np.mean, n_resamples=20_000, method="percentile", rng=rng(3)
    ).confidence_interval
    theirs = stretched(theirs, x.mean(), scipy.stats.t.ppf(0.975, 39) / scipy.stats.norm.ppf(0.975))
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.mark.parametrize("size, confidence", [(5, 0.95), (10, 0.95), (10, 0.8), (400, 0.99)])
def test_the_stretch_is_students_quantile_over_the_normal_one(size, confidence):
    share = 0.5 + confidence / 2
    expected = scipy.stats.t.ppf(share, size - 1) / scipy.stats.norm.ppf(share)
    assert stretch([size], confidence) == pytest.approx(expected)
    three = scipy.stats.t.ppf(share, 3 * (size - 1)) / scipy.stats.norm.ppf(share)
    assert stretch([size] * 3, confidence) == pytest.approx(three * np.sqrt(size / (size - 1)))


@pytest.mark.parametrize("size", [4, 8, 20])
@pytest.mark.parametrize("draw", ["normal", "lognormal"])
def test_the_interval_of_few_seeds_covers_the_truth_as_often_as_it_says(size, draw):
    generator = rng(4)
    # The interquartile mean of exp(Z) is the mean of exp over the middle half of normal quantiles.
    quantiles = scipy.stats.norm.ppf(np.linspace(0.25, 0.75, 2001))
    truth = {"normal": 0.0, "lognormal": np.trapezoid(np.exp(quantiles)) / 2000}[draw]
    covered = 0
    for _ in range(600):
        x = getattr(generator, draw)(size=size)
        low, high = bootstrap_interval(x, resamples=300, generator=generator) or (np.nan, np.nan)
        covered += low <= truth <= high
    # 95% up to 2%, and three standard errors of 600 samples. The plain percentiles of 4 seeds
    # cover 88%.
    assert 0.93 - 0.027 <= covered / 600 <= 0.97 + 0.02


def test_interval_is_repeatable_and_depends_on_its_generator_alone():
    x = rng(5).normal(size=10)
    assert bootstrap_interval(x, generator=rng(6)) == bootstrap_interval(x, generator=rng(6))
    assert bootstrap_interval(x, generator=rng(6)) != bootstrap_interval(x, generator=rng(7))


def test_large_populations_are_resampled_in_pieces_of_bounded_memory():
    x = rng(8).normal(size=1 << 14)
    low, high = bootstrap_interval(x, np.mean, resamples=300, generator=rng(9)) or (0.0, 0.0)
    standard_error = x.std() / np.sqrt(x.size)
    ends = x.mean() + np.array([-2, 2]) * standard_error
    np.testing.assert_allclose([low, high], ends, atol=4e-3)


def test_two_thousand_resamples_of_32_seeds_take_well_under_a_second():
    start = time.perf_counter()
    bootstrap_interval(rng().normal(size=32), generator=rng())
    assert time.perf_counter() - start < 1.0


def test_probability_of_improvement_by_hand():
    assert probability_of_improvement([2.0, 3.0], [1.0, 1.5]) == 1.0
    assert probability_of_improvement([1.0], [1.0]) == 0.5
    assert probability_of_improvement([0.0, 2.0], [1.0, 2.0]) == (0 + 0 + 1 + 0.5) / 4


def test_probability_of_improvement_equals_the_mann_whitney_statistic():
    x, y = rng(1).integers(0, 10, 17), rng(2).integers(2, 12, 23)
    expected = scipy.stats.mannwhitneyu(x, y).statistic / (17 * 23)
    np.testing.assert_allclose(probability_of_improvement(x, y), expected)
    np.testing.assert_allclose(probability_of_improvement(y, x), 1 - expected)


def test_summary_leaves_failed_seeds_out_and_counts_them():
    found = summarise([1.0, None, 3.0, float("nan"), np.float32(5.0), float("inf")])
    assert found["per_seed"] == [1.0, None, 3.0, None, 5.0, None]
    assert found["num_failed"] == 3
    assert found["iqm"] == found["mean"] == 3.0
    low, high = found["ci95"]
    assert low < 1.0  # three seeds: wider than the seeds themselves
    assert high > 5.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_summary_of_one_seed_has_no_interval_and_of_none_no_score():
    assert summarise([7.0]) == {
        "per_seed": [7.0],
        "iqm": 7.0,
        "mean": 7.0,
        "ci95": None,
        "num_failed": 0,
    }
    assert summarise([None, None]) == {
        "per_seed": [None, None],
        "iqm": None,
        "mean": None,
        "ci95": None,
        "num_failed": 2,
    }


def test_optimality_gap_by_hand():
    # 1 - 0.4, nothing for what is above 1, 1 + 0.5 for a score below the random policy's.
    assert optimality_gap([0.4, 1.7, -0.5]) == pytest.approx((0.6 + 0.0 + 1.5) / 3)
    assert optimality_gap([2.0, 4.0], target=3.0) == 0.5


def test_performance_profile_by_hand():
    found = performance_profile([[0.0, 0.5], [0.5, 1.0]], [-1.0, 0.0, 0.5, 0.7, 1.0])
    np.testing.assert_allclose(found, [1.0, 0.75, 0.25, 0.25, 0.0])


def test_performance_profile_is_one_minus_scipys_empirical_distribution():
    x, thresholds = rng(1).normal(size=(10, 4)), np.linspace(-2, 2, 9)
    expected = 1.0 - scipy.stats.ecdf(x.ravel()).cdf.evaluate(thresholds)
    np.testing.assert_allclose(performance_profile(x, thresholds), expected, atol=1e-12)


def test_aggregates_equal_those_of_rliable():
    metrics = pytest.importorskip("rliable.metrics")
    x, y = rng(1).normal(0.6, 0.5, (10, 5)), rng(2).normal(0.4, 0.5, (12, 5))  # seeds x tasks
    np.testing.assert_allclose(iqm(x.ravel()), metrics.aggregate_iqm(x))
    np.testing.assert_allclose(optimality_gap(x.ravel()), metrics.aggregate_optimality_gap(x))
    ours = np.mean([probability_of_improvement(x[:, t], y[:, t]) for t in range(5)])
    np.testing.assert_allclose(ours, metrics.probability_of_improvement(x, y))


def test_stratified_resamples_keep_every_task_and_its_number_of_seeds():
    drawn = stratified_resamples([[1.0, 2.0, 3.0], [10.0, 20.0]], 500, rng())
    assert drawn.shape == (500, 5)
    assert set(np.unique(drawn[:, :3])) == {1.0, 2.0, 3.0}
    assert set(np.unique(drawn[:, 3:])) == {10.0, 20.0}
    assert len(np.unique(drawn, axis=0)) > 50


def test_stratified_interval_matches_the_enumeration_of_all_resamples():
    groups = [[0.0, 1.0], [10.0, 14.0]]
    means = [
        np.mean([*first, *second])
        for first in itertools.product(groups[0], repeat=2)
        for second in itertools.product(groups[1], repeat=2)
    ]
    found = stratified_interval(groups, np.mean, 0.8, 20_000, generator=rng()) or (np.nan, np.nan)
    expected = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    np.testing.assert_allclose(found, stretched(expected, 25 / 4, stretch([2, 2], 0.8)))


def test_stratified_interval_is_narrower_than_one_that_mixes_tasks():
    groups = [rng(1).normal(0.0, 0.1, 10), rng(2).normal(5.0, 0.1, 10)]
    apart = stratified_interval(groups, np.mean, generator=rng()) or (0.0, 0.0)
    mixed = bootstrap_interval(np.concatenate(groups), np.mean, generator=rng()) or (0.0, 0.0)
    # Two tasks five apart: mixing them makes their distance look like noise of the seeds.
    assert apart[1] - apart[0] < 0.1 * (mixed[1] - mixed[0])


def test_stratified_interval_of_one_task_is_the_bootstrap_interval():
    x = rng(1).normal(size=12)
    assert stratified_interval([x], generator=rng(2)) == bootstrap_interval(x, generator=rng(2))


def test_one_seed_on_some_task_leaves_no_interval():
    assert stratified_interval([[1.0, 2.0], [3.0]], generator=rng()) is None
    assert difference_interval([[1.0, 2.0]], [[3.0]], generator=rng()) is None


@pytest.mark.parametrize("sizes, spread", [((400, 400), 1.0), ((20, 60), 5.0)])
@pytest.mark.parametrize("tasks", [1, 2])
def test_interval_of_a_difference_is_that_of_welchs_test(sizes, spread, tasks):
    x, y = rng(1).normal(2.0, spread, sizes[0]), rng(2).normal(0.0, 1.0, sizes[1])
    groups, others = np.split(x, tasks), np.split(y, tasks)
    ours = difference_interval(groups, others, np.mean, resamples=8000, generator=rng())
    expected = scipy.stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    if tasks == 1:  # the bootstrap's variance is n - 1 of n parts of the unbiased one
        expected = stretched(expected, x.mean() - y.mean(), np.sqrt(1 - 1 / sizes[0]))
    else:
        expected = means.difference(groups, others)[0]
    np.testing.assert_allclose(ours, expected, atol=0.04 * spread)


def test_each_side_of_a_difference_is_widened_by_its_own_number_of_seeds():
    """Resamples of 2 seeds have half of their variance, those of 20 almost all of it."""
    groups = list(rng(1).normal(0.0, 3.0, (50, 2)))
    others = list(rng(2).normal(0.0, 1.0, (50, 20)))
    ours = difference_interval(groups, others, np.mean, resamples=8000, generator=rng())
    expected = means.difference(groups, others)[0]
    np.testing.assert_allclose(ours, expected, atol=0.06)
    pair = welch_interval(groups, others, np.mean, resamples=8000, generator=rng())
    units = [part.unit for part in pair.parts]
    of_a_seed = [np.var(side, axis=1, ddof=1).mean() / 50 for side in (groups, others)]
    np.testing.assert_allclose(units, of_a_seed, rtol=0.05)


def test_the_interquartile_mean_of_three_seeds_varies_as_their_mean():
    x, y = [0.0, 1.0, 5.0], [2.0, 2.5, 3.0]
    found = welch_interval([x], [y], resamples=40_000, generator=rng())
    expected = [np.var(x, ddof=1) / 3, np.var(y, ddof=1) / 3]
    np.testing.assert_allclose([part.variance for part in found.parts], expected, rtol=0.02)
    np.testing.assert_allclose(
        [part.unit for part in found.parts], np.multiply(3, expected), rtol=0.02
    )


def test_an_interval_ends_where_the_possible_returns_end():
    scores = [490.0, 500.0, 500.0, 400.0]
    low, high = summarise(scores)["ci95"]
    assert high > 500.0
    assert summarise(scores, limits=limits("CartPole-v1"))["ci95"] == [low, 500.0]
    assert summarise(scores, limits=limits("CartPole-v1", {"max_steps_in_episode": 900}))[
        "ci95"
    ] == [low, high]
    assert summarise([-999.0, -999.0], limits=limits("Pendulum-v1"))["ci95"] == [-999.0, -999.0]
