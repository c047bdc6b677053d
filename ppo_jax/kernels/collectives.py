"""What devices that share one seed tell each other: a whole tree in one exchange.

The devices wait for each other at every exchange, and on a CPU a core that waits is put to sleep.
With an exchange for every leaf that was two fifths of an iteration (benchmarks/README.md).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

PyTree = Any


def mean(tree: PyTree, axis_name: str | None, own: str = "") -> PyTree:
    """Each leaf's mean over all devices, the same on each of them (None: as given).

    What stands under the name `own` in a dictionary stays each device's own.
    """
    if axis_name is None:
        return tree
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    is_shared = [all(getattr(part, "key", None) != own for part in path) for path, _ in leaves]
    flat, restore = ravel_pytree([leaf for (_, leaf), each in zip(leaves, is_shared) if each])
    means = iter(restore(jax.lax.pmean(flat, axis_name)))
    return jax.tree.unflatten(
        treedef, [next(means) if each else leaf for (_, leaf), each in zip(leaves, is_shared)]
    )


def gathered(tree: PyTree, axis_name: str | None) -> PyTree:
    """The leaves of all devices, with a leading axis of devices, of 1 where there are no others."""
    if axis_name is None:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)
    flat, restore = ravel_pytree(tree)
    return jax.vmap(restore)(jax.lax.all_gather(flat, axis_name))
