"""How runs are spread over a machine: the only file that says mesh, sharding and vmap over runs.

A population is a `TrainState` whose leaves have a leading axis of S seeds. Three layouts:

* `map`: seeds over devices, and on each device one seed after the other (large batches on a CPU: a
  seed's data stay in cache, and members are bit-equal to seeds trained alone on as many devices);
* `vmap`: seeds over devices, and on each device side by side (GPU, TPU, and small batches on a CPU,
  whose operations are too short to be worth their dispatch one by one);
* `envs`: each seed's environments over devices, gradients averaged (few seeds, large batches).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ppo_jax import evaluation, schedules
from ppo_jax.config import Config, Hyper
from ppo_jax.trainer import acting_policy, assemble, env_params, init, iterate
from ppo_jax.types import Metrics, PyTree, TrainState

Result = tuple[TrainState, Metrics]

ROWS = 256  # iterations at most in one call of a chunk; its metrics buffer has so many rows

# Folded into a member's key for evaluation; iterations fold in 0, 1, 2, ... and stay below it.
EVALUATION = 2**32 - 1

# From so many samples a minibatch on, one seed's environments are spread over the cores of a CPU.
# Measured at 65,536 only (1.4 times one device, benchmarks/README.md); the bound is a guess.
ENVS_LAYOUT_MINIBATCH = 2048

# Up to so many samples a minibatch, several seeds side by side beat one after the other on a CPU.
VMAP_LAYOUT_MINIBATCH = 256


class Layout(NamedTuple):
    """Which seeds and environments go where."""

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
        return Mesh(np.array(self.devices), ("devices",))

    def state_specs(self, state: TrainState) -> TrainState:
        """Where each leaf of a population's state lives."""
        if self.kind != "envs":
            return jax.tree.map(lambda _: P("devices"), state)
        whole = jax.tree.map(lambda _: P(), state)
        return whole._replace(
            carry=jax.tree.map(lambda _: P(None, "devices"), state.carry),
            discounted_return=P(None, "devices"),
        )


def choose_layout(config: Config, num_seeds: int, num_devices: int | None = None) -> Layout:
    """The fastest layout known for this batch, number of seeds and kind of device."""
    devices = tuple(jax.local_devices()[:num_devices])
    is_cpu = devices[0].platform == "cpu"
    count = len(devices)
    if (
        num_seeds < count
        and config.num_envs % count == 0
        and (config.num_envs // count) % config.num_minibatches == 0
        and config.minibatch_size >= ENVS_LAYOUT_MINIBATCH
    ):
        return Layout("envs", devices, num_seeds)
    devices = devices[: min(count, num_seeds)]
    is_small = config.minibatch_size <= VMAP_LAYOUT_MINIBATCH
    return Layout("map" if is_cpu and not is_small else "vmap", devices, num_seeds)


def program(config: Config) -> Config:
    """`config` without what only the host reads, so that equal programs are one program."""
    return dataclasses.replace(config, total_env_steps=config.batch_size)


def init_population(config: Config, hyper: Hyper, seed: int, layout: Layout) -> TrainState:
    """Member i starts from `jax.random.key(seed + i)`, whatever the layout and its neighbours."""
    keys = jnp.stack([jax.random.key(seed + i) for i in range(layout.num_members)])
    state = jax.jit(lambda h, k: jax.lax.map(partial(init, program(config), h), k))(hyper, keys)
    return place(state, layout)


def padded(state: TrainState, layout: Layout) -> TrainState:
    """The state of S seeds filled up to the layout's members with copies of the first seed."""
    missing = layout.num_members - state.alive.shape[0]
    if not missing:
        return state
    chosen = np.r_[np.arange(state.alive.shape[0]), np.zeros(missing, int)]
    return jax.tree.map(lambda leaf: leaf[chosen], state)


def trimmed(state: TrainState, layout: Layout) -> TrainState:
    """The state of the S seeds that were asked for."""
    return jax.tree.map(lambda leaf: leaf[: layout.num_seeds], state)


def place(state: TrainState, layout: Layout) -> TrainState:
    """The population's state on its devices."""
    shardings = jax.tree.map(
        lambda spec: NamedSharding(layout.mesh, spec),
        layout.state_specs(state),
        is_leaf=lambda leaf: isinstance(leaf, P),
    )
    return jax.device_put(state, shardings)


def spread(layout: Layout, one: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """`one` for every member on this device, by the layout's way."""
    if layout.kind == "vmap":
        return jax.vmap(one)(*args)
    return jax.lax.map(lambda packed: one(*packed), args)


def make_chunk(config: Config, layout: Layout) -> Callable[..., tuple[TrainState, Metrics]]:
    """The compiled loop: `chunk(hyper, state, n) -> (state, rows)` runs n <= ROWS iterations.

    n is data, so chunks of every length are one program. `state` is donated. Rows are
    {name: [members, ROWS]}, of which the first n are meant.
    """
    plain = program(config)
    axis_name = "devices" if layout.kind == "envs" else None

    def member(hyper: Hyper, n: Array, state: TrainState) -> Result:
        shapes = jax.eval_shape(partial(iterate, plain, hyper, axis_name=axis_name), state)[1]
        rows = jax.tree.map(lambda leaf: jnp.zeros((ROWS, *leaf.shape), leaf.dtype), shapes)

        def body(i: Array, loop: Result) -> Result:
            state, rows = loop
            state, row = iterate(plain, hyper, state, axis_name)
            return state, jax.tree.map(lambda old, new: old.at[i].set(new), rows, row)

        return jax.lax.fori_loop(0, n, body, (state, rows))

    def on_device(hyper: Hyper, n: Array, state: TrainState) -> Result:
        return spread(layout, partial(member, hyper, n), state)

    def chunk(hyper: Hyper, state: TrainState, n: Array) -> tuple[TrainState, Metrics]:
        specs = layout.state_specs(state)
        rows_spec = P() if layout.kind == "envs" else P("devices")
        return jax.shard_map(
            on_device,
            mesh=layout.mesh,
            in_specs=(P(), P(), specs),
            out_specs=(specs, rows_spec),
            check_vma=False,
        )(hyper, n, state)

    return jax.jit(chunk, donate_argnums=1)


def make_evaluation(
    config: Config, layout: Layout, num_episodes: int, max_steps: int, is_deterministic: bool
) -> Callable[..., evaluation.Episodes]:
    """The compiled evaluation: `play(hyper, state, stream) -> Episodes [members, n]`."""
    plain = program(config)
    parts = assemble(plain)

    def member(hyper: Hyper, stream: Array, state: TrainState) -> evaluation.Episodes:
        first = schedules.resolve(hyper, jnp.ones(()))
        policy = acting_policy(plain, parts, state.params, state.observation_moments)
        return evaluation.episodes(
            plain,
            parts.environment,
            env_params(parts.environment, first),
            policy,
            num_episodes,
            max_steps,
            is_deterministic,
            jax.random.fold_in(jax.random.fold_in(state.key, EVALUATION), stream),
        )

    def play(hyper: Hyper, state: TrainState, stream: Array) -> evaluation.Episodes:
        if layout.kind == "envs":
            return spread(layout, partial(member, hyper, stream), state)
        return jax.shard_map(
            lambda h, s, members: spread(layout, partial(member, h, s), members),
            mesh=layout.mesh,
            in_specs=(P(), P(), layout.state_specs(state)),
            out_specs=P("devices"),
            check_vma=False,
        )(hyper, stream, state)

    return jax.jit(play)
