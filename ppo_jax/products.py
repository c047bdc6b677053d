"""The product of a layer, with a gradient of its weights that a CPU computes quickly."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from jax import Array

LAST_BY_FIRST = (((1,), (0,)), ((), ()))  # x [rows, in] times kernel [in, out]


@jax.custom_batching.custom_vmap
def _as_it_is(x: Array) -> Array:
    """x, which XLA shall not look through; of members side by side it may."""
    return jax.lax.optimization_barrier(x)


@_as_it_is.def_vmap
def _(axis_size: int, in_batched: Any, x: Array) -> tuple[Array, Any]:
    return x, in_batched[0]


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def product(x: Array, kernel: Array, precision: Any) -> Array:
    """x [rows, in] times kernel [in, out], as `jax.lax.dot_general` gives it.

    The gradient of the kernel is x^T g. Both factors have the rows as their first axis there, which
    a CPU's library of products does not take: XLA then falls back to another one that needs twice
    the time for a minibatch. So x is transposed first, and a barrier keeps XLA from folding the
    transposition back into the product. (Not where members stand side by side: measured, the
    transposition then costs more than it brings.) It is a rule for derivatives of any order, as
    TRPO's products with a Hessian ask for.
    """
    return jax.lax.dot_general(x, kernel, LAST_BY_FIRST, precision=precision)


@product.defjvp
def _product_jvp(precision: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, kernel = primals
    dx, dkernel = tangents
    columns = _as_it_is(x.T)
    by_kernel = jax.lax.dot_general(columns, dkernel, (((0,), (0,)), ((), ())), precision=precision)
    return product(x, kernel, precision), product(dx, kernel, precision) + by_kernel


def dot_general(
    x: Array,
    kernel: Array,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
    **kwargs: Any,
) -> Array:
    """As `jax.lax.dot_general`, for `flax.linen.Dense(dot_general=...)`."""
    if jax.default_backend() == "cpu" and x.ndim == 2 and preferred_element_type is None:
        return product(x, kernel, precision)
    return jax.lax.dot_general(
        x, kernel, dimension_numbers, precision, preferred_element_type, **kwargs
    )
