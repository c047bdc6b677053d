"""Runs side by side: with `layouts`, the only file that says mesh, sharding and vmap over runs.

A population is a `TrainState` whose leaves have a leading axis of S seeds; where they go is said by
a `Layout` (`layouts.py`).

All members may share one `Hyper`, or each has its own: then every leaf of `hyper` has the same
leading axis as the state, and nothing else changes (`has_own_hyper`).
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
from ppo_jax.distributed.layout import Layout
from ppo_jax.kernels.backend import is_cpu
from ppo_jax.kernels.packing import side_by_side
from ppo_jax.rl.types import MetricTable, PyTree, TrainState
from ppo_jax.training import evaluation, schedules
from ppo_jax.training.trainer import acting_policy, assemble, env_params, init, iterate

Result = tuple[TrainState, MetricTable]

ROWS = 256  # iterations at most in one call of a chunk; its metrics buffer has so many rows

# Folded into a member's key for evaluation; iterations fold in 0, 1, 2, ... and stay below it.
EVALUATION = 2**32 - 1


def program(config: Config) -> Config:
    """`config` without what only the host reads, so that equal programs are one program."""
    return dataclasses.replace(config, total_env_steps=config.batch_size)


def compiler_options(level: int) -> dict[str, int | str] | None:
    """How XLA shall compile for a CPU; benchmarks/README.md has the measurements.

    Compiling is what a newcomer waits for. LLVM's level 1 runs as fast as its default, and 0 is for
    what runs but once. The kernels follow one another as memory is saved by: an order that seeks to
    run them at the same time loses more by the threads' waiting for each other. Vectors are as wide
    as the machine has them, as are those of its library of products; XLA halves them where they
    have 512 bits. Its newer way of cutting arrays into tiles moves and transposes them faster.
    """
    if not is_cpu():
        return None
    options: dict[str, int | str] = {
        "xla_backend_optimization_level": level,
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        "xla_cpu_prefer_vector_width": 512,
        "xla_disable_hlo_passes": "while-loop-invariant-code-motion",
    }
    if (0, 11, 2) <= jax.__version_info__ < (0, 12):  # what it is known of
        options["xla_cpu_use_new_xtile_lowering"] = True
    return options


def has_own_hyper(hyper: Hyper) -> bool:
    """Whether every number of `hyper` has an axis of members; else all members share them."""
    return getattr(hyper.schedule_env_steps, "ndim", 0) > 0


def init_population(
    config: Config, hyper: Hyper, seed: int | Sequence[int], layout: Layout
) -> TrainState:
    """Member i starts from `jax.random.key(seed + i)`, whatever the layout and its neighbours.

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
    """The compiled start: keys [members] to states, one member after the other.

    Members' own numbers must not be spread over devices here: the loop over them would become
    exchanges between the devices, which on a CPU wait for each other for ever.
    """
    plain = program(config)

    def start(hyper: Hyper, keys: Array) -> TrainState:
        if has_own_hyper(hyper):
            return jax.lax.map(lambda own: init(plain, *own), (hyper, keys))
        return jax.lax.map(partial(init, plain, hyper), keys)

    return jax.jit(start, compiler_options=compiler_options(0))


def padded(state: TrainState, layout: Layout) -> TrainState:
    """The state of S seeds filled up to the layout's members with copies of the first seed."""
    missing = layout.num_members - state.alive.shape[0]
    if not missing:
        return state
    chosen = np.r_[np.arange(state.alive.shape[0]), np.zeros(missing, int)]
    return jax.tree.map(lambda leaf: leaf[chosen], state)


def trimmed(state: TrainState, layout: Layout) -> TrainState:
    """The state of the S seeds that were asked for."""
    if state.alive.shape[0] == layout.num_seeds:
        return state
    return jax.tree.map(lambda leaf: leaf[: layout.num_seeds], state)


def place(state: TrainState, layout: Layout) -> TrainState:
    """The population's state on its devices.

    Arrays of numpy are cut up without a program for every shape: half a second less, the first
    time, where several devices are one CPU.
    """

    def put(leaf: Array, place: NamedSharding) -> Array:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.device_put(np.asarray(leaf), place)
        words = jax.device_put(np.asarray(jax.random.key_data(leaf)), place)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))

    places = placement(state, layout)
    if is_cpu() and len(layout.devices) > 1:
        return jax.tree.map(put, state, places)
    return jax.device_put(state, places)


def placement(state: TrainState, layout: Layout) -> TrainState:
    """The sharding of each leaf of a population's state."""
    return jax.tree.map(
        lambda spec: NamedSharding(layout.mesh, spec),
        layout.state_specs(state),
        is_leaf=lambda leaf: isinstance(leaf, P),
    )


def place_hyper(hyper: Hyper, layout: Layout) -> Hyper:
    """Every member's own numbers beside its state, and shared ones on every device."""
    return jax.device_put(
        hyper, NamedSharding(layout.mesh, layout.member_spec(has_own_hyper(hyper)))
    )


def abstract_population(config: Config, hyper: Hyper, layout: Layout) -> TrainState:
    """Shapes, dtypes and places of a population's state, without making one."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), layout.num_members))
    return in_place(jax.eval_shape(make_init(config), hyper, keys), layout)


def in_place(shapes: PyTree, layout: Layout) -> TrainState:
    """A population's shapes and dtypes with the place of each leaf."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        placement(shapes, layout),
    )


def make_gather(layout: Layout) -> Callable[[TrainState, Array], TrainState]:
    """The compiled copy `gather(state, sources)`: member i goes on from member sources[i].

    Members keep their random keys, so that two copies do not stay alike. `state` is donated.
    """

    def gather(state: TrainState, sources: Array) -> TrainState:
        chosen = jax.tree.map(lambda leaf: leaf[sources], state)._replace(key=state.key)
        return jax.lax.with_sharding_constraint(chosen, placement(state, layout))

    return jax.jit(gather, donate_argnums=0)


def make_refill(layout: Layout) -> Callable[[TrainState, TrainState, Array], TrainState]:
    """The compiled choice `refill(state, fresh, is_new)`, [members] bool; `state` is donated."""

    def refill(state: TrainState, fresh: TrainState, is_new: Array) -> TrainState:
        def choose(new: Array, old: Array) -> Array:
            return jnp.where(is_new.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        return jax.lax.with_sharding_constraint(
            jax.tree.map(choose, fresh, state), placement(state, layout)
        )

    return jax.jit(refill, donate_argnums=0)


def spread(
    layout: Layout, one: Callable[..., PyTree], hyper: Hyper, number: Array, state: TrainState
) -> PyTree:
    """`one(hyper, number, state)` for every member on this device, by the layout's way.

    `hyper` and `number` are shared, or have the state's axis of members.
    """
    given = (hyper, number, state)
    is_own = (has_own_hyper(hyper), number.ndim > 0, True)
    if layout.kind != "vmap" and state.alive.shape[0] == 1:  # a loop over one member costs kernels
        alone = [
            jax.tree.map(lambda leaf: leaf[0], tree) if own else tree
            for tree, own in zip(given, is_own, strict=True)
        ]
        return jax.tree.map(lambda leaf: leaf[None], one(*alone))
    if layout.kind == "vmap":
        return jax.vmap(one, in_axes=tuple(0 if own else None for own in is_own))(*given)
    own = tuple(x for x, each in zip(given, is_own, strict=True) if each)

    def unpacked(packed: tuple[Any, ...]) -> PyTree:
        stream = iter(packed)
        return one(*(next(stream) if each else x for x, each in zip(given, is_own, strict=True)))

    return jax.lax.map(unpacked, own)


def make_chunk(config: Config, layout: Layout) -> Callable[..., Result]:
    """The compiled loop: `chunk(hyper, state, n) -> (state, rows)` runs n <= ROWS iterations.

    n is data, so chunks of every length are one program; as an array it has a length for each
    member, and where members run one after the other a length of 0 costs nothing. `hyper` is
    shared or has an axis of members. `state` is donated. Rows are name -> [members, ROWS], of which
    the first n are meant.
    """
    plain = program(config)
    axis_name = "devices" if layout.kind == "envs" else None

    # As a program within the program it is traced once, for the shapes of a row and for the loop.
    @jax.jit
    def step(hyper: Hyper, state: TrainState) -> Result:
        state, row = iterate(plain, hyper, state, axis_name)
        return state, MetricTable(side_by_side(list(row.values())), tuple(row))

    def member(hyper: Hyper, n: Array, state: TrainState) -> Result:
        row = jax.eval_shape(step, hyper, state)[1]
        put = jax.lax.dynamic_update_index_in_dim
        table = jax.tree.map(lambda values: jnp.zeros((ROWS, *values.shape), values.dtype), row)

        def body(i: Array, loop: Result) -> Result:
            state, table = loop
            state, row = step(hyper, state)
            return state, jax.tree.map(lambda rows, new: put(rows, new, i, 0), table, row)

        return jax.lax.fori_loop(0, n, body, (state, table))

    def on_device(hyper: Hyper, n: Array, state: TrainState) -> Result:
        return spread(layout, member, hyper, n, state)

    def chunk(hyper: Hyper, state: TrainState, n: Array) -> Result:
        specs = layout.state_specs(state)
        rows_spec = layout.member_spec(True)
        own = layout.member_spec(has_own_hyper(hyper)), layout.member_spec(jnp.ndim(n) > 0)
        return jax.shard_map(
            on_device,
            mesh=layout.mesh,
            in_specs=(*own, specs),
            out_specs=(specs, rows_spec),
            check_vma=False,
        )(hyper, n, state)

    return jax.jit(chunk, donate_argnums=1, compiler_options=compiler_options(1))


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
            return spread(layout, member, hyper, stream, state)
        return jax.shard_map(
            partial(spread, layout, member),
            mesh=layout.mesh,
            in_specs=(layout.member_spec(has_own_hyper(hyper)), P(), layout.state_specs(state)),
            out_specs=P("devices"),
            check_vma=False,
        )(hyper, stream, state)

    return jax.jit(play, compiler_options=compiler_options(1))
