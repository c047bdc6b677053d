"""Matrix products of a layer, with gradients of the weights that a CPU computes quickly.

The gradient of the weights is x^T g: both factors have hundreds of rows as their first axis. CPU
libraries are slow at that, so the product gets its own derivative rule. It is a forward-mode rule,
so reverse mode and TRPO's `linearize` can both use it. A layer with few outputs, such as a head,
calls no library (`narrow_matmul`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint

from ppo_jax.kernels.backend import is_cpu

LAST_BY_FIRST = (((1,), (0,)), ((), ()))  # x [rows, in] times kernel [in, out]
FEW_COLUMNS = 8  # most outputs of a layer that are computed one by one
MANY_ROWS = 64  # fewest rows for which a layout constraint pays

ROW_MAJOR = Layout((0, 1))
COLUMN_MAJOR = Layout((1, 0))


def to_columns(x: Array) -> Array:
    """x^T [K, rows] of x [rows, K], stored row by row.

    The layout saves one of two transpositions. The barrier after it keeps XLA from
    folding it into a product. The barrier before it keeps XLA from recomputing a cheap activation
    inside it, which takes longer (docs/lab-notebook.md).
    """
    x = jax.lax.optimization_barrier(x)
    return jax.lax.optimization_barrier(with_layout_constraint(x.T, ROW_MAJOR))


def from_columns(x: Array) -> Array:
    """x^T [rows, K] of x [K, rows], without moving the numbers in memory.

    No layout is set for fewer than 64 rows, or for a symbolic number of rows: a stored program
    cannot hold a layout.
    """
    num_columns, num_rows = x.shape
    if num_columns == 1:
        return x.reshape(-1, 1)
    has_layout = isinstance(num_rows, int) and num_rows >= MANY_ROWS
    return with_layout_constraint(x.T, COLUMN_MAJOR) if has_layout else x.T


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def tall_matmul(x: Array, kernel: Array, precision: Any) -> Array:
    """x [rows, in] times kernel [in, out], as `jax.lax.dot_general` computes it.

    Its gradient transposes x first.
    """
    return jax.lax.dot_general(x, kernel, LAST_BY_FIRST, precision=precision)


@tall_matmul.defjvp
def _tall_matmul_jvp(precision: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, kernel = primals
    dx, dkernel = tangents
    by_kernel = jax.lax.dot_general(
        to_columns(x), dkernel, (((0,), (0,)), ((), ())), precision=precision
    )
    by_x: Any = tall_matmul(dx, kernel, precision)
    return tall_matmul(x, kernel, precision), by_x + by_kernel


def narrow_matmul(x: Array, kernel: Array, precision: Any) -> Array:
    """x [rows, in] times kernel [in, few], each output by a matrix-vector product.

    Neither it nor its gradient needs a transposition or a library call, which costs more than the
    product itself (docs/lab-notebook.md).
    """
    outputs = [
        jax.lax.dot_general(x, column, LAST_BY_FIRST, precision=precision) for column in kernel.T
    ]
    return from_columns(jnp.stack(outputs))


def dot_general(
    x: Array,
    kernel: Array,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
    **kwargs: Any,
) -> Array:
    """`jax.lax.dot_general`, for `flax.linen.Dense(dot_general=...)`."""
    if is_cpu() and x.ndim == 2 and preferred_element_type is None:
        is_narrow = kernel.shape[1] <= FEW_COLUMNS
        matmul = narrow_matmul if is_narrow else tall_matmul
        return matmul(x, kernel, precision)
    return jax.lax.dot_general(
        x, kernel, dimension_numbers, precision, preferred_element_type, **kwargs
    )
