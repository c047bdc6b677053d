"""Collectives over the devices that share one seed's environments: a whole tree at once.

Devices wait for each other at every collective, and on a CPU a waiting core is put to sleep. One
collective per leaf took two fifths of an iteration (docs/lab-notebook.md).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

PyTree = Any


class Across(NamedTuple):
    """The mesh axes that one seed's environments are spread over; `ALONE` has none.

    The environments form blocks in their order, as many on each device. A block has random numbers
    of its own, so that the draws do not depend on the number of devices.
    """

    axes: tuple[str, ...] = ()
    blocks: int = 1  # on all devices

    def mean(self, tree: PyTree) -> PyTree:
        """Each leaf's mean over all devices, equal on each of them."""
        if not self.axes:
            return tree
        flat, restore = ravel_pytree(tree)
        return restore(jax.lax.pmean(flat, self.axes))

    def gather(self, tree: PyTree) -> PyTree:
        """The leaves of all D devices with a leading axis [D]; D = 1 for `ALONE`."""
        if not self.axes:
            return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)
        flat, restore = ravel_pytree(tree)
        return jax.vmap(restore)(jax.lax.all_gather(flat, self.axes))

    @property
    def size(self) -> int:
        """D, the number of devices."""
        return jax.lax.axis_size(self.axes) if self.axes else 1

    @property
    def own_blocks(self) -> Array:
        """The numbers of this device's blocks, [blocks / D]."""
        count = self.blocks // self.size
        first = jax.lax.axis_index(self.axes) * count if self.axes else 0
        return first + jnp.arange(count)


ALONE = Across()
