"""Packed rows are restored bit for bit, in any order and with any leading axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.kernels import backend
from ppo_jax.kernels.packing import (
    MAX_WIDTH,
    MetricTable,
    as_row,
    gather_rows,
    pack,
    scan_packed,
)
from ppo_jax.rl.types import Batch, Window


def batch_of(kind: str, width: int = 3) -> Batch:
    rng = np.random.default_rng(1)
    return Batch(
        window=Window(jnp.asarray(rng.integers(2, size=(10, 4, width)), kind)),
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
    """A carry of reals, integers, booleans, keys and a wide leaf; records of other shapes."""
    carry = {
        "position": jnp.linspace(0.0, 1.0, 6).reshape(6, 1),
        "count": jnp.arange(6) - (2**31 - 3),
        "is_odd": jnp.arange(6) % 2 == 1,
        "key": jax.random.split(jax.random.key(0), 6),
        "grid": jnp.ones((6, MAX_WIDTH + 1)),
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
    packed, _ = pack(batch_of("float32", width=MAX_WIDTH))
    assert [leaf.shape for leaf in packed] == [(10, 15), (10, 4, MAX_WIDTH)]


def test_in_double_precision_nothing_loses_a_bit() -> None:
    with jax.enable_x64(True):
        batch = batch_of("float32")._replace(value_target=jnp.linspace(0.0, 1.0, 10))
        assert batch.value_target.dtype == jnp.float64
        packed, unpack = pack(batch)
        assert_equal_bits(unpack(packed), batch)


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_gathered_rows_are_those_of_the_index(form: str) -> None:
    batch, rows = batch_of("float32"), jnp.array([7, 0, 7, 3])
    with backend.use(form):
        found = jax.jit(lambda batch: gather_rows(batch)(rows))(batch)
    assert_equal_bits(found, jax.tree.map(lambda leaf: leaf[rows], batch))


# Tables of metrics --------------------------------------------------------------------------------


def table() -> MetricTable:
    """Two members, three rows, the metrics b, a and c in the order of the program."""
    return MetricTable(jnp.arange(18.0).reshape(2, 3, 3), ("b", "a", "c"))


def test_a_table_of_metrics_is_a_mapping_from_names_to_columns() -> None:
    rows = table()
    assert list(rows) == ["a", "b", "c"]
    assert len(rows) == 3
    np.testing.assert_array_equal(rows["a"], [[1.0, 4.0, 7.0], [10.0, 13.0, 16.0]])
    assert "d" not in rows
    with pytest.raises(KeyError):
        rows["d"]


def test_a_table_of_metrics_is_one_array_to_jax() -> None:
    rows = table()
    assert len(jax.tree.leaves(rows)) == 1
    first = jax.jit(lambda rows: jax.tree.map(lambda leaf: leaf[0], rows))(rows)
    assert isinstance(first, MetricTable)
    assert first.names == rows.names
    np.testing.assert_array_equal(first["c"], [2.0, 5.0, 8.0])


@pytest.mark.parametrize("form", ["plain", "cpu"])
def test_rows_that_leave_a_scan_are_read_by_their_names(form: str) -> None:
    def body(x: Any, _: Any) -> tuple[Any, Any]:
        return x + 1.0, as_row({"value": x, "square": x**2})

    with backend.use(form):
        _, rows = jax.lax.scan(body, jnp.zeros(()), length=4)
        assert isinstance(rows, MetricTable) == (form != "plain")
    np.testing.assert_array_equal(rows["square"], [0.0, 1.0, 4.0, 9.0])
    assert {**rows}.keys() == {"value", "square"}
