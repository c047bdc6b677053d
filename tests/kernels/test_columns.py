"""Rows held column by column: the same numbers, another order in memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import jit

from ppo_jax.kernels.columns import columns, from_columns

ROWS = 96


@pytest.fixture(params=[1, 2, 7], ids="{} columns".format)
def rows(request):
    return jax.random.normal(jax.random.key(0), (ROWS, request.param))


def there_and_back(x):
    return from_columns(columns(x))


def test_columns_are_the_transpose(rows):
    np.testing.assert_array_equal(jit(columns)(rows), rows.T)


def test_there_and_back_every_number_is_in_its_place(rows):
    np.testing.assert_array_equal(jit(there_and_back)(rows), rows)


def test_members_side_by_side_keep_their_own(rows):
    members = jnp.stack([rows, -rows, 3.0 * rows])
    np.testing.assert_array_equal(jit(jax.vmap(there_and_back))(members), members)


def test_a_gradient_comes_back_the_same_way(rows):
    weights = jnp.arange(rows.size, dtype=rows.dtype).reshape(rows.shape)
    gradient = jit(jax.grad(lambda x: jnp.sum(weights * there_and_back(x))))(rows)
    np.testing.assert_array_equal(gradient, weights)


def test_a_program_for_any_number_of_rows_can_be_stored():
    rows = jax.export.symbolic_shape("rows")[0]
    shape = jax.ShapeDtypeStruct((3, rows), jnp.float32)
    exported = jax.export.export(jax.jit(from_columns))(shape)
    stored = jax.export.deserialize(exported.serialize())
    x = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(stored.call(x), x.T)
