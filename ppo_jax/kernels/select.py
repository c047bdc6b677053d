"""Work on some rows only: start states of ended environments, values of chosen observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.kernels.backend import is_accelerator, is_cpu

PyTree = Any
Draw = Callable[[Array], PyTree]  # a key -> one fresh row
Refill = Callable[[Any, Array, Array, Draw, PyTree], PyTree]


def where_rows(rows: Array, yes: PyTree, no: PyTree) -> PyTree:
    """`jnp.where` over pytrees with a condition for each leading row."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(rows.shape + (1,) * (a.ndim - rows.ndim)), a, b)

    return jax.tree.map(choose, yes, no)


def make_refill(key: Array, num_steps: int, num_rows: int) -> tuple[Any, Refill]:
    """The inputs of a scan over `num_steps` steps, and `refill`, which takes one step's input.

    `refill(x, t, mask [B], draw, old [B, ...])` returns `old` with a fresh row, an independent
    draw, in place of each row of the mask.

    The i-th row that is refilled at step t draws from fold_in(key, t B + i). An accelerator draws
    the keys of all rows and steps before the scan, so its draws differ.
    """
    if is_accelerator():  # kernels cost time here, draws do not; it must not wait for the host
        return jax.random.split(key, (num_steps, num_rows)), _refill_from_keys
    if is_cpu():
        return (), lambda x, *arguments: refill_from_pools(key, *arguments)
    return (), lambda x, *arguments: refill_from_all(key, *arguments)


def refill_from_all(key: Array, t: Array | int, mask: Array, draw: Draw, old: PyTree) -> PyTree:
    """Draw a fresh row for every row, and use those of the mask: the plain form.

    Args:
        key: of all steps. t: the step, which numbers the draws.
        mask: [B] bool. old: [B, ...], and so is the result.
    """
    numbers = t * mask.shape[0] + jnp.maximum(jnp.cumsum(mask) - 1, 0)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    return where_rows(mask, jax.vmap(draw)(keys), old)


def _refill_from_keys(keys: Array, t: Array | int, mask: Array, draw: Draw, old: PyTree) -> PyTree:
    return where_rows(mask, jax.vmap(draw)(keys), old)


def refill_from_pools(key: Array, t: Array | int, mask: Array, draw: Draw, old: PyTree) -> PyTree:
    """Draw fresh rows in pools of B / 8: none without a masked row, more while some are left.

    The cost is that of the needed draws, not of B draws. Arguments and result are those of
    `refill_from_all`.
    """
    num_rows = mask.shape[0]
    pool_size = max(1, num_rows // 8)
    rank = jnp.cumsum(mask) - 1  # the masked rows, numbered 0, 1, 2, ...
    num_masked = rank[-1] + 1

    def draw_pool(loop: tuple[Array, PyTree]) -> tuple[Array, PyTree]:
        first, rows = loop
        numbers = t * num_rows + first + jnp.arange(pool_size)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
        pool = jax.vmap(draw)(keys)
        slot = rank - first
        is_served = mask & (slot >= 0) & (slot < pool_size)
        fresh = jax.tree.map(lambda leaf: leaf[jnp.clip(slot, 0, pool_size - 1)], pool)
        return first + pool_size, where_rows(is_served, fresh, rows)

    start = (jnp.zeros((), num_masked.dtype), old)
    return jax.lax.while_loop(lambda loop: loop[0] < num_masked, draw_pool, start)[1]


def map_where(
    function: Callable[[PyTree], Array], rows: PyTree, mask: Array, pack_size: int
) -> Array:
    """Apply `function` to the masked rows, 0 elsewhere; it maps rows [n, ...] to numbers [n].

    A CPU gathers the masked rows into packs of `pack_size` and evaluates only as many as needed. An
    accelerator evaluates all rows, because their number is known before the launch.

    Args:
        rows: [N, ...]. mask: [N] bool.
    """
    if not is_cpu():
        return jnp.where(mask, function(rows), 0.0)
    num_rows = mask.shape[0]
    pack = min(num_rows, max(pack_size, 16))
    counted = jnp.cumsum(mask)
    num_masked = counted[-1]
    place = jnp.where(mask, counted - 1, num_rows + pack)
    source = jnp.zeros(num_rows + pack, jnp.int32)  # place -> row; padded to whole packs
    source = source.at[place].set(jnp.arange(num_rows), mode="drop")

    def evaluate_pack(loop: tuple[Array, Array]) -> tuple[Array, Array]:
        first, values = loop
        chosen = jax.lax.dynamic_slice_in_dim(source, first, pack)
        is_real = first + jnp.arange(pack) < num_masked
        fresh = function(jax.tree.map(lambda leaf: leaf[chosen], rows))
        return first + pack, values.at[jnp.where(is_real, chosen, num_rows)].set(fresh, mode="drop")

    start = (jnp.zeros((), num_masked.dtype), jnp.zeros(num_rows))
    return jax.lax.while_loop(lambda loop: loop[0] < num_masked, evaluate_pack, start)[1]
