"""Layouts: the placement of seeds and environments on devices.

Three kinds:

* `map`: seeds over devices, and on each device one seed after the other. For large batches on a
  CPU: a seed's data stay in cache, and members equal seeds trained alone on as many devices, bit
  for bit.
* `vmap`: seeds over devices, and on each device side by side. For GPU, TPU, and small batches on a
  CPU, whose operations are too short for separate dispatch.
* `envs`: each seed's environments over devices, gradients averaged. For few seeds and large
  batches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ppo_jax.config.config import Config
from ppo_jax.config.validate import KEYS, KEYS_PER_ITERATION
from ppo_jax.envs.registration import find
from ppo_jax.kernels.backend import is_cpu_device
from ppo_jax.kernels.collectives import ALONE, Across
from ppo_jax.rl.types import TrainState

# Minimum samples per device and minibatch for splitting one seed's environments. On two cores, 512
# gave 1.4 (Pendulum) and 1.7 (MinAtar) times the speed of one. 256 gave 1.1 and 1.3, with a longer
# compilation (docs/lab-notebook.md). More cores, and GPUs, were not measured.
ENVS_LAYOUT_ROWS = 512

# Largest minibatch for which seeds side by side beat one after the other on a CPU.
VMAP_LAYOUT_MINIBATCH = 256


MAX_CHUNK = 256  # iterations in one call of a chunk, and rows of its buffer of metrics


class Layout(NamedTuple):
    """Seeds and environments on devices."""

    kind: str  # map, vmap or envs
    devices: tuple[Any, ...]
    num_seeds: int

    @property
    def num_members(self) -> int:
        """Seeds that are trained: the requested number, rounded up to a multiple of the devices."""
        if self.kind == "envs":
            return self.num_seeds
        return -(-self.num_seeds // len(self.devices)) * len(self.devices)

    @property
    def mesh(self) -> Mesh:
        """The devices with the axes `seeds` and `envs`, one of which has length 1."""
        shape = (1, -1) if self.kind == "envs" else (-1, 1)
        return Mesh(np.array(self.devices).reshape(shape), ("seeds", "envs"))

    @property
    def across(self) -> Across:
        """The collectives of devices that share one seed."""
        return Across(("envs",)) if self.kind == "envs" else ALONE

    @property
    def num_shares(self) -> int:
        """Devices that one seed's environments are spread over."""
        return len(self.devices) if self.kind == "envs" else 1

    def member_spec(self, has_axis: bool) -> P:
        """Partition of numbers that members share, or that each member has its own of."""
        return P("seeds") if has_axis else P()

    def state_specs(self, state: TrainState) -> TrainState:
        """Partition of each leaf of a population's state."""
        specs = jax.tree.map(lambda _: P("seeds"), state)
        return specs._replace(
            carry=jax.tree.map(lambda _: P("seeds", "envs"), state.carry),
            discounted_return=P("seeds", "envs"),
        )


def local_devices(count: int | None = None) -> tuple[Any, ...]:
    """The first `count` devices of this process, None for all. No other code asks JAX."""
    return tuple(jax.local_devices()[:count])


def choose_layout(config: Config, num_seeds: int, num_devices: int | None = None) -> Layout:
    """Choose the fastest layout known for this batch, number of seeds and kind of device."""
    devices = local_devices(num_devices)
    count = len(devices)
    if find(config.env).host is not None:  # one seed after the other
        return Layout("map", devices[:1], num_seeds)
    if (
        num_seeds < count
        and config.num_envs % count == 0
        and (config.num_envs // count) % config.num_minibatches == 0
        and config.minibatch_size >= ENVS_LAYOUT_ROWS * count
        and config.num_iterations * KEYS_PER_ITERATION * count <= KEYS
    ):
        return Layout("envs", devices, num_seeds)
    devices = devices[: min(count, num_seeds)]
    is_small = num_seeds > 1 and config.minibatch_size <= VMAP_LAYOUT_MINIBATCH
    return Layout(
        "map" if is_cpu_device(devices[0]) and not is_small else "vmap", devices, num_seeds
    )
