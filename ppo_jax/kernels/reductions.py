"""Small sums and maxima that fuse with neighbouring operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ppo_jax.kernels.backend import Backend, current, is_cpu

PyTree = Any

MAX_UNROLLED = 8  # columns; two were measured (docs/lab-notebook.md), more were not
GROUP = 8  # scalars that one kernel of a CPU stacks


def _is_unrolled(x: Array) -> bool:
    return current() is not Backend.PLAIN and x.shape[-1] <= MAX_UNROLLED


@jax.custom_jvp
def sum_last(x: Array) -> Array:
    """The sum over the last axis, [...].

    Few columns are added as slices, which fuse with neighbouring operations. On a CPU a sum over an
    axis is a separate kernel, and handles one row at a time.
    """
    if not _is_unrolled(x):
        return jnp.sum(x, axis=-1)
    return reduce(jnp.add, [x[..., i] for i in range(x.shape[-1])])


@sum_last.defjvp
def _sum_last_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    return sum_last(primals[0]), jnp.sum(tangents[0], axis=-1)  # its transpose is a broadcast


def max_last(x: Array) -> Array:
    """The maximum of the last axis, [...], unrolled as `sum_last` is."""
    if not _is_unrolled(x):
        return jnp.max(x, axis=-1)
    return reduce(jnp.maximum, [x[..., i] for i in range(x.shape[-1])])


def clamp(x: Array, low: Array | float, high: Array | float) -> Array:
    """`x` within [low, high]. At the bounds, as beyond them, the gradient by x is 0.

    `jnp.clip` shares the gradient at ties, which costs several small kernels a minibatch.
    """
    low, high = (jnp.asarray(bound, x.dtype) for bound in (low, high))
    return jax.lax.clamp(low, x, high)


def mean_of_each(columns: Mapping[str, Array]) -> dict[str, Array]:
    """The mean [] of each named vector [M]; all have the same length."""
    if current() is Backend.PLAIN:
        return {name: jnp.mean(column) for name, column in columns.items()}
    # One sum over a matrix is one kernel. The mean is a product: XLA fuses no division into it.
    matrix = jnp.stack(list(columns.values()))
    means = jnp.sum(matrix, axis=1) * (1.0 / matrix.shape[1])
    return dict(zip(columns, means, strict=True))


def mean(x: Array) -> Array:
    """The mean [] of a vector [M], rounded as `mean_of_each` rounds it."""
    return jnp.mean(x) if current() is Backend.PLAIN else jnp.sum(x) * (1.0 / x.shape[0])


def weighted_sums(values: Sequence[Array], weight: Array) -> Array:
    """sum(value * weight) of each of K arrays, [K]; all have the weight's shape."""
    if current() is Backend.PLAIN:
        return jnp.stack([jnp.sum(value * weight) for value in values])
    # One matrix product instead of two kernels per array. A GPU must not round its factors.
    matrix = jnp.stack(values).reshape(len(values), -1)
    return jnp.dot(matrix, weight.reshape(-1), precision="highest")


def map_scalars(function: Callable[[PyTree], Array], trees: Sequence[PyTree]) -> list[Array]:
    """Apply `function`, which must work element by element, to each tree of scalars."""
    if current() is Backend.PLAIN:
        return [function(tree) for tree in trees]
    # All of them in one vector: one by one they cost about three kernels each.
    columns = zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)
    stacked = [jnp.stack(jnp.broadcast_arrays(*column)) for column in columns]
    return list(function(jax.tree.unflatten(jax.tree.structure(trees[0]), stacked)))


def stack_scalars(numbers: Sequence[Array]) -> Array:
    """Numbers [] as one vector [K].

    On a CPU, XLA stacks many numbers with one kernel per number, and a small group with one.
    """
    if not is_cpu():
        return jnp.stack(numbers)
    groups = [jnp.stack(numbers[i : i + GROUP]) for i in range(0, len(numbers), GROUP)]
    return jnp.concatenate(jax.lax.optimization_barrier(groups))


def finite_rows(tree: PyTree) -> Array:
    """Check each row of the leaves [N, ...] for numbers that are not finite, [N] bool."""
    leaves = jax.tree.leaves(tree)
    rows = [
        jnp.all(jnp.isfinite(leaf.reshape(leaf.shape[0], -1)), axis=1)
        for leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return reduce(jnp.logical_and, rows, jnp.ones(leaves[0].shape[0], bool))


def finite_or_zero(tree: PyTree) -> PyTree:
    """Replace every real number that is not finite by 0."""

    def of(leaf: Array) -> Array:
        is_real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.where(jnp.isfinite(leaf), leaf, 0.0) if is_real else leaf

    return jax.tree.map(of, tree)


def all_finite(tree: PyTree) -> Array:
    """Check that every number of every leaf is finite, [] bool."""
    if current() is Backend.PLAIN:
        return jnp.asarray([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()
    flat, _ = ravel_pytree(tree)
    return jnp.isfinite(jnp.sum(0.0 * flat))  # a sum is one kernel, "all" is three on a CPU
