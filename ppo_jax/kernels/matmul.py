"""Matrix products of a layer, with gradients of the weights that a CPU computes quickly.

The gradient of the weights is x^T g: both factors have hundreds of rows as their first axis. CPU
libraries are slow at that, so the product gets its own derivative rule. It is a forward-mode rule,
so reverse mode and TRPO's `linearize` can both use it. A layer with few outputs, such as a head,
calls no library (`narrow_matmul`).
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint

from ppo_jax.kernels.backend import is_accelerator, is_cpu

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


@jax.custom_jvp
def few_inputs(x: Array, kernel: Array) -> Array:
    """x [..., few] times kernel [few, out] as a sum of outer products.

    XLA fuses it with the activation that follows. A library's product would write its result for
    the activation to read again. The gradient of the kernel is one sum over the rows.
    """
    terms = [x[..., i, None] * lifted(kernel[i], x.ndim) for i in range(kernel.shape[0])]
    return reduce(jnp.add, terms)


def _few_inputs_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    terms = [] if is_zero(dx) else [few_inputs(dx, kernel)]
    terms += (
        []
        if is_zero(dkernel)
        else [jnp.sum(row_major(x[..., None] * lifted(dkernel, x.ndim + 1)), axis=-2)]
    )
    return few_inputs(x, kernel), reduce(jnp.add, terms)


few_inputs.defjvp(_few_inputs_jvp, symbolic_zeros=True)


def few_outputs(x: Array, kernel: Array) -> Array:
    """x [..., in] times kernel [in, few] as a sum over a row for each output.

    The gradient by x is a sum of outer products, which XLA fuses with the activation's derivative.
    """
    return jnp.sum(row_major(x[..., None, :] * lifted(kernel.T, x.ndim + 1)), axis=-1)


def lifted(x: Array, rank: int) -> Array:
    """`x` with leading axes of 1 up to a rank."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


def row_major(x: Array) -> Array:
    """Return `x`, stored row by row. Otherwise XLA may transpose what it is computed from.

    No layout is set for few rows, or for a symbolic number of rows, as in `from_columns`.
    """
    if not (isinstance(x.shape[0], int) and x.shape[0] >= MANY_ROWS):
        return x
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


def is_zero(tangent: Any) -> bool:
    """Check that a tangent is known to be 0."""
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return written_tanh(x) if is_accelerator() else jnp.tanh(x)


@jax.custom_jvp
def written_tanh(x: Array) -> Array:
    """Hyperbolic tangent whose value is written once, and from which its derivative is made.

    Otherwise XLA writes what it derives from, too, or computes the value anew in each reader.
    """
    return jax.lax.optimization_barrier(jnp.tanh(x))


@written_tanh.defjvp
def _written_tanh_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    y: Any = written_tanh(primals[0])
    return y, tangents[0] * (1.0 - y * y)


def affine(x: Array, kernel: Array, bias: Array, precision: Any = None) -> Array:
    """x [..., in] times kernel [in, out], plus bias [out]."""
    few = kernel.shape[0] < FEW_COLUMNS and is_accelerator()
    if few and x.dtype == jnp.result_type(float):
        # With the bias as one more row of the kernel, one sum gives the gradients of both.
        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        return few_inputs(x, jnp.concatenate([kernel, bias[None]]))
    y = dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), precision)
    return y + lifted(bias, y.ndim)


def convolution(x: Array, kernel: Array, bias: Array, precision: Any = None) -> Array:
    """x [..., H, W, C] convolved with kernel [h, w, C, F] without padding, plus bias [F].

    An accelerator multiplies patches by the kernel. A library's convolution is part of no CUDA
    graph. Patches keep the dtype of x, so those of booleans are a quarter of those of float32.
    """
    if not is_accelerator():
        y = jax.lax.conv_general_dilated(
            x.astype(kernel.dtype).reshape(-1, *x.shape[-3:]),
            kernel,
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=precision,
        )
        y = y.reshape(*x.shape[:-3], *y.shape[1:])
        return y + lifted(bias, y.ndim)
    rows = jax.lax.optimization_barrier(patches(x, kernel.shape[:2]))
    # With the bias as one more row of the kernel, one product gives the gradients of both.
    weights = jnp.concatenate([kernel.reshape(-1, kernel.shape[-1]), bias[None]])
    y = jax.lax.dot_general(
        rows.astype(kernel.dtype).reshape(-1, rows.shape[-1]),
        weights,
        LAST_BY_FIRST,
        precision=precision,
    )
    return y.reshape(*rows.shape[:-1], -1)


def patches(x: Array, size: tuple[int, ...]) -> Array:
    """The windows of x [..., H, W, C] and a one: [..., H - h + 1, W - w + 1, h w C + 1]."""
    high, wide = (n - s + 1 for n, s in zip(x.shape[-3:-1], size, strict=True))
    parts = [x[..., i : i + high, j : j + wide, :] for i in range(size[0]) for j in range(size[1])]
    return jnp.concatenate([*parts, jnp.ones_like(parts[0][..., :1])], axis=-1)


def dot_general(
    x: Array,
    kernel: Array,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
    **kwargs: Any,
) -> Array:
    """`jax.lax.dot_general`, for `flax.linen.Dense(dot_general=...)`.

    Args:
        x: [..., in]. kernel: [in, out].
        dimension_numbers: those of x's last axis by the kernel's first; tuned forms take no others.

    Returns:
        [..., out].
    """
    if is_cpu() and x.ndim == 2 and preferred_element_type is None:
        is_narrow = kernel.shape[1] <= FEW_COLUMNS
        matmul = narrow_matmul if is_narrow else tall_matmul
        return matmul(x, kernel, precision)
    if is_accelerator() and kernel.shape[1] <= FEW_COLUMNS and x.dtype == jnp.result_type(float):
        return few_outputs(x, kernel)
    return jax.lax.dot_general(
        x, kernel, dimension_numbers, precision, preferred_element_type, **kwargs
    )
