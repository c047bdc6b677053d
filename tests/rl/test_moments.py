"""Moments against float64 NumPy over the concatenation of all merged samples."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import shown

from ppo_jax.kernels.collectives import ALONE, Across
from ppo_jax.rl import moments
from ppo_jax.rl.types import Moments


def nothing_of(*shape: int) -> Moments:
    return moments.init(shown(*shape))


def of(x) -> Moments:
    return moments.from_batch(jnp.asarray(x))


def assert_moments_of(found: Moments, x: np.ndarray, rtol: float = 1e-5) -> None:
    x = np.asarray(x, np.float64)
    assert float(found.count) == len(x)
    spread = x.std(axis=0)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-6, atol=rtol * spread.max())
    np.testing.assert_allclose(moments.variance(found), x.var(axis=0), rtol=rtol)


def assert_same_bits(a: Moments, b: Moments) -> None:
    for name, left, right in zip(Moments._fields, a, b, strict=True):
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes(), name


def test_moments_of_a_hand_computed_batch():
    found = of([[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]])
    np.testing.assert_array_equal(found.mean, [3.0, 0.0])
    np.testing.assert_array_equal(found.m2, [14.0, 0.0])  # 4 + 1 + 9
    np.testing.assert_allclose(moments.variance(found), [14 / 3, 0.0])


@pytest.mark.parametrize("cuts", [(), (1,), (500,), (999,), (1, 2, 3), (10, 400, 401, 950)])
def test_merging_any_chunking_gives_the_moments_of_the_concatenation(cuts):
    x = np.random.default_rng(0).normal([3.0, -2.0], [0.1, 50.0], (1000, 2)).astype(np.float32)
    chunks = [of(chunk) for chunk in np.split(x, cuts)]
    assert_moments_of(functools.reduce(moments.merge, chunks, nothing_of(2)), x)


def test_many_small_merges_do_not_drift():
    x = np.random.default_rng(1).normal(5.0, 2.0, (20_000, 3)).astype(np.float32)

    def step(running, chunk):
        return moments.merge(running, moments.from_batch(chunk)), None

    merged, _ = jax.jit(jax.lax.scan, static_argnums=0)(
        step, nothing_of(3), jnp.asarray(x).reshape(2000, 10, 3)
    )
    assert_moments_of(merged, x, rtol=1e-4)


def test_merge_is_associative_and_commutative():
    rng = np.random.default_rng(2)
    a, b, c = (of(rng.normal(mean, 1 + mean, (n, 4))) for mean, n in ((0, 7), (5, 300), (9, 40)))
    left = moments.merge(moments.merge(a, b), c)
    for other in (moments.merge(a, moments.merge(b, c)), moments.merge(moments.merge(c, a), b)):
        for x, y in zip(left, other, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5)


def test_a_mean_ten_thousand_times_the_spread_keeps_its_variance():
    x = (1e4 + np.random.default_rng(3).normal(size=(100_000, 2))).astype(np.float32)
    assert_moments_of(of(x), x, rtol=1e-3)
    chunks = [of(chunk) for chunk in np.split(x, 100)]
    assert_moments_of(functools.reduce(moments.merge, chunks), x, rtol=1e-2)


@pytest.mark.parametrize("value", [0.1, 1e7, -3.3e-5])
def test_a_constant_column_has_exactly_no_variance(value):
    x = np.full((1234, 1), value, np.float32)
    merged = functools.reduce(moments.merge, [of(chunk) for chunk in np.split(x, (5, 600))])
    assert float(of(x).m2[0]) == 0.0 == float(merged.m2[0])
    assert merged.mean[0] == x[0, 0]


def test_merging_with_nothing_changes_no_bit():
    something = of(np.random.default_rng(4).normal(1e3, 7.0, (33, 5)))
    nothing = nothing_of(5)
    assert_same_bits(moments.merge(nothing, something), something)
    assert_same_bits(moments.merge(something, nothing), something)
    assert_same_bits(moments.merge(nothing, nothing), nothing)


def test_before_the_first_sample_standardising_changes_no_bit():
    x = jnp.asarray(np.random.default_rng(5).normal(size=(6, 3)), jnp.float32)
    np.testing.assert_array_equal(moments.standardise(nothing_of(3), x), x)
    np.testing.assert_array_equal(moments.scale(nothing_of(3), x), x)
    np.testing.assert_array_equal(moments.variance(nothing_of(3)), np.ones(3))


def full_history(count: float, mean: float, variance: float) -> Moments:
    return Moments(jnp.float32(count), jnp.full((1,), mean), jnp.full((1,), variance * count))


def test_the_count_grows_past_the_exact_integers_of_float32():
    batch = full_history(1e6, 3.0, 1.0)
    merged = moments.merge(full_history(2.0**24 * 20, 1.0, 1.0), batch)
    expected_count = 2**24 * 20 + 1e6
    weight = 1e6 / expected_count
    np.testing.assert_allclose(merged.count, expected_count, rtol=1e-7)
    np.testing.assert_allclose(merged.mean, 1.0 + 2.0 * weight, rtol=1e-6)
    expected_variance = 1.0 + 4.0 * weight * (1 - weight)
    np.testing.assert_allclose(moments.variance(merged), expected_variance, rtol=1e-6)


def test_past_the_largest_count_the_moments_are_an_exponential_window():
    batch = full_history(1e6, 3.0, 4.0)
    running = moments.merge(full_history(1e10, -50.0, 9.0), nothing_of(1))
    np.testing.assert_allclose(moments.variance(running), 9.0, rtol=1e-6)
    assert float(running.count) == moments.MAX_COUNT

    def step(running, _):
        running = moments.merge(running, batch)
        return running, running.mean[0]

    running, mean = jax.jit(lambda state: jax.lax.scan(step, state, length=20_000))(running)
    kept = moments.MAX_COUNT / (moments.MAX_COUNT + 1e6)
    expected = 3.0 - 53.0 * kept ** np.arange(1, 20_001, dtype=np.float64)
    np.testing.assert_allclose(mean, expected, atol=0.01)
    np.testing.assert_allclose(moments.variance(running), 4.0, rtol=1e-2)  # old data are forgotten
    assert float(running.count) == moments.MAX_COUNT


def test_a_small_batch_still_moves_a_full_count():
    full = full_history(moments.MAX_COUNT, 0.0, 1.0)
    moved = moments.merge(full, full_history(128, 1.0, 1.0))
    np.testing.assert_allclose(moved.mean, 128 / (2**30 + 128), rtol=1e-5)


def test_all_reduce_over_an_axis_equals_the_whole_batch():
    x = np.random.default_rng(6).normal(100.0, 3.0, (8, 50, 2)).astype(np.float32)

    def member(chunk):
        return moments.all_reduce(moments.from_batch(chunk), Across(("devices",)))

    reduced = jax.vmap(member, axis_name="devices")(jnp.asarray(x))
    for device in range(8):
        assert_moments_of(jax.tree.map(lambda leaf: leaf[device], reduced), x.reshape(-1, 2))  # noqa: B023


def test_all_reduce_weighs_members_by_their_counts_and_ignores_empty_ones():
    parts = [of([[0.0]]), of([[6.0], [6.0], [6.0]]), nothing_of(1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    over_devices = jax.vmap(
        lambda part: moments.all_reduce(part, Across(("devices",))), axis_name="devices"
    )
    reduced = over_devices(stacked)
    np.testing.assert_array_equal(reduced.count, [4, 4, 4])
    np.testing.assert_allclose(reduced.mean[:, 0], [4.5] * 3)
    np.testing.assert_allclose(reduced.m2[:, 0], [27.0] * 3)  # 4.5^2 + 3 * 1.5^2
    empty = jax.tree.map(lambda leaf: leaf[None], nothing_of(1))
    nothing = over_devices(empty)
    assert_same_bits(jax.tree.map(lambda leaf: leaf[0], nothing), nothing_of(1))


def test_all_reduce_without_an_axis_is_the_identity():
    something = of([[1.0], [2.0]])
    assert moments.all_reduce(something, ALONE) is something


def test_standardised_samples_have_mean_zero_and_variance_one():
    x = np.random.default_rng(7).normal([1e3, -4.0], [2.0, 0.01], (5, 1000, 2)).astype(np.float32)
    z = np.asarray(moments.standardise(of(x.reshape(-1, 2)), jnp.asarray(x)), np.float64)
    np.testing.assert_allclose(z.mean((0, 1)), 0.0, atol=1e-3)
    np.testing.assert_allclose(z.var((0, 1)), 1.0, rtol=1e-3)


def test_standardise_and_scale_clip_and_only_standardise_centres():
    unit = Moments(jnp.float32(4.0), jnp.full((1,), 2.0), jnp.full((1,), 16.0))  # std 2
    x = jnp.asarray([[4.0], [-1e6], [1e6]])
    np.testing.assert_allclose(moments.standardise(unit, x)[:, 0], [1.0, -10.0, 10.0])
    np.testing.assert_allclose(moments.scale(unit, x)[:, 0], [2.0, -10.0, 10.0])
    np.testing.assert_allclose(moments.scale(unit, x, clip=1.5)[:, 0], [1.5, -1.5, 1.5])


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.int32])
def test_whole_numbers_are_cast_before_they_are_summed(dtype):
    x = np.random.default_rng(8).integers(0, 2 if dtype is bool else 256, (999, 2, 3)).astype(dtype)
    found = of(x)
    assert_moments_of(found, x)
    assert {leaf.dtype for leaf in found} == {jnp.dtype("float32")}
    assert moments.standardise(found, jnp.asarray(x)).dtype == jnp.float32


def test_discounted_returns_equal_the_recursion_written_as_a_loop():
    rng = np.random.default_rng(9)
    reward, ended = rng.normal(size=(40, 3)), rng.random((40, 3)) < 0.2
    gamma, running, expected = 0.9, np.array([1.0, -2.0, 0.5]), []
    first = running.copy()
    for t in range(40):
        running = gamma * running + reward[t]
        expected.append(running.copy())
        running[ended[t]] = 0.0
    carry, found = moments.discounted_returns(
        jnp.asarray(first, jnp.float32),
        jnp.asarray(reward, jnp.float32),
        jnp.asarray(ended),
        gamma,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(carry, running, rtol=1e-5, atol=1e-5)


def test_discounted_returns_may_be_cut_anywhere():
    rng = np.random.default_rng(10)
    reward = jnp.asarray(rng.normal(size=(20, 2)), jnp.float32)
    ended = jnp.asarray(rng.random((20, 2)) < 0.3)
    start = jnp.zeros(2)
    whole_carry, whole = moments.discounted_returns(start, reward, ended, 0.99)
    carry, first = moments.discounted_returns(start, reward[:7], ended[:7], 0.99)
    carry, second = moments.discounted_returns(carry, reward[7:], ended[7:], 0.99)
    np.testing.assert_array_equal(jnp.concatenate([first, second]), whole)
    np.testing.assert_array_equal(carry, whole_carry)


def test_a_return_does_not_cross_the_end_of_an_episode():
    ended = jnp.asarray([[False], [True], [False]])
    _, found = moments.discounted_returns(jnp.zeros(1), jnp.ones((3, 1)), ended, 0.5)
    np.testing.assert_allclose(found[:, 0], [1.0, 1.5, 1.0])


def test_the_moments_of_one_part_are_its_own_bit_for_bit() -> None:
    part = moments.from_batch(jax.random.normal(jax.random.key(0), (7, 3)) + 100.0)
    together = moments.combined(jax.tree.map(lambda leaf: leaf[None], part))
    jax.tree.map(np.testing.assert_array_equal, together, part)


# Trees of observations ----------------------------------------------------------------------------


def seen(seed: int) -> dict[str, np.ndarray]:
    """Fifty observations of three leaves; only the real-valued ones have moments."""
    rng = np.random.default_rng(seed)
    return {
        "position": rng.normal(5.0, 2.0, (50, 3)).astype(np.float32),
        "board": rng.integers(0, 9, (50, 2, 2)).astype(np.int32),
        "action_mask": rng.random((50, 4)) < 0.5,
    }


def test_real_leaves_of_a_tree_are_standardised_one_by_one_and_others_stay_as_they_are() -> None:
    spec = {name: shown(*leaf.shape[1:], dtype=leaf.dtype) for name, leaf in seen(0).items()}
    batches = [jax.tree.map(jnp.asarray, seen(seed)) for seed in (0, 1)]
    found = functools.reduce(moments.merge, map(moments.from_batch, batches), moments.init(spec))
    both = np.concatenate([batch["position"] for batch in batches])
    assert_moments_of(Moments(found.count, found.mean["position"], found.m2["position"]), both)
    clean = moments.standardise(found, batches[0])
    expected = (seen(0)["position"] - both.mean(0)) / both.std(0)
    np.testing.assert_allclose(clean["position"], expected, rtol=1e-4, atol=1e-5)
    for name in ("board", "action_mask"):
        assert clean[name] is batches[0][name]


def test_a_single_leaf_of_integers_is_standardised() -> None:
    """Bytes of a grid are numbers, and are standardised if configured."""
    x = np.arange(12, dtype=np.uint8).reshape(6, 2)
    found = moments.merge(moments.init(shown(2, dtype="uint8")), of(x))
    clean = np.asarray(moments.standardise(found, jnp.asarray(x)))
    np.testing.assert_allclose(clean.mean(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(clean.std(0), 1.0, rtol=1e-5)
