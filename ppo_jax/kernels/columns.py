"""Rows of samples held column by column, as the vector units of a CPU want them.

What is computed of each sample by itself is then a loop over neighbouring numbers, where samples
one after the other have it step over all that is not asked for (benchmarks/README.md). Shapes and
values are what they were: only the order in memory is said.
"""

from __future__ import annotations

import jax
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint

ROW_BY_ROW = Layout((0, 1))
COLUMN_BY_COLUMN = Layout((1, 0))

MANY = 64  # rows from which their order in memory is worth saying


def columns(x: Array) -> Array:
    """x^T [K, rows] of x [rows, K], laid out as such.

    The layout makes of it one transposition, where the transposition would otherwise be done twice;
    the barrier behind it keeps XLA from folding it back into a product, and the one before it from
    computing a cheap activation anew within it, which takes longer (benchmarks/README.md).
    """
    x = jax.lax.optimization_barrier(x)
    return jax.lax.optimization_barrier(with_layout_constraint(x.T, ROW_BY_ROW))


def from_columns(x: Array) -> Array:
    """x^T [rows, K] of x [K, rows], whose numbers stay where they are.

    Nothing is said of few rows, nor of a number of rows that is not known: a program for any number
    of them is made to be stored, and an order in memory cannot be.
    """
    num_columns, num_rows = x.shape
    if num_columns == 1:
        return x.reshape(-1, 1)
    is_said = isinstance(num_rows, int) and num_rows >= MANY
    return with_layout_constraint(x.T, COLUMN_BY_COLUMN) if is_said else x.T
