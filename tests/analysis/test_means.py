"""Intervals of means against scipy's tests, k-statistics, a root finder and known coverage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from ppo_jax.analysis import means, stats, verdicts


def draws(*sizes: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.lognormal(place, 1.0, size) for place, size in enumerate(sizes)]


@pytest.mark.parametrize("sizes", [(4, 4), (5, 20), (2, 30)])
def test_a_difference_on_one_task_is_that_of_scipys_welch_test(sizes):
    x, y = draws(*sizes)
    test = scipy.stats.ttest_ind(x, y, equal_var=False)
    found = means.difference([x], [y])
    assert found is not None
    np.testing.assert_allclose(found[0], test.confidence_interval(), rtol=1e-9)
    assert found[1] == pytest.approx(test.df)


def test_a_difference_on_several_tasks_weights_each_task_by_its_seeds():
    """By hand: w = 1/3 and 2/3; variances w^2 s^2 / n of both sides and tasks."""
    ours, theirs = [[0.0, 2.0], [1.0, 1.0, 4.0, 6.0]], [[0.0, 4.0], [5.0, 5.0, 5.0, 5.0]]
    found = means.difference(ours, theirs)
    assert found is not None
    parts = [(2.0 / 9 / 2, 1), (6.0 * 4 / 9 / 4, 3), (8.0 / 9 / 2, 1), (0.0, 3)]
    total = sum(v for v, _ in parts)
    degrees = total**2 / sum(v**2 / own for v, own in parts)
    assert found[1] == pytest.approx(degrees)
    reach = scipy.stats.t.ppf(0.975, degrees) * np.sqrt(total)
    middle = (2 + 12) / 6 - (4 + 20) / 6
    np.testing.assert_allclose(found[0], [middle - reach, middle + reach])


def test_the_moments_of_one_task_are_scipys():
    (x,) = draws(9)
    found = means.moments([x])
    assert found is not None
    assert found.mean == pytest.approx(x.mean())
    assert found.variance == pytest.approx(scipy.stats.sem(x) ** 2)
    assert found.cumulant == pytest.approx(scipy.stats.kstat(x, 3) / 9**2)


@pytest.mark.parametrize("skewness", [-2.0, -0.3, 1e-9, 0.7, 3.0])
@pytest.mark.parametrize("y", [-3.2, 0.0, 2.0])
def test_the_inverse_solves_halls_equation(y, skewness):
    def transformed(t: float) -> float:
        return t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6 - y

    root = scipy.optimize.brentq(transformed, -1e4, 1e4, xtol=1e-12)
    assert means.inverse(y, skewness) == pytest.approx(root, abs=1e-6)


def test_symmetric_scores_have_students_interval():
    x = np.array([-3.0, -1.0, 0.0, 1.0, 3.0]) + 7.0
    expected = scipy.stats.t.interval(0.95, 4, loc=7.0, scale=scipy.stats.sem(x))
    np.testing.assert_allclose(means.interval([x]), expected, rtol=1e-6)


def test_a_long_tail_moves_the_interval_towards_it():
    x = np.array([0.0, 0.0, 0.0, 1.0, 5.0])
    low, high = means.interval([x]) or (0.0, 0.0)
    below, above = scipy.stats.t.interval(0.95, 4, loc=x.mean(), scale=scipy.stats.sem(x))
    assert low > below
    assert high > above
    np.testing.assert_allclose(means.interval([-x]), (-high, -low))


def test_equal_scores_have_a_point_and_one_seed_has_none():
    assert means.interval([[0.1] * 7]) == (0.1, 0.1)
    assert means.interval([[1.0, 2.0], [3.0]]) is None
    assert means.difference([[1.0, 2.0]], [[3.0]]) is None


@pytest.mark.parametrize("size", [4, 10])
@pytest.mark.parametrize(
    "draw, least",
    [(np.random.Generator.standard_normal, 0.93), (np.random.Generator.standard_exponential, 0.92)],
)
def test_the_mean_over_five_tasks_is_covered(draw, least, size):
    """1,500 repetitions: the share has a standard deviation of 0.6%."""
    generator = np.random.default_rng(size)
    truth = float(draw is np.random.Generator.standard_exponential)
    hits = [
        low <= truth <= high
        for low, high in (
            means.interval(draw(generator, (5, size))) or (9.0, 9.0) for _ in range(1500)
        )
    ]
    assert least < np.mean(hits) < 0.975


def test_means_have_these_intervals_in_summaries_and_verdicts():
    x, y = draws(6, 6)
    assert stats.summarise(x.tolist(), statistic=np.mean)["ci95"] == list(means.interval([x]) or ())
    found = means.difference([x], [y])
    assert found is not None
    assert verdicts.between([x], [y], 0.1, np.mean).ci95 == found[0]
