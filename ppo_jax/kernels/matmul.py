"""The product of a layer, with a gradient of its weights that a CPU computes quickly.

The gradient of the weights is x^T g: both factors have the rows, hundreds of them, as their first
axis. A CPU's libraries of products take that badly, each in its own way, so it is put differently
here, as one rule for derivatives of any order, which may also be carried forwards, as TRPO does.
A layer of few outputs, as a head, is not given to the library at all (`by_columns`).
On other devices, and for anything but rows times a kernel, a product is `jax.lax.dot_general`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.kernels.backend import is_cpu
from ppo_jax.kernels.columns import columns, from_columns

LAST_BY_FIRST = (((1,), (0,)), ((), ()))  # x [rows, in] times kernel [in, out]
FEW_COLUMNS = 8  # outputs of a layer up to which each has a product of its own


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def product(x: Array, kernel: Array, precision: Any) -> Array:
    """x [rows, in] times kernel [in, out], as `jax.lax.dot_general` gives it.

    In its gradient x is transposed first.
    """
    return jax.lax.dot_general(x, kernel, LAST_BY_FIRST, precision=precision)


@product.defjvp
def _product_jvp(precision: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, kernel = primals
    dx, dkernel = tangents
    by_kernel = jax.lax.dot_general(
        columns(x), dkernel, (((0,), (0,)), ((), ())), precision=precision
    )
    by_x: Any = product(dx, kernel, precision)
    return product(x, kernel, precision), by_x + by_kernel


def by_columns(x: Array, kernel: Array, precision: Any) -> Array:
    """x [rows, in] times kernel [in, few], each output a product of a matrix and a vector.

    Neither it nor its gradient needs a transposition, or a call of the library, which costs more
    than such a product (benchmarks/README.md).
    """
    each = [
        jax.lax.dot_general(x, column, LAST_BY_FIRST, precision=precision) for column in kernel.T
    ]
    return from_columns(jnp.stack(each))


def dot_general(
    x: Array,
    kernel: Array,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
    **kwargs: Any,
) -> Array:
    """As `jax.lax.dot_general`, for `flax.linen.Dense(dot_general=...)`."""
    if is_cpu() and x.ndim == 2 and preferred_element_type is None:
        few = kernel.shape[1] <= FEW_COLUMNS
        return by_columns(x, kernel, precision) if few else product(x, kernel, precision)
    return jax.lax.dot_general(
        x, kernel, dimension_numbers, precision, preferred_element_type, **kwargs
    )
