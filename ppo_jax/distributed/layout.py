"""Layouts: the devices that seeds and environments go to.

Three kinds:

* `map`: seeds over devices, and on each device one seed after the other (large batches on a CPU: a
  seed's data stay in cache, and members are bit-equal to seeds trained alone on as many devices);
* `vmap`: seeds over devices, and on each device side by side (GPU, TPU, and small batches on a CPU,
  whose operations are too short to be worth their dispatch one by one);
* `envs`: each seed's environments over devices, gradients averaged (few seeds, large batches).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ppo_jax.config.config import Config
from ppo_jax.kernels.backend import is_cpu_device
from ppo_jax.kernels.collectives import ALONE, Across
from ppo_jax.rl.types import TrainState

# From so many samples of a minibatch for each device on, devices share one seed's environments. On
# two cores 512 made 1.4 (Pendulum) and 1.7 (MinAtar) times the speed of one, 256 1.1 and 1.3 for a
# longer compilation (benchmarks/README.md). More cores, and GPUs, were not measured.
ENVS_LAYOUT_ROWS = 512

# Up to so many samples a minibatch, several seeds side by side beat one after the other on a CPU.
VMAP_LAYOUT_MINIBATCH = 256


class Layout(NamedTuple):
    """Seeds and environments on devices."""

    kind: str  # map, vmap or envs
    devices: tuple[Any, ...]
    num_seeds: int

    @property
    def num_members(self) -> int:
        """Seeds that are really trained: the number asked for, filled up to the devices."""
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
        """The place of numbers that members share, or of which each has its own."""
        return P("seeds") if has_axis else P()

    def state_specs(self, state: TrainState) -> TrainState:
        """The place of each leaf of a population's state."""
        specs = jax.tree.map(lambda _: P("seeds"), state)
        return specs._replace(
            carry=jax.tree.map(lambda _: P("seeds", "envs"), state.carry),
            discounted_return=P("seeds", "envs"),
        )


def local_devices(count: int | None = None) -> tuple[Any, ...]:
    """The first `count` devices of this process, None for all. Nothing else asks jax for them."""
    return tuple(jax.local_devices()[:count])


def choose_layout(config: Config, num_seeds: int, num_devices: int | None = None) -> Layout:
    """The fastest layout known for this batch, number of seeds and kind of device."""
    devices = local_devices(num_devices)
    count = len(devices)
    if (
        num_seeds < count
        and config.num_envs % count == 0
        and (config.num_envs // count) % config.num_minibatches == 0
        and config.minibatch_size >= ENVS_LAYOUT_ROWS * count
    ):
        return Layout("envs", devices, num_seeds)
    devices = devices[: min(count, num_seeds)]
    is_small = num_seeds > 1 and config.minibatch_size <= VMAP_LAYOUT_MINIBATCH
    return Layout(
        "map" if is_cpu_device(devices[0]) and not is_small else "vmap", devices, num_seeds
    )
