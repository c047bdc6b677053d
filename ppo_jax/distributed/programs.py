"""Compiled programs over a population: the chunk of iterations, and the evaluation.

Only this file, `layout` and `population` use meshes, shardings and vmap over runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed import hosted
from ppo_jax.distributed.layout import MAX_CHUNK as MAX_CHUNK
from ppo_jax.distributed.layout import Layout
from ppo_jax.distributed.population import has_own_hyper, without_budget
from ppo_jax.envs.interface import refuse_host
from ppo_jax.kernels import backend
from ppo_jax.kernels.compiler import compiler_options
from ppo_jax.kernels.packing import MetricTable
from ppo_jax.kernels.reductions import stack_scalars
from ppo_jax.models.agent import acting_policy, assemble, env_params
from ppo_jax.rl.types import PyTree, TrainState
from ppo_jax.training import evaluation, schedules
from ppo_jax.training.trainer import Estimates, Experience, iterate, sample

Result = tuple[TrainState, MetricTable]
Keep = Callable[[Experience, Estimates], PyTree]

# Folded into a member's key for evaluation; iterations fold in 0, 1, 2, ... and stay below it.
EVALUATION = 2**32 - 1
SKIP = 2**32 - 1  # the stream of a member that is not evaluated


def spread(
    layout: Layout, one: Callable[..., PyTree], hyper: Hyper, number: Array, state: TrainState
) -> PyTree:
    """Run `one(hyper, number, state)` for every member on this device, as the layout requires.

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
    """Compile the loop: `chunk(hyper, state, n) -> (state, rows)` runs n <= MAX_CHUNK iterations.

    n is data, so chunks of every length use one program. As an array it has one length per member;
    if members run one after the other, a length of 0 costs nothing. `hyper` is shared or has an
    axis of members. `state` is donated. Rows are name -> [members, MAX_CHUNK]; the first n are
    filled.
    """
    plain = without_budget(config)
    if assemble(plain).environment.host is not None:
        return hosted.Chunk(plain, layout)  # pyright: ignore[reportReturnType]

    # The inner jit traces it once, for the shapes of a row and for the loop.
    @jax.jit
    def step(hyper: Hyper, state: TrainState) -> Result:
        state, row = iterate(plain, hyper, state, layout.across)
        return state, MetricTable(stack_scalars(list(row.values())), tuple(row))

    def member(hyper: Hyper, n: Array, state: TrainState) -> Result:
        row = jax.eval_shape(step, hyper, state)[1]
        put = jax.lax.dynamic_update_index_in_dim
        table = jax.tree.map(
            lambda values: jnp.zeros((MAX_CHUNK, *values.shape), values.dtype), row
        )

        def body(i: Array, loop: Result) -> Result:
            state, table = loop
            state, row = step(hyper, state)
            return state, jax.tree.map(lambda rows, new: put(rows, new, i, 0), table, row)

        return jax.lax.fori_loop(0, n, body, (state, table))

    def on_device(hyper: Hyper, n: Array, state: TrainState) -> Result:
        with backend.on(layout.devices[0]):
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

    places = layout.state_places, NamedSharding(layout.mesh, layout.member_spec(True))
    options = compiler_options(1)
    return jax.jit(chunk, donate_argnums=1, out_shardings=places, compiler_options=options)


@contextmanager
def released(chunk: Any) -> Iterator[None]:
    """Close at the end what a chunk holds outside jax."""
    try:
        yield
    finally:
        if isinstance(chunk, hosted.Chunk):
            chunk.close()


def make_evaluation(
    config: Config, layout: Layout, num_episodes: int, max_steps: int, is_deterministic: bool
) -> Callable[..., evaluation.Episodes]:
    """Compile the evaluation: `play(hyper, state, stream) -> Episodes [members, n]`.

    `stream` picks the random numbers, for all members or [members] for each. A member whose own
    stream is SKIP plays no episode, which costs nothing if members run one after the other.
    """
    plain = without_budget(config)
    parts = assemble(plain)
    if parts.environment.host is not None:
        return hosted.Evaluation(plain, num_episodes, max_steps, is_deterministic)

    def member(
        may_skip: bool, hyper: Hyper, stream: Array, state: TrainState
    ) -> evaluation.Episodes:
        is_wanted = stream != jnp.uint32(SKIP) if may_skip else True
        first = schedules.resolve(hyper, jnp.ones(()))
        world = env_params(parts.environment, first)
        policy = acting_policy(plain, parts, state.params, state.observation_moments, world)
        return evaluation.episodes(
            plain,
            parts.environment,
            world,
            policy,
            evaluation.Contest(num_episodes, max_steps, is_deterministic, is_wanted),
            jax.random.fold_in(jax.random.fold_in(state.key, EVALUATION), stream),
        )

    def play(hyper: Hyper, state: TrainState, stream: Array) -> evaluation.Episodes:
        is_own = jnp.ndim(stream) > 0
        one = partial(member, is_own)
        # Devices that share a seed play the same episodes; there are too few to spread.
        lean = state._replace(carry=(), discounted_return=())
        specs = (layout.member_spec(has_own_hyper(hyper)), layout.member_spec(is_own))
        return jax.shard_map(
            partial(spread, layout, one),
            mesh=layout.mesh,
            in_specs=(*specs, jax.tree.map(lambda _: P("seed"), lean)),
            out_specs=P("seed"),
            check_vma=False,
        )(hyper, stream, lean)

    return jax.jit(play, compiler_options=compiler_options(1))


def first_number(leaf: Array) -> Array:
    """The first number of an array, which may hold keys."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return leaf.reshape(-1)[0] * 1.0


def make_phase(config: Config, layout: Layout, keep: Keep) -> Any:
    """Build the jitted loop over first halves of iterations: `phase(hyper, state, n)`, for timing.

    The environments continue from iteration to iteration; the policy stays the same. Parts that
    `keep` drops are not computed.
    """
    plain = without_budget(config)
    refuse_host(assemble(plain).environment, *hosted.REFUSED["phases"])

    def member(hyper: Hyper, n: Array, state: TrainState) -> Array:
        def first_half(state: TrainState) -> tuple[Experience, Estimates]:
            return sample(plain, hyper, state, layout.across)

        def body(_: Array, loop: tuple[TrainState, PyTree]) -> tuple[TrainState, PyTree]:
            state, _ = loop
            experience, estimates = first_half(state)
            state = state._replace(carry=experience.carry, iteration=state.iteration + 1)
            return state, keep(experience, estimates)

        shapes = jax.eval_shape(lambda state: keep(*first_half(state)), state)
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        state, kept = jax.lax.fori_loop(0, n, body, (state, blank))
        used = jax.tree.leaves((state.carry, kept))  # one number of each, so that all are computed
        return sum((first_number(leaf) for leaf in used if leaf.size), jnp.zeros(()))

    def phase(hyper: Hyper, state: TrainState, n: Array) -> Array:
        specs = (layout.member_spec(has_own_hyper(hyper)), layout.member_spec(False))
        return jax.shard_map(
            partial(spread, layout, member),
            mesh=layout.mesh,
            in_specs=(*specs, layout.state_specs(state)),
            out_specs=layout.member_spec(True),
            check_vma=False,
        )(hyper, n, state)

    return jax.jit(phase, compiler_options=compiler_options(1))
