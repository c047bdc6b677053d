"""Packed rows come back as they were, bit for bit, in any order and with any leading axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.kernels.packing import GROUP, WIDEST, pack, scan_packed, side_by_side
from ppo_jax.rl.types import Batch


def batch_of(kind: str, width: int = 3) -> Batch:
    rng = np.random.default_rng(1)
    return Batch(
        observation=jnp.asarray(rng.integers(2, size=(10, 4, width)), kind),
        action=jnp.asarray(rng.integers(-(2**31), 2**31, size=(10, 2)), jnp.int32),
        log_prob_old=jnp.asarray(rng.normal(size=10), jnp.float32),
        distribution_old=(
            jnp.asarray(rng.normal(size=(10, 5)), jnp.float32),
            {"log_std": jnp.asarray(rng.normal(size=(10, 2, 2)), jnp.float32)},
        ),
        value_old=jnp.asarray([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 1, 2, 3, 4], jnp.float32),
        advantage=jnp.asarray(rng.normal(size=10) > 0.0),
        value_target=jnp.asarray(rng.normal(size=10), jnp.float32),
    )


def assert_equal_bits(found: Any, whole: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("kind", ["float32", "bool", "uint8", "int32"])
def test_a_packed_batch_is_restored_row_by_row(kind: str) -> None:
    batch, rows = batch_of(kind), jnp.array([7, 0, 7, 3])

    def chosen(batch: Batch) -> Batch:
        packed, unpack = pack(batch)
        return unpack(jax.tree.map(lambda leaf: leaf[rows], packed))

    expected = jax.tree.map(lambda leaf: leaf[rows], batch)
    assert_equal_bits(jax.jit(chosen)(batch), expected)


def test_packed_records_of_a_scan_are_restored_with_its_axis_in_front() -> None:
    batch = batch_of("float32")
    restore: list[Any] = []

    def body(shift: Any, _: Any) -> tuple[Any, Any]:
        packed, unpack = pack(jax.tree.map(lambda leaf: jnp.roll(leaf, shift, axis=0), batch))
        restore[:] = [unpack]
        return shift + 1, packed

    _, stacked = jax.lax.scan(body, 0, length=3)
    restored = restore[0](stacked)
    for i in range(3):
        expected = jax.tree.map(lambda leaf, i=i: jnp.roll(leaf, i, axis=0), batch)
        assert_equal_bits(jax.tree.map(lambda leaf, i=i: leaf[i], restored), expected)


@pytest.mark.parametrize("unroll", [1, 4])
def test_a_packed_scan_is_the_scan(unroll: int) -> None:
    """A carry of reals, integers, truth values, keys and a wide leaf; records of other shapes."""
    carry = {
        "position": jnp.linspace(0.0, 1.0, 6).reshape(6, 1),
        "count": jnp.arange(6) - (2**31 - 3),
        "is_odd": jnp.arange(6) % 2 == 1,
        "key": jax.random.split(jax.random.key(0), 6),
        "grid": jnp.ones((6, WIDEST + 1)),
    }

    def body(carry: Any, x: Any) -> tuple[Any, Any]:
        noise = jax.vmap(jax.random.uniform)(carry["key"])
        after = {
            "position": carry["position"] + x * noise[:, None],
            "count": carry["count"] + 1,
            "is_odd": ~carry["is_odd"],
            "key": jax.vmap(lambda key: jax.random.fold_in(key, 1))(carry["key"]),
            "grid": carry["grid"] * 0.5,
        }
        return after, (noise, after["is_odd"], after["count"][:, None])

    xs = jnp.arange(5.0)
    expected = jax.jit(lambda: jax.lax.scan(body, carry, xs))()
    found = jax.jit(lambda: scan_packed(body, carry, xs, unroll=unroll))()
    for tree in (expected, found):
        tree[0]["key"] = jax.random.key_data(tree[0]["key"])
    assert_equal_bits(found, expected)


def test_narrow_leaves_are_one_matrix_and_wide_ones_stay_alone() -> None:
    packed, _ = pack(batch_of("float32"))
    assert [leaf.shape for leaf in packed] == [(10, 12 + 2 + 1 + 5 + 4 + 1 + 1 + 1)]
    packed, _ = pack(batch_of("float32", width=WIDEST))
    assert [leaf.shape for leaf in packed] == [(10, 15), (10, 4, WIDEST)]


def test_in_double_precision_nothing_loses_a_bit() -> None:
    with jax.enable_x64(True):
        batch = batch_of("float32")._replace(value_target=jnp.linspace(0.0, 1.0, 10))
        assert batch.value_target.dtype == jnp.float64
        packed, unpack = pack(batch)
        assert_equal_bits(unpack(packed), batch)


@pytest.mark.parametrize("count", [1, GROUP, GROUP + 1, 3 * GROUP - 1])
def test_numbers_side_by_side_are_stacked_in_their_order(count: int) -> None:
    numbers = jnp.arange(2.0 * count).reshape(2, count) ** 2

    def made(row: jax.Array) -> jax.Array:
        return side_by_side([row[k] for k in range(count)])

    np.testing.assert_array_equal(made(numbers[0]), numbers[0])
    np.testing.assert_array_equal(jax.jit(jax.vmap(made))(numbers), numbers)
