"""Narrow arrays packed into one matrix, so that one operation moves a row of all of them.

A step of a rollout carries ten small arrays and records seven; a minibatch gathers as many. Moving
each array separately takes one kernel each, whose launch costs more than its work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.kernels.backend import Backend, current, is_accelerator, is_cpu
from ppo_jax.kernels.matmul import from_columns, to_columns

PyTree = Any

MAX_WIDTH = 64  # columns of a packed leaf; a wider one, such as a grid, is worth its own kernel
UNROLLED_STEPS = 4  # steps of a scan on an accelerator: a loop adds two kernels to each turn
LOOK_EVERY = 16  # passes of a loop of unknown length between two looks at its condition
MAX_UNROLLED = 8  # turns of an outer loop; more would take long to compile

Packed = tuple[PyTree, ...]


def pack(tree: PyTree) -> tuple[Packed, Callable[[Packed], PyTree]]:
    """The leaves [N, ...] of `tree` as one matrix [N, K] and the leaves that do not fit into it.

    Booleans become 0 and 1, and 32-bit integers keep their bits, so no information is lost.

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
        width <= MAX_WIDTH and (dtype in (real, jnp.bool_) or _has_bits(dtype, real))
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
            narrow = map(from_columns, jnp.split(to_columns(matrix), bounds))
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


def gather_rows(batch: PyTree) -> Callable[[Array], PyTree]:
    """`take(index)`: the rows [N, ...] of `batch` at `index` [M]."""
    if current() is Backend.PLAIN:
        return lambda index: jax.tree.map(lambda leaf: leaf[index], batch)
    packed, unpack = pack(batch)
    return lambda index: unpack(jax.tree.map(lambda leaf: leaf[index], packed))


Body = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


def scan_rows(body: Body, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` whose carry and records have a leading axis of rows on every leaf.

    An accelerator carries them packed, because every kernel launch of a step costs time.
    """
    if not is_accelerator():
        return jax.lax.scan(body, carry, xs)
    return scan_packed(body, carry, xs, UNROLLED_STEPS)


def scan_packed(body: Body, carry: PyTree, xs: PyTree, unroll: int = 1) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` with the carry and every record packed while it runs."""
    packed, restore = pack(carry)
    restore_records: list[Callable[[Packed], PyTree]] = []  # known once the body was traced

    def packed_body(packed: Packed, x: PyTree) -> tuple[Packed, Packed]:
        carry, record = body(restore(packed), x)
        rows, restore_record = pack(record)
        restore_records[:] = [restore_record]
        return pack(carry)[0], rows

    packed, records = jax.lax.scan(packed_body, packed, xs, unroll=unroll)
    return restore(packed), restore_records[0](records)


def scan_outer(body: Body, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` of a body that contains a loop.

    A nested loop keeps an accelerator's iteration from being one graph, so a short outer loop is
    unrolled there.
    """
    length = jax.tree.leaves(xs)[0].shape[0]
    is_flat = is_accelerator() and length <= MAX_UNROLLED
    return jax.lax.scan(body, carry, xs, unroll=is_flat)


def while_running(
    is_running: Callable[[PyTree], Array], advance: Callable[[PyTree], PyTree], start: PyTree
) -> PyTree:
    """`jax.lax.while_loop`. An accelerator looks at the condition once in LOOK_EVERY passes.

    Each look may wait for the host. Passes after the end are computed and dropped.
    """
    if not is_accelerator():
        return jax.lax.while_loop(is_running, advance, start)

    def guarded(_: Array, loop: PyTree) -> PyTree:
        runs = is_running(loop)
        return jax.tree.map(lambda new, old: jnp.where(runs, new, old), advance(loop), loop)

    return jax.lax.while_loop(
        is_running, lambda loop: jax.lax.fori_loop(0, LOOK_EVERY, guarded, loop), start
    )


def as_row(metrics: Mapping[str, Array]) -> Mapping[str, Array]:
    """Named scalars as one row of a `MetricTable`, which leaves a scan as one array."""
    if current() is Backend.PLAIN:
        return metrics
    return MetricTable(jnp.stack(list(metrics.values())), tuple(metrics))


def materialise(x: Array) -> Array:
    """Return `x`. A CPU computes it once, not again in each gather that reads it."""
    return jax.lax.optimization_barrier(x) if is_cpu() else x


def materialise_gradient(gradient: PyTree) -> PyTree:
    """Return a gradient. An accelerator writes it once, before its norm and its step read it.

    Otherwise XLA copies parts of it for each reader, which costs a kernel a minibatch.
    """
    return jax.lax.optimization_barrier(gradient) if is_accelerator() else gradient


def _has_bits(dtype: jnp.dtype, real: jnp.dtype) -> bool:
    """Check that an integer has as many bits as a real number."""
    return jnp.issubdtype(dtype, jnp.integer) and dtype.itemsize == real.itemsize


def _to_real(leaf: Array, real: jnp.dtype) -> Array:
    if leaf.dtype == jnp.bool_ or leaf.dtype == real:
        return leaf.astype(real)
    return jax.lax.bitcast_convert_type(leaf, real)


def _from_real(leaf: Array, dtype: jnp.dtype) -> Array:
    if dtype == jnp.bool_ or dtype == leaf.dtype:
        return leaf.astype(dtype)
    return jax.lax.bitcast_convert_type(leaf, dtype)


@jax.tree_util.register_pytree_node_class
class MetricTable(Mapping[str, Any]):
    """Rows of metrics, name -> [..., rows], held as one array.

    A column is extracted on demand. One output array per name would cost a compiled program one
    more kernel each.
    """

    def __init__(self, values: Any, names: tuple[str, ...]) -> None:
        self.values_by_row = values  # [..., rows, names]
        self.names = names

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        return self.values_by_row[..., self.names.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def tree_flatten(self) -> tuple[tuple[Any], tuple[str, ...]]:
        return (self.values_by_row,), self.names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: tuple[Any]) -> MetricTable:
        return cls(values[0], names)
