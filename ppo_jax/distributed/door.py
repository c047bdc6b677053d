"""The door between devices and host: every array of a program's state goes through it.

An array may lie on devices of several hosts. Then no host can read it alone: all of them call
these functions together, and each gets the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ppo_jax.kernels.backend import is_cpu_device
from ppo_jax.rl.types import PyTree

# Bytes of a tree that are gathered from several hosts at a time, or one array: each device holds
# a copy of them meanwhile.
PIECE = 2**28


def fetch(tree: PyTree) -> PyTree:
    """A tree on the host, as NumPy arrays (random keys stay keys)."""
    return jax.device_get(home(tree))


def fetch_rows(rows: PyTree, length: int) -> PyTree:
    """Rows of metrics [members, N, ...] on the host, at least the first `length` of them.

    An accelerator sends no more than the next power of two, so that few programs cut them.
    """
    leaf = jax.tree.leaves(rows)[0]
    width = 1 << max(length - 1, 0).bit_length()
    is_far = isinstance(leaf, jax.Array) and not is_cpu_device(next(iter(leaf.devices())))
    return fetch(_first(rows, width) if is_far and width < leaf.shape[1] else rows)


@partial(jax.jit, static_argnums=1)
def _first(rows: PyTree, width: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[:, :width], rows)


def home(tree: PyTree) -> PyTree:
    """The tree in a form that this host can read. All of it if other hosts hold a part."""
    leaves, structure = jax.tree.flatten(tree)
    for place, leaf in _brought(leaves):
        leaves[place] = _own_copy(leaf)
    return jax.tree.unflatten(structure, leaves)


def give(tree: PyTree) -> None:
    """Take part in a `fetch` of other hosts, and keep nothing."""
    for _ in _brought(jax.tree.leaves(tree)):
        pass


def copy(leaf: Any) -> np.ndarray:
    """Copy an array that is here. Numpy would gather one of many devices in a second copy."""
    shards = getattr(leaf, "addressable_shards", ())
    if len(shards) < 2:
        return np.array(leaf, order="C", copy=True)
    array = np.empty(leaf.shape, leaf.dtype)
    for shard in shards:
        array[shard.index] = np.asarray(shard.data)
    return array


def put(tree: PyTree, places: PyTree) -> PyTree:
    """Place a tree on devices; on several hosts each has the whole tree and keeps its part.

    NumPy arrays are cut up without a program per shape. That saves half a second at the first call
    if several devices share one CPU.

    Args:
        places: a sharding for each leaf.
    """
    devices = list(jax.tree.leaves(places)[0].mesh.devices.flat)
    if len(devices) > 1 and (is_cpu_device(devices[0]) or is_spread(devices)):
        return jax.tree.map(_put, tree, places)
    return jax.device_put(tree, places)


def is_spread(devices: list[Any]) -> bool:
    """Check whether devices belong to several hosts."""
    return len({getattr(device, "process_index", 0) for device in devices}) > 1


def _put(leaf: Any, place: NamedSharding) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = _put(jax.random.key_data(leaf), place)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)
    if place.is_fully_addressable:
        return jax.device_put(whole, place)
    return jax.make_array_from_callback(whole.shape, place, lambda part: whole[part])


def _is_here(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _brought(leaves: list[Any]) -> Iterator[tuple[int, jax.Array]]:
    """The place and the whole of each leaf of which other hosts hold a part, piece by piece."""
    away = [place for place, leaf in enumerate(leaves) if not _is_here(leaf)]
    while away:
        piece, size = [], 0
        while away and (not piece or size + leaves[away[0]].nbytes <= PIECE):
            size += leaves[away[0]].nbytes
            piece.append(away.pop(0))
        chosen = tuple(leaves[place] for place in piece)
        yield from zip(piece, _gather(chosen[0].sharding.mesh)(chosen), strict=True)


@lru_cache(maxsize=8)
def _gather(mesh: Mesh) -> Callable[[PyTree], PyTree]:
    """The program that puts the whole of a tree on every device."""
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))


def _own_copy(leaf: jax.Array) -> Any:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = _own_copy(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(jnp.asarray(words), impl=jax.random.key_impl(leaf))
    return np.asarray(leaf.addressable_data(0))
