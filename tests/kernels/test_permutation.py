"""Permutations: exact for every size, and random enough for training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from ppo_jax.kernels.permutation import SMALLEST, feistel, mixed, permutations

N = 256
KEYS = jax.random.split(jax.random.key(2024), 2000)


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """2000 permutations of 256 numbers, [2000, 256]."""
    return np.asarray(jax.jit(jax.vmap(lambda key: permutations(key, 1, N)[0]))(KEYS))


@pytest.fixture(scope="module")
def many_walked() -> np.ndarray:
    """2000 permutations of 160 numbers, whose cycles have to be walked, [2000, 160]."""
    return np.asarray(jax.jit(jax.vmap(lambda key: permutations(key, 1, 160)[0]))(KEYS))


@settings(max_examples=6, deadline=None, derandomize=True)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**31 - 1))
@example(n=1, seed=0)
@example(n=SMALLEST - 1, seed=1)
@example(n=SMALLEST, seed=2)
@example(n=SMALLEST + 1, seed=3)
@example(n=1024, seed=4)
@example(n=1025, seed=5)
@example(n=2**17 + 3, seed=6)
def test_every_number_comes_exactly_once(n: int, seed: int) -> None:
    found = np.asarray(permutations(jax.random.key(seed), 1, n)[0])
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.sort(found), np.arange(n))


@pytest.mark.parametrize("num_bits", [1, 2, 7, 8, 13])
def test_a_feistel_network_is_a_bijection_for_any_round_keys(num_bits: int) -> None:
    x = jnp.arange(1 << num_bits, dtype=jnp.uint32)
    for keys in (jnp.zeros(8, jnp.uint32), jnp.arange(8, dtype=jnp.uint32) * jnp.uint32(2**29)):
        found = np.asarray(feistel(x, keys, num_bits))
        np.testing.assert_array_equal(np.sort(found), np.arange(1 << num_bits))


def test_the_hash_is_murmurs_finaliser() -> None:
    """fmix32 in Python's unbounded integers."""

    def fmix32(h: int) -> int:
        h = ((h ^ (h >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
        h = ((h ^ (h >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
        return h ^ (h >> 16)

    numbers = [0, 1, 2, 0x12345678, 0xFFFFFFFF]
    found = np.asarray(mixed(jnp.array(numbers, jnp.uint32)))
    np.testing.assert_array_equal(found, [fmix32(number) for number in numbers])


@pytest.mark.parametrize("name", ["many", "many_walked"])
def test_every_value_is_as_likely_at_every_position(name: str, request) -> None:
    """Chi-square over positions x values in 16 x 16 cells, and position by position."""
    found = request.getfixturevalue(name)
    runs, n = found.shape
    cells = np.zeros((16, 16))
    np.add.at(cells, (np.broadcast_to(np.arange(n) * 16 // n, found.shape), found * 16 // n), 1)
    expected = runs * n / 256
    # Rows and columns have fixed sums: 15 x 15 degrees of freedom; without replacement the
    # variance in a cell is a little smaller, so that the test is conservative.
    p = stats.chi2.sf(((cells - expected) ** 2 / expected).sum(), 15 * 15)
    assert p > 1e-4
    for position in (0, 1, n // 2, n - 1):
        counts = np.bincount(found[:, position], minlength=n)
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("name", ["many", "many_walked"])
@pytest.mark.parametrize("lag", [1, 2, 16, 128])
def test_neighbours_differ_by_every_amount_equally_often(name: str, lag: int, request) -> None:
    found = request.getfixturevalue(name)
    n = found.shape[1]
    difference = (found[:, lag:] - found[:, :-lag]) % n
    counts = np.bincount(difference.ravel(), minlength=n)[1:]  # 0 is impossible
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("name", ["many", "many_walked"])
def test_the_number_of_fixed_points_is_poisson(name: str, request) -> None:
    """A random permutation has 1 on average, variance 1: within 5 standard errors over 2000."""
    found = request.getfixturevalue(name)
    fixed = (found == np.arange(found.shape[1])).sum(axis=1)
    assert abs(fixed.mean() - 1.0) < 5 / np.sqrt(2000)
    assert abs(fixed.var() - 1.0) < 5 * np.sqrt(3 / 2000)  # Var of the variance: (4th - 1) / n = 3


@pytest.mark.parametrize("n", [5, 200, 1000])
def test_equal_keys_give_equal_orders_and_different_keys_different_ones(n: int) -> None:
    f = jax.jit(lambda key: permutations(key, 1, n)[0])
    one, again, other = f(jax.random.key(0)), f(jax.random.key(0)), f(jax.random.key(3))
    np.testing.assert_array_equal(one, again)
    assert np.any(np.asarray(one) != np.asarray(other))


def test_no_two_of_two_thousand_keys_give_the_same_order(many: np.ndarray) -> None:
    assert len(np.unique(many, axis=0)) == len(many)


def test_vmapped_keys_give_what_single_keys_give(many_walked: np.ndarray) -> None:
    """Under vmap the walk continues until the slowest member has ended."""
    single = jax.jit(lambda key: permutations(key, 1, 160)[0])
    for i in range(5):
        np.testing.assert_array_equal(single(KEYS[i]), many_walked[i])
