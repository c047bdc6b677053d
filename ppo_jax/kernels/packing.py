"""Narrow arrays side by side in one matrix, so that one operation moves a row of them all.

A step of a rollout hands on ten small arrays and leaves seven behind; a minibatch gathers as many.
Moved one by one each is a kernel of its own, whose start costs more than its work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.kernels.backend import is_cpu
from ppo_jax.kernels.columns import columns, from_columns

PyTree = Any

GROUP = 8  # numbers that one kernel of a CPU makes side by side

WIDEST = 64  # columns of a leaf that is still packed; a wider one, a grid, is worth its own kernel

Packed = tuple[PyTree, ...]


def pack(tree: PyTree) -> tuple[Packed, Callable[[Packed], PyTree]]:
    """The leaves [N, ...] of `tree` as one matrix [N, K] and the leaves that do not fit into it.

    Truth values become 0 and 1, and 32-bit integers keep their bits, so nothing is lost.

    Returns:
        the packed leaves, each with the leading axis N, and the function that restores a tree of
        them; it takes any leading axes, as after a gather of rows or a scan.
    """
    leaves, treedef = jax.tree.flatten(tree)
    real = jnp.result_type(float)
    shapes = [leaf.shape[1:] for leaf in leaves]
    dtypes = [leaf.dtype for leaf in leaves]
    widths = [int(np.prod(shape)) for shape in shapes]
    fits = [
        width <= WIDEST and (dtype in (real, jnp.bool_) or _has_bits(dtype, real))
        for width, dtype in zip(widths, dtypes, strict=True)
    ]
    parts = [
        _to_real(leaf, real).reshape(leaf.shape[0], -1)
        for leaf, fit in zip(leaves, fits, strict=True)
        if fit
    ]
    bounds = list(accumulate(part.shape[1] for part in parts))[:-1]

    def unpack(packed: Packed) -> PyTree:
        matrix, *others = packed
        if is_cpu() and matrix.ndim == 2:
            narrow = map(from_columns, jnp.split(columns(matrix), bounds))
        else:
            narrow = iter(jnp.split(matrix, bounds, axis=-1))
        wide = iter(others)
        restored = [
            _from_real(next(narrow).reshape(*matrix.shape[:-1], *shape), dtype)
            if fit
            else next(wide)
            for fit, shape, dtype in zip(fits, shapes, dtypes, strict=True)
        ]
        return jax.tree.unflatten(treedef, restored)

    others = [leaf for leaf, fit in zip(leaves, fits, strict=True) if not fit]
    return (jnp.concatenate(parts, axis=1), *others), unpack


def scan_packed(
    body: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    carry: PyTree,
    xs: PyTree,
    unroll: int = 1,
) -> tuple[PyTree, PyTree]:
    """As `jax.lax.scan`, with the carry and every record packed while it runs.

    All leaves of the carry and of the records have a leading axis of rows.
    """
    packed, restore = pack(carry)
    restore_records: list[Callable[[Packed], PyTree]] = []  # known once the body was traced

    def packed_body(packed: Packed, x: PyTree) -> tuple[Packed, Packed]:
        carry, record = body(restore(packed), x)
        rows, restore_record = pack(record)
        restore_records[:] = [restore_record]
        return pack(carry)[0], rows

    packed, records = jax.lax.scan(packed_body, packed, xs, unroll=unroll)
    return restore(packed), restore_records[0](records)


def side_by_side(numbers: Sequence[Array]) -> Array:
    """Numbers [] as one vector [K], as `jnp.stack` makes it.

    For a CPU, XLA makes each of many numbers by a kernel of its own, and groups of a few by one.
    """
    if not is_cpu():
        return jnp.stack(numbers)
    groups = [jnp.stack(numbers[i : i + GROUP]) for i in range(0, len(numbers), GROUP)]
    return jnp.concatenate(jax.lax.optimization_barrier(groups))


def _has_bits(dtype: jnp.dtype, real: jnp.dtype) -> bool:
    """Whether an integer's bits can stand in a real number's place."""
    return jnp.issubdtype(dtype, jnp.integer) and dtype.itemsize == real.itemsize


def _to_real(leaf: Array, real: jnp.dtype) -> Array:
    if leaf.dtype == jnp.bool_ or leaf.dtype == real:
        return leaf.astype(real)
    return jax.lax.bitcast_convert_type(leaf, real)


def _from_real(leaf: Array, dtype: jnp.dtype) -> Array:
    if dtype == jnp.bool_ or dtype == leaf.dtype:
        return leaf.astype(dtype)
    return jax.lax.bitcast_convert_type(leaf, dtype)
