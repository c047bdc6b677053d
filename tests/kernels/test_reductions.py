"""Small sums, maxima and means against numpy, and their gradients against jax's own."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from ppo_jax.kernels import backend, reductions
from ppo_jax.kernels.reductions import GROUP, MAX_UNROLLED

WIDTHS = (1, 2, MAX_UNROLLED, MAX_UNROLLED + 1)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("width", WIDTHS)
def test_sum_and_maximum_of_the_last_axis_are_numpys(width):
    x = normal(5, 3, width)
    total = np.asarray(x, np.float64).sum(-1)
    np.testing.assert_allclose(reductions.sum_last(x), total, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(reductions.max_last(x), np.asarray(x).max(-1))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_gradient_of_a_sum_is_one_everywhere_in_both_modes_and_orders(width):
    x = normal(4, width)
    np.testing.assert_array_equal(jax.grad(lambda x: reductions.sum_last(x).sum())(x), 1.0)
    f = lambda x: jnp.sum(jnp.tanh(reductions.sum_last(x * x)))  # noqa: E731
    jax.test_util.check_grads(f, (x,), order=2, modes=("fwd", "rev"), atol=0.1, rtol=0.1)


def test_a_clamp_is_numpys_clip_and_has_no_gradient_at_its_bounds_and_beyond():
    x = jnp.array([-3.0, -1.0, 0.25, 2.0, 5.0])
    np.testing.assert_array_equal(reductions.clamp(x, -1.0, 2.0), np.clip(x, -1.0, 2.0))
    slope = jax.vmap(jax.grad(partial(reductions.clamp, low=-1.0, high=2.0)))(x)
    np.testing.assert_array_equal(slope, [0.0, 0.0, 1.0, 0.0, 0.0])
    whole = reductions.clamp(x, -np.inf, np.inf)
    np.testing.assert_array_equal(whole, x)


def test_a_clamp_takes_a_bound_for_each_element_and_double_precision():
    x = jnp.array([-3.0, 0.5, 5.0])
    found = jax.vmap(reductions.clamp)(x, jnp.array([-1.0, 0.0, 0.0]), jnp.array([0.0, 0.2, 9.0]))
    np.testing.assert_allclose(found, [-1.0, 0.2, 5.0])
    with jax.enable_x64(True):
        assert reductions.clamp(jnp.float64(0.1), -20.0, 20.0) == np.float64(0.1)


@pytest.mark.parametrize("form", ["plain", "cpu"])
def test_means_of_named_vectors_keep_their_names(form):
    x = normal(2, 7)
    with backend.use(form):
        found = reductions.mean_of_each({"b": x[0], "a": x[1]})
        alone = reductions.mean(x[1])
    assert set(found) == {"a", "b"}
    np.testing.assert_allclose([found["b"], found["a"]], np.mean(x, axis=1), rtol=1e-5)
    assert alone == found["a"]  # equal rounding


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_weighted_sums_are_numpys(form):
    values, weight = normal(3, 4, 5), normal(4, 5)
    with backend.use(form):
        found = reductions.weighted_sums(list(values), weight)
    expected = (np.float64(values) * np.float64(weight)).sum((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


class Line(NamedTuple):
    start: Any
    slope: Any


@pytest.mark.parametrize("form", ["plain", "cpu"])
def test_a_function_of_many_trees_of_scalars_is_taken_of_each(form):
    """Python numbers and arrays together, as in `Hyper`."""
    trees = [Line(1.0, 2.0), Line(jnp.float32(0.5), -1), Line(np.float32(-3.0), 0.0)]
    with backend.use(form):
        found = reductions.map_scalars(lambda line: line.start + 10.0 * line.slope, trees)
    np.testing.assert_allclose(found, [21.0, -9.5, -3.0])
    assert all(jnp.ndim(value) == 0 for value in found)


@pytest.mark.parametrize("count", [1, GROUP, GROUP + 1, 3 * GROUP - 1])
@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_scalars_are_stacked_in_their_order(count, form):
    numbers = jnp.arange(2.0 * count).reshape(2, count) ** 2

    def stacked(row: jax.Array) -> jax.Array:
        return reductions.stack_scalars([row[k] for k in range(count)])

    with backend.use(form):
        np.testing.assert_array_equal(stacked(numbers[0]), numbers[0])
        np.testing.assert_array_equal(jax.jit(jax.vmap(stacked))(numbers), numbers)


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
@pytest.mark.parametrize("bad", [None, np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found_in_any_leaf(bad, form):
    tree = {"a": jnp.full((2, 3), 3e38), "b": (jnp.zeros(4), jnp.arange(3), jnp.zeros(()))}
    if bad is not None:
        tree["b"] = (tree["b"][0].at[2].set(bad), *tree["b"][1:])
    with backend.use(form):
        assert bool(reductions.all_finite(tree)) == (bad is None)
