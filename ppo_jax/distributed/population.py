"""A population: many seeds side by side, as one `TrainState` with a leading axis [S].

All members share one `Hyper`, or each has its own. Then every leaf of `hyper` has the same leading
axis as the state, and the rest is unchanged (`has_own_hyper`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed import door, hosts
from ppo_jax.distributed.layout import Layout
from ppo_jax.kernels.chunks import map_members
from ppo_jax.kernels.compiler import compiler_options
from ppo_jax.rl.types import PyTree, TrainState
from ppo_jax.training.trainer import init


def without_budget(config: Config) -> Config:
    """Clear the fields that only the host reads, so that equal programs compile once."""
    return dataclasses.replace(config, total_env_steps=config.batch_size)


def has_own_hyper(hyper: Hyper) -> bool:
    """Check that every number of `hyper` has an axis of members; else all members share them."""
    return getattr(hyper.schedule_env_steps, "ndim", 0) > 0


def init_population(
    config: Config, hyper: Hyper, seed: int | Sequence[int], layout: Layout
) -> TrainState:
    """Start member i from `jax.random.key(seed + i)`, for every layout and population.

    Args:
        seed: of the first member, from which the others count up; or one seed for each member.
    """
    return place(make_init(config)(hyper, member_keys(seed, layout)), layout)


def member_keys(seed: int | Sequence[int], layout: Layout) -> Array:
    """The members' random keys, as `init_population` takes them; seeds are below 2^32."""
    seeds = range(seed, seed + layout.num_members) if isinstance(seed, int) else seed
    if jax.default_prng_impl.value == "threefry2x32":  # the key is the seed: no program
        words = np.array([[0, each] for each in seeds], np.uint32)
        return jax.random.wrap_key_data(jnp.asarray(words))
    return jnp.stack([jax.random.key(each) for each in seeds])


def make_init(config: Config) -> Callable[[Hyper, Array], TrainState]:
    """Compile the start: keys [members] to states, with equal draws on every platform.

    An accelerator starts members side by side, a CPU one after the other. Members' own numbers must
    not be spread over devices here. The loop over them would become collectives, which deadlock on
    a CPU.
    """
    plain = without_budget(config)

    def start(hyper: Hyper, keys: Array) -> TrainState:
        if has_own_hyper(hyper):
            return map_members(lambda own: init(plain, *own), (hyper, keys))
        return map_members(partial(init, plain, hyper), keys)

    return jax.jit(start, compiler_options=compiler_options(0))


def padded(state: TrainState, layout: Layout) -> TrainState:
    """Fill the state of S seeds up to the layout's members with copies of the first seed."""
    missing = layout.num_members - state.alive.shape[0]
    if not missing:
        return state
    chosen = np.r_[np.arange(state.alive.shape[0]), np.zeros(missing, int)]
    return jax.tree.map(lambda leaf: leaf[chosen], state)


def trimmed(state: TrainState, layout: Layout) -> TrainState:
    """The state of the S requested seeds."""
    if state.alive.shape[0] == layout.num_seeds:
        return state
    return jax.tree.map(lambda leaf: leaf[: layout.num_seeds], state)


def of_width(state: TrainState, width: int) -> TrainState:
    """Shapes of the first `width` members, without the padding that fills up the devices."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((width, *leaf.shape[1:]), leaf.dtype), state
    )


def place(state: TrainState, layout: Layout) -> TrainState:
    """Place a population's state on its devices."""
    return door.put(state, placement(state, layout))


def placement(state: TrainState, layout: Layout) -> TrainState:
    """The sharding of each leaf of a population's state."""
    return jax.tree.map(
        lambda spec: NamedSharding(layout.mesh, spec),
        layout.state_specs(state),
        is_leaf=lambda leaf: isinstance(leaf, P),
    )


def place_hyper(hyper: Hyper, layout: Layout) -> Hyper:
    """Place every member's own numbers beside its state, and shared ones on every device."""
    place = NamedSharding(layout.mesh, layout.member_spec(has_own_hyper(hyper)))
    return door.put(hyper, jax.tree.map(lambda _: place, hyper))


def place_lengths(lengths: np.ndarray | np.int32, layout: Layout) -> Any:
    """Place one number for each member beside its state, if other hosts have members."""
    if hosts.count() == 1 or not np.ndim(lengths):
        return lengths
    return door.put(lengths, NamedSharding(layout.mesh, layout.member_spec(True)))


def abstract_population(config: Config, hyper: Hyper, layout: Layout) -> TrainState:
    """Shapes, dtypes and shardings of a population's state, without making one."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), layout.num_members))
    return in_place(jax.eval_shape(make_init(config), hyper, keys), layout)


def in_place(shapes: PyTree, layout: Layout) -> TrainState:
    """A population's shapes and dtypes with the sharding of each leaf."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        placement(shapes, layout),
    )


def make_gather(layout: Layout) -> Callable[[TrainState, Array], TrainState]:
    """Compile the copy `gather(state, sources)`: member i continues from member sources[i].

    Members keep their random keys. Two copies diverge if their keys or their numbers differ.
    `state` is donated.
    """

    def gather(state: TrainState, sources: Array) -> TrainState:
        return jax.tree.map(lambda leaf: leaf[sources], state)._replace(key=state.key)

    return jax.jit(gather, donate_argnums=0, out_shardings=layout.state_places)


def make_refill(layout: Layout) -> Callable[[TrainState, TrainState, Array], TrainState]:
    """Compile the choice `refill(state, fresh, is_new)`, [members] bool; `state` is donated."""

    def refill(state: TrainState, fresh: TrainState, is_new: Array) -> TrainState:
        def choose(new: Array, old: Array) -> Array:
            return jnp.where(is_new.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        return jax.tree.map(choose, fresh, state)

    return jax.jit(refill, donate_argnums=0, out_shardings=layout.state_places)
