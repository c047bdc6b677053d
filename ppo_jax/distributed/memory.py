"""Forecast of the memory that a population takes, from shapes, before anything takes memory.

On a CPU all of it is main memory. An accelerator holds states and programs in a memory of its own,
and the host holds copies of them and the logged rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from ppo_jax.config.config import Config
from ppo_jax.distributed.layout import MAX_CHUNK, Layout
from ppo_jax.kernels.backend import is_cpu_device
from ppo_jax.kernels.chunks import CHUNK_ROWS
from ppo_jax.rl.metrics import METRICS, OF_POINTS
from ppo_jax.rl.types import PyTree, TrainState

NUM_METRICS = len(METRICS) - len(OF_POINTS)
SAVE_COPIES = 2  # copies of all states while they are saved: the snapshot and the file's bytes
START_COPIES = 2  # all states at the start: as computed, and on their devices
PROGRAM = 64 * 2**20  # compiling a program after training has begun
ROW_BYTES = 100  # one number of a logged row, as a Python object and as text


class Use(NamedTuple):
    """Memory that a command takes beside its training."""

    episodes: int = 0  # an evaluation plays so many of each member
    member_bytes: int = 0  # on the host for each member, beside one logged row
    saves_beside: bool = False  # a thread writes checkpoints while the program runs
    programs: int = 1  # compiled after the training program: the evaluation, ...


class Forecast(NamedTuple):
    """Bytes of a population over all its devices, and on the host."""

    num_members: int
    num_devices: int
    is_cpu: bool  # devices and host share main memory
    state: int  # parameters, optimiser and environments of all members
    tables: int  # metrics of one chunk
    working: int  # temporaries of the training program
    playing: int  # environments and activations of an evaluation
    rows: int  # on the host: logged rows, and the numbers of the members
    programs: int  # on the host: compiling the programs that follow
    saves_beside: bool

    @property
    def device(self) -> int:
        """Peak of one device, without the copies on the host."""
        phases = (
            START_COPIES * self.state,
            self.state + self.working + self.tables,
            self.state + self.playing,
        )
        return max(phases) // self.num_devices

    @property
    def host(self) -> int:
        """Peak of the host, without the devices."""
        return SAVE_COPIES * self.state + self.tables + self.rows + self.programs

    @property
    def main(self) -> int:
        """Peak of main memory."""
        if not self.is_cpu:
            return self.host
        saved = (1 + SAVE_COPIES) * self.state
        phases = (
            START_COPIES * self.state,
            # The tables are on the devices and on the host.
            (saved if self.saves_beside else self.state) + self.working + 2 * self.tables,
            saved + self.tables,
            self.state + self.playing + self.tables,
        )
        return max(phases) + self.rows + self.programs

    def at_least(self) -> Forecast:
        """The forecast with half the estimate of temporaries: less is not enough."""
        return self._replace(working=self.working // 2)

    def with_program(self, program: Any) -> Forecast:
        """The forecast with the numbers that XLA reports for a compiled training program."""
        found = program.memory_analysis()
        if found is None:  # a backend that reports nothing
            return self
        outputs = max(found.output_size_in_bytes - found.alias_size_in_bytes, 0)
        return self._replace(
            tables=outputs * self.num_devices,
            working=found.temp_size_in_bytes * self.num_devices,
        )


_TRAINING = Use()


def forecast(config: Config, layout: Layout, shapes: TrainState, use: Use = _TRAINING) -> Forecast:
    """Forecast from the shapes of a population's state [members, ...]."""
    members, devices = layout.num_members, len(layout.devices)
    # Members that are computed at the same time, and the share of each in a device's environments.
    at_once = members * layout.num_shares if layout.kind == "vmap" else devices
    params = num_bytes(shapes.params) // members
    carry = num_bytes(shapes.carry) // (members * config.num_envs)
    return Forecast(
        num_members=members,
        num_devices=devices,
        is_cpu=is_cpu_device(layout.devices[0]),
        state=num_bytes(shapes),
        tables=4 * MAX_CHUNK * NUM_METRICS * members,
        working=at_once * (_working(config, layout, shapes, params) + config.start_states * carry),
        playing=at_once * use.episodes * (4 * carry + 8 * _width(config)),
        rows=(use.member_bytes + ROW_BYTES * NUM_METRICS) * members,
        programs=PROGRAM * use.programs,
        saves_beside=use.saves_beside,
    )


def _working(config: Config, layout: Layout, shapes: TrainState, params: int) -> int:
    """Estimate the temporaries of one member's iteration on one device (measured on CPUs)."""
    observation = num_bytes(shapes.carry.observation) // (layout.num_members * config.num_envs)
    samples = config.batch_size // layout.num_shares
    rows = config.minibatch_size // layout.num_shares
    if is_cpu_device(layout.devices[0]):
        rows = min(rows, CHUNK_ROWS)
    record = 2 * observation + 44  # bytes of a sample: observations, action, distribution, ...
    kept = samples * (record * 3 // 2 + 4 * (config.num_epochs + 2))
    return kept + 6 * rows * _width(config) + 4 * params


def _width(config: Config) -> int:
    """Numbers of all layers for one observation."""
    return (1 if config.shared_torso else 2) * sum(config.hidden_sizes)


def num_bytes(tree: PyTree) -> int:
    """Bytes of a tree of arrays or their shapes."""
    return sum(
        int(np.prod(leaf.shape, dtype=np.float64)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def show_bytes(size: float | None) -> str:
    """Format bytes with three digits and a unit of 1024: 812 B, 1.53 MiB, 40.2 GiB, unknown."""
    if size is None:
        return "unknown"
    for factor, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= factor:
            return (
                f"{size / factor:.3g} {unit}"
                if size < 1000 * factor
                else f"{size / factor:.0f} {unit}"
            )
    return f"{size:.0f} B"
