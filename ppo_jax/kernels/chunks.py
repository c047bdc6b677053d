"""Chunks of rows: small enough to stay in a core's cache from one layer to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ppo_jax.kernels.backend import is_accelerator, is_cpu

PyTree = Any

CHUNK_ROWS = 512  # measured with 64-wide layers; more rows leave the caches between two layers


def chunk_size(num_rows: int) -> int:
    """Rows of one chunk, a divisor of `num_rows`: all of them if they are few, or off a CPU."""
    if not is_cpu() or num_rows <= CHUNK_ROWS:
        return num_rows
    divisors = [d for d in range(CHUNK_ROWS // 4, CHUNK_ROWS + 1) if num_rows % d == 0]
    return max(divisors, default=num_rows)


def _in_chunks(rows: PyTree) -> PyTree:
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    size = chunk_size(num_rows)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), rows)


def map_chunks(function: Callable[[PyTree], PyTree], rows: PyTree) -> PyTree:
    """Apply `function` chunk by chunk; it must treat each row [N, ...] independently."""
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    if chunk_size(num_rows) == num_rows:
        return function(rows)
    values = jax.lax.map(function, _in_chunks(rows))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), values)


def map_members(function: Callable[[PyTree], PyTree], members: PyTree) -> PyTree:
    """Apply `function` to each leading index: one after the other, on an accelerator all at once.

    There a loop over thousands of members would launch thousands of times as many kernels.
    """
    return jax.vmap(function)(members) if is_accelerator() else jax.lax.map(function, members)


def mean_over_chunks(
    function: Callable[[PyTree], tuple[PyTree, PyTree]], rows: PyTree
) -> tuple[PyTree, PyTree]:
    """Apply `function` chunk by chunk; it returns means over its rows and values of each row.

    Args:
        function: rows [n, ...] -> (means, values [n, ...]); either may be ().
        rows: [N, ...].
    """
    chunks = _in_chunks(rows)
    num_chunks = jax.tree.leaves(chunks)[0].shape[0]
    if num_chunks == 1:
        return function(rows)
    shapes, _ = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], chunks))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    start, restore = ravel_pytree(zeros)  # one vector: separate additions are separate kernels

    def add(total: Array, chunk: PyTree) -> tuple[Array, PyTree]:
        means, values = function(chunk)
        return total + ravel_pytree(means)[0], values

    total, values = jax.lax.scan(add, start, chunks)
    values = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), values)
    return restore(total / num_chunks), values


def mean_of_prepared(
    prepare: Callable[[PyTree], Callable[[Array], Array]],
    mean: Callable[[Callable[[PyTree], Array]], Array],
    rows: PyTree,
) -> Callable[[Array], Array]:
    """`v -> mean(rows -> prepare(rows)(v))`, for many v.

    An accelerator prepares all rows once. A CPU prepares a chunk again for each v, because what
    is prepared leaves its caches.

    Args:
        prepare: rows -> function of v that returns a mean over them.
        mean: the mean of a function of rows over all chunks.
    """
    if is_accelerator():
        ready = prepare(rows)
        return lambda v: mean(lambda _: ready(v))
    return lambda v: mean(lambda chunk: prepare(chunk)(v))
