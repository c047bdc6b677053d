"""Layouts: the placement of seeds and environments on devices.

Devices form a mesh with the axes `seed` and `env`. Seeds lie along the first. The environments of
each seed lie along the second: there each device holds a share of them, and gradients are averaged.

Seeds of one device train in one of two ways:

* `map`: one after the other. For large batches on a CPU: a seed's data stay in cache, and members
  equal seeds trained alone on as many devices, bit for bit.
* `vmap`: side by side. For GPU, TPU, and small batches on a CPU, whose operations are too short for
  separate dispatch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.config.validate import KEYS, KEYS_PER_ITERATION
from ppo_jax.distributed import hosts
from ppo_jax.envs.registration import find
from ppo_jax.kernels.backend import is_cpu_device
from ppo_jax.kernels.collectives import Across
from ppo_jax.rl.types import TrainState

# Minimum samples per device and minibatch for splitting one seed's environments. On two cores, 512
# gave 1.4 (Pendulum) and 1.7 (MinAtar) times the speed of one. 256 gave 1.1 and 1.3, with a longer
# compilation (docs/lab-notebook.md). More cores were not measured.
ENVS_LAYOUT_ROWS = 512
# The same for environments whose steps take most of the time. On two cores Brax's pendulum ran 1.2
# times as fast with 64 samples, 1.3 with 128 and 1.5 with 256.
ENVS_LAYOUT_ROWS_HEAVY = 64
# The same for accelerators. It is an estimate from bytes and kernels, not a measurement: with 8,192
# rows a device, eight GPUs are about twice as fast as one; the kernels are as many on each.
ENVS_LAYOUT_ROWS_ACCELERATOR = 2**15

# Blocks that the environments of a seed form if devices share them. A block has its own random
# numbers, and each minibatch takes as many samples from each. So 1, 2, 4 and 8 devices draw alike.
BLOCKS = 8

# Largest minibatch for which seeds side by side beat one after the other on a CPU.
VMAP_LAYOUT_MINIBATCH = 256


MAX_CHUNK = 256  # iterations in one call of a chunk, and rows of its buffer of metrics


class Layout(NamedTuple):
    """Seeds and environments on devices."""

    kind: str  # map or vmap: how the seeds of one device train
    devices: tuple[Any, ...]
    num_seeds: int
    num_shares: int = 1  # devices that one seed's environments are spread over
    num_blocks: int = 1  # groups of one seed's environments, each with its own random numbers

    @property
    def own_device(self) -> Any:
        """The first device of this host."""
        if hosts.count() == 1:
            return self.devices[0]
        return next(d for d in self.devices if d.process_index == hosts.index())

    @property
    def num_places(self) -> int:
        """Length of the mesh's axis `seed`."""
        return len(self.devices) // self.num_shares

    @property
    def num_members(self) -> int:
        """Seeds that are trained: the requested number, rounded up to a multiple of the places."""
        return -(-self.num_seeds // self.num_places) * self.num_places

    @property
    def mesh(self) -> Mesh:
        """The devices with the axes `seed` and `env`."""
        shape = (self.num_places, self.num_shares)
        return Mesh(np.array(self.devices).reshape(shape), ("seed", "env"))

    @property
    def mesh_words(self) -> str:
        """The mesh as `--mesh` takes it."""
        return f"seed={self.num_places},env={self.num_shares}"

    @property
    def across(self) -> Across:
        """The collectives of devices that share one seed, and the blocks of its environments."""
        return Across(("env",) if self.num_shares > 1 else (), self.num_blocks)

    def member_spec(self, has_axis: bool) -> P:
        """Partition of numbers that members share, or that each member has its own of."""
        return P("seed") if has_axis else P()

    def state_specs(self, state: TrainState) -> TrainState:
        """Partition of each leaf of a population's state."""
        specs = jax.tree.map(lambda _: P("seed"), state)
        return specs._replace(
            carry=jax.tree.map(lambda _: P("seed", "env"), state.carry),
            discounted_return=P("seed", "env"),
        )

    @property
    def state_places(self) -> TrainState:
        """The sharding of each part of a population's state, for what jit returns.

        Left to itself, XLA replicates leaves without numbers, such as those in MuJoCo's states.
        """
        seeds, envs = (NamedSharding(self.mesh, spec) for spec in (P("seed"), P("seed", "env")))
        places: Any = [seeds] * len(TrainState._fields)
        return TrainState(*places)._replace(carry=envs, discounted_return=envs)


class Wanted(NamedTuple):
    """Wishes for a layout, beside the batch and the seeds."""

    num_devices: int | None = None  # None for all
    mesh: tuple[int, int] | None = None  # lengths of the axes `seed` and `env`; None for the rule
    num_blocks: int | None = None  # those of a run that goes on; None for a new one


def local_devices(count: int | None = None) -> tuple[Any, ...]:
    """The first `count` devices of this process, None for all."""
    return tuple(jax.local_devices()[:count])


def offered_devices(count: int | None = None) -> tuple[Any, ...]:
    """The first `count` devices of all hosts, None for all: as many of each host, host by host."""
    if hosts.count() == 1:
        return local_devices(count)
    by_host = [[d for d in jax.devices() if d.process_index == i] for i in range(hosts.count())]
    each = min(len(own) for own in by_host)
    if count is not None:
        each = min(each, count // hosts.count())
    return tuple(device for own in by_host for device in own[:each])


def choose_layout(
    config: Config, num_seeds: int, num_devices: int | None = None, wanted: Wanted | None = None
) -> Layout:
    """Choose the fastest layout known for this batch, number of seeds and kind of device.

    Raises:
        InputError: the mesh asked for does not fit the devices or the batch.
    """
    wanted = wanted or Wanted(num_devices)
    devices = offered_devices(wanted.num_devices)
    if find(config.env).host is not None:  # one seed after the other
        if hosts.count() > 1:
            raise InputError(
                "This environment runs outside jax, which only one host can do: leave the other "
                "hosts out."
            )
        return Layout("map", devices[:1], num_seeds)
    is_cpu = is_cpu_device(devices[0])
    places, shares = mesh_shape(config, num_seeds, len(devices), is_cpu, wanted)
    is_small = num_seeds > 1 and config.minibatch_size <= VMAP_LAYOUT_MINIBATCH
    each = len(devices) // hosts.count()  # as many of every host
    taken = [i for i in range(len(devices)) if i % each < places * shares // hosts.count()]
    return Layout(
        "map" if is_cpu and not is_small else "vmap",
        tuple(devices[i] for i in taken),
        num_seeds,
        shares,
        blocks_for(config, shares, wanted.num_blocks) or shares,
    )


def choose_member_layout(
    config: Config, num_members: int, num_devices: int | None = None
) -> Layout:
    """The usual layout without a member that is split over devices.

    Copies of members fill up hosts that have none, which a winner's few fresh seeds may need.
    """
    mesh = (hosts.count(), 1) if hosts.count() >= 2 * num_members else None
    return choose_layout(config, num_members, wanted=Wanted(num_devices, mesh, num_blocks=1))


def devices_needed(config: Config, num_seeds: int, num_devices: int, wanted: Wanted) -> int:
    """Accelerators that a run takes of those of a machine, without asking jax."""
    if find(config.env).host is not None:
        return 1
    offered = min(num_devices, wanted.num_devices or num_devices)
    return math.prod(mesh_shape(config, num_seeds, offered, False, wanted))


def mesh_shape(
    config: Config, num_seeds: int, num_devices: int, is_cpu: bool, wanted: Wanted
) -> tuple[int, int]:
    """Lengths of the axes `seed` and `env`. The rule, by the order of what counts:

    1. as few seeds one after the other (or side by side) on a device as possible;
    2. as many devices for each seed's environments as its minibatches are large enough for;
    3. as few members as possible that only fill up the devices.

    Raises:
        InputError: the mesh asked for does not fit, or the run is too small for all hosts.
    """
    if wanted.mesh is not None:
        return checked_mesh(config, num_devices, wanted)
    rows = rows_for_a_share(config, is_cpu)
    fitting = [
        shares
        for shares in range(1, num_devices + 1)
        if shares == 1
        or (
            config.minibatch_size >= rows * shares
            and (blocks := blocks_for(config, shares, wanted.num_blocks))
            and wanted.num_blocks in (None, blocks)
        )
    ]
    found = []
    most = num_devices if hosts.count() > 1 else min(num_devices, num_seeds)
    for places in range(1, most + 1):
        useful = [n for n in fitting if n * places <= num_devices and has_all_hosts(n * places)]
        if useful and -(-num_seeds // places) * places < 2 * num_seeds:
            found.append((-(-num_seeds // places), -max(useful), places))
    if not found:
        raise InputError(
            f"{num_seeds} seeds with minibatches of {config.minibatch_size} samples do not keep "
            f"{hosts.count()} hosts busy: take fewer hosts, more seeds or more environments."
        )
    _, shares, places = min(found)
    return places, -shares


def rows_for_a_share(config: Config, is_cpu: bool) -> int:
    """Least samples of a minibatch for each device that shares a seed's environments."""
    if not is_cpu:
        return ENVS_LAYOUT_ROWS_ACCELERATOR
    return ENVS_LAYOUT_ROWS_HEAVY if find(config.env).is_heavy else ENVS_LAYOUT_ROWS


def has_all_hosts(num_devices: int) -> bool:
    """Check whether so many devices are as many of each host."""
    return num_devices % hosts.count() == 0


def blocks_for(config: Config, shares: int, num_blocks: int | None = None) -> int | None:
    """Blocks of a seed's environments on so many devices, None if they cannot be divided so.

    A rollout's buffer of starts belongs to all environments, so they stay on one device.

    Args:
        num_blocks: of a run that goes on; kept if these devices can hold them in equal numbers.
    """
    if num_blocks is not None and num_blocks % shares == 0:
        return num_blocks
    if shares == 1:
        return 1
    if config.start_states:
        return None
    for blocks in (math.lcm(BLOCKS, shares), shares):
        if (
            config.num_envs % blocks == 0
            and (config.num_envs // blocks) % config.num_minibatches == 0
            and config.num_iterations * KEYS_PER_ITERATION * blocks <= KEYS
        ):
            return blocks
    return None


def checked_mesh(config: Config, num_devices: int, wanted: Wanted) -> tuple[int, int]:
    """The mesh asked for.

    Raises:
        InputError: it does not fit the devices or the batch.
    """
    assert wanted.mesh is not None
    places, shares = wanted.mesh
    words = f"mesh='seed={places},env={shares}'"
    if places * shares > num_devices:
        raise InputError(
            f"{words} takes {places * shares} devices, and there are {num_devices}: take a "
            "smaller mesh."
        )
    if not has_all_hosts(places * shares):
        raise InputError(
            f"{words} takes {places * shares} devices, which {hosts.count()} hosts cannot share "
            "equally: take a mesh of which each host holds an equal part."
        )
    if shares > 1 and config.start_states:
        raise InputError(
            f"{words} spreads the environments of a seed, and start_states={config.start_states} "
            "makes one buffer for all of them: take env=1, or leave --start-states out."
        )
    if blocks_for(config, shares, wanted.num_blocks) is None:
        raise InputError(
            f"{words} cannot divide num_envs={config.num_envs} in {shares} equal shares, each of "
            f"which num_minibatches={config.num_minibatches} divides: choose another number for "
            "env."
        )
    return places, shares
