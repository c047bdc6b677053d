"""Programs for environments that are stepped outside jax, in the places of those of `programs`.

`Chunk` and `Evaluation` are lowered, compiled and called as jitted functions are. Members run one
after the other, each with environments of its own, which live as long as the chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.distributed.layout import Layout
from ppo_jax.distributed.population import has_own_hyper, place
from ppo_jax.envs import leaves
from ppo_jax.envs.interface import HostStep, HostVector, action_mask, refuse_host
from ppo_jax.kernels.compiler import compiler_options
from ppo_jax.models.agent import assemble, env_params
from ppo_jax.rl.types import PyTree, TrainState
from ppo_jax.training import hosted
from ppo_jax.training.evaluation import Episodes

# Folded into a member's key: for the seeds of its environments in training, for those of an
# evaluation, which must not play the same levels, and for the draws of an evaluation's policy.
STARTS, EVALUATION_STARTS, EVALUATION_DRAWS = 2**32 - 3, 2**32 - 4, 2**32 - 2
MAX_ENVS = 16  # environments of an evaluation, which play its episodes one after the other
Rows = dict[str, np.ndarray]


class Programs(NamedTuple):
    """The compiled parts of an iteration of one member."""

    fresh: Any
    draw: Any
    respond: Any
    absorb: Any


class Chunk:
    """The chunk of `programs.make_chunk`: `chunk(hyper, state, n) -> (state, rows [members, n])`.

    The first call begins new episodes, also of a run that goes on.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config = config
        self.layout = layout
        self.here = SingleDeviceSharding(layout.devices[0])
        self.traced: Programs | None = None
        self.programs: Programs | None = None
        self.vectors: list[tuple[HostVector, hosted.Seen]] = []

    def lower(self, hyper: Hyper, state: TrainState, n: Any) -> Chunk:
        """Trace the programs; `state` may be shapes."""
        if has_own_hyper(hyper) or np.ndim(n):
            environment = assemble(self.config).environment
            refuse_host(environment, *REFUSED["sweep"])
        self.traced = lower_iteration(self.config, hyper, first_member(state))
        return self

    def compile(self) -> Chunk:
        """Compile what was traced."""
        assert self.traced is not None
        self.programs = Programs(*(each.compile() for each in self.traced))
        return self

    def memory_analysis(self) -> Any:
        """The memory of the program that learns, as XLA reports it; None before compilation."""
        return None if self.programs is None else self.programs.absorb.memory_analysis()

    def __call__(self, hyper: Hyper, state: TrainState, n: Any) -> tuple[TrainState, Rows]:
        assert self.programs is not None
        hyper = jax.device_put(hyper, self.here)
        states, tables = [], []
        for k in range(state.alive.shape[0]):
            own = jax.device_put(jax.tree.map(lambda leaf, k=k: leaf[k], state), self.here)
            own, rows = self._train(hyper, own, k, int(n))
            states.append(own)
            tables.append(rows)
        state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        rows = {
            name: np.stack([[row[name] for row in table] for table in tables]).reshape(-1, int(n))
            for name in (tables[0][0] if tables[0] else ())
        }
        return place(state, self.layout), rows

    def close(self) -> None:
        """Close the environments."""
        for vector, _ in self.vectors:
            vector.close()
        self.vectors = []

    def _train(
        self, hyper: Hyper, state: TrainState, k: int, n: int
    ) -> tuple[TrainState, list[dict[str, Any]]]:
        """Train member k for n iterations."""
        assert self.programs is not None
        if k == len(self.vectors):  # its first chunk in this process
            vector, seen = start(self.config, hyper, state)
            state = self.programs.fresh(hyper, state)
            self.vectors.append((vector, seen))
        vector, seen = self.vectors[k]
        rows = []
        for _ in range(n):
            steps, hand, seen = take(self.config, self.programs, (vector, seen), hyper, state)
            state, row = self.programs.absorb(hyper, state, steps, hand)
            rows.append(row)
        self.vectors[k] = (vector, seen)
        return state, jax.device_get(rows)


# The uses that only pure environments have: (what cannot be, what to do).
REFUSED = {
    "sweep": (
        "its settings cannot share one program",
        "run `ppo-jax train` for each setting, with --seeds for the seeds of one",
    ),
    "phases": ("its steps are no part of a program to be timed", "read timing.jsonl of a run"),
    "replay": ("a run cannot be repeated bit for bit", "look at its rows and checkpoints"),
    "samples": ("its samples cannot be drawn again", "look at its rows and checkpoints"),
}


def first_member(state: TrainState) -> TrainState:
    """Shapes of one member of a population, or of its shapes."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state)


def lower_iteration(config: Config, hyper: Hyper, state: TrainState) -> Programs:
    """Trace the parts of an iteration; `state` is the shapes of one member."""
    options = compiler_options(1)
    acting, draws, hand = jax.eval_shape(partial(hosted.draw, config), hyper, state)
    shown = shapes_of(config, (config.num_envs,))
    seen = hosted.Seen(shown, jax.ShapeDtypeStruct((config.num_envs,), jnp.bool_))
    given = (acting, draws, hand, seen, jax.ShapeDtypeStruct((), jnp.int32))
    reply, _ = jax.eval_shape(partial(hosted.respond, config), *given)
    whole = (config.rollout_length, config.num_envs)
    flags = jax.ShapeDtypeStruct(whole, jnp.bool_)
    steps = hosted.Steps(
        observation=shapes_of(config, whole),
        final=shapes_of(config, whole),
        action=longer(reply.action, whole[0]),
        distribution=longer(reply.distribution, whole[0]),
        reward=jax.ShapeDtypeStruct(whole, jnp.float32),
        terminated=flags,
        truncated=flags,
        following=shown,
    )

    def lowered(function: Any, *arguments: Any) -> Any:
        return jax.jit(partial(function, config), compiler_options=options).lower(*arguments)

    return Programs(
        lowered(hosted.fresh, hyper, state),
        lowered(hosted.draw, hyper, state),
        lowered(hosted.respond, *given),
        lowered(hosted.absorb, hyper, state, steps, hand),
    )


def longer(tree: PyTree, length: int) -> PyTree:
    """Shapes with a leading axis of time."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((length, *leaf.shape), leaf.dtype), tree)


def shapes_of(config: Config, lead: tuple[int, ...]) -> PyTree:
    """Shapes of an environment's own observations with leading axes."""
    host = assemble(config).environment.host
    assert host is not None
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((*lead, *leaf.shape), leaf.dtype), host.observation
    )


def start(config: Config, hyper: Hyper, state: TrainState) -> tuple[HostVector, hosted.Seen]:
    """New environments of one member, and their first observations.

    Raises:
        InputError: an episode starts without a legal action.
    """
    vector, environment = make_vector(config, hyper, config.num_envs), assemble(config).environment
    seen = beginning(config, vector, (STARTS, int(state.iteration)), state)
    if action_mask(environment.observation) is not None:
        mask = action_mask(hosted.stored(environment, seen.observation))
        try:
            leaves.require_legal(environment, jax.device_get(mask))
        except InputError:
            vector.close()
            raise
    return vector, seen


def make_vector(
    config: Config,
    hyper: Hyper,
    num_envs: int,
    for_pictures: bool = False,
    cut_at: int | None = None,
) -> HostVector:
    """Environments with the run's own parameters."""
    environment = assemble(config).environment
    assert environment.host is not None
    params = jax.device_get(env_params(environment, hyper))
    return environment.host.make(num_envs, params, for_pictures, cut_at)


def beginning(
    config: Config, vector: HostVector, stream: tuple[int, int], state: TrainState
) -> hosted.Seen:
    """The first observations; the environments' seeds follow from the member's key and `stream`."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, stream[0]), stream[1])
    shown = fitting(config, vector.reset(int(jax.random.randint(key, (), 0, 2**30))))
    return hosted.Seen(shown, np.ones(len(jax.tree.leaves(shown)[0]), bool))


def stepped(config: Config, vector: HostVector, action: PyTree) -> HostStep:
    """Take one step.

    Raises:
        InputError: an environment failed; the sentence has its own words.
    """
    try:
        return vector.step(action)
    except Exception as error:
        name, reason = assemble(config).environment.name, str(error).strip().split("\n")[0]
        raise InputError(
            f"{name} failed in a step ({type(error).__name__}: {reason}): `ppo-jax doctor` plays "
            "it alone; mend the environment, then resume the run from its newest checkpoint."
        ) from error


def fitting(config: Config, observation: PyTree) -> PyTree:
    """Observations in the dtypes that the programs take."""
    host = assemble(config).environment.host
    assert host is not None
    return jax.tree.map(
        lambda kind, leaf: np.asarray(leaf, kind.dtype), host.observation, observation
    )


def take(
    config: Config,
    programs: Programs,
    place: tuple[HostVector, hosted.Seen],
    hyper: Hyper,
    state: TrainState,
) -> tuple[hosted.Steps, hosted.Hand, hosted.Seen]:
    """The T steps of an iteration, the hand after them, and what is seen next."""
    vector, seen = place
    acting, draws, hand = programs.draw(hyper, state)
    kept: list[tuple[PyTree, ...]] = []
    for t in range(config.rollout_length):
        reply, hand = programs.respond(acting, draws, hand, seen, np.int32(t))
        own, action, distribution = jax.device_get(reply)
        found = stepped(config, vector, own)
        following, final = (fitting(config, rows) for rows in (found.observation, found.final))
        ends = (found.reward, found.terminated, found.truncated)
        kept.append((seen.observation, final, action, distribution, *ends))
        seen = hosted.Seen(following, found.terminated | found.truncated)
    whole = jax.tree.map(lambda *leaves: np.stack(leaves), *kept)
    return hosted.Steps(*whole, following=seen.observation), hand, seen


def record(config: Config, hyper: Hyper, state: TrainState) -> tuple[PyTree, Any]:
    """The stored observations [T, B, *O] of a member's steps from fresh starts, and their ends."""
    programs = Programs(*(each.compile() for each in lower_iteration(config, hyper, state)))
    vector, seen = start(config, hyper, state)
    try:
        steps, _, _ = take(config, programs, (vector, seen), hyper, state)
    finally:
        vector.close()
    environment = assemble(config).environment
    observation = jax.vmap(partial(hosted.stored, environment))(steps.observation)
    return jax.device_get(observation), steps.terminated | steps.truncated


class Evaluation:
    """The evaluation of `programs.make_evaluation`: `play(hyper, state, stream)`.

    Each environment plays its share of the episodes, so that short ones are not favoured.
    """

    def __init__(
        self, config: Config, num_episodes: int, max_steps: int, is_deterministic: bool
    ) -> None:
        self.config = config
        self.num_episodes = num_episodes
        self.max_steps = max_steps
        self.answer = jax.jit(partial(hosted.answer, config, is_deterministic))

    def lower(self, *_: Any) -> Evaluation:
        """Nothing is traced before the first call."""
        return self

    def compile(self) -> Evaluation:
        """Nothing is compiled before the first call."""
        return self

    def __call__(self, hyper: Hyper, state: TrainState, stream: Any) -> Episodes:
        found = []
        num_envs = min(MAX_ENVS, self.num_episodes)
        vector = make_vector(self.config, hyper, num_envs, cut_at=self.max_steps)
        try:
            for k in range(state.alive.shape[0]):
                own = jax.tree.map(lambda leaf, k=k: leaf[k], state)
                found.append(self._play(vector, own, int(stream)))
        finally:
            vector.close()
        return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

    def _play(self, vector: HostVector, state: TrainState, stream: int) -> Episodes:
        """The episodes of one member, those of one environment side by side."""
        count = self.num_episodes
        num_envs = min(MAX_ENVS, count)
        share = [len(range(i, count, num_envs)) for i in range(num_envs)]
        returns: list[list[float]] = [[] for _ in share]
        lengths: list[list[int]] = [[] for _ in share]
        is_whole: list[list[bool]] = [[] for _ in share]
        total, age = np.zeros(num_envs, np.float64), np.zeros(num_envs, int)
        for found in plays(self.config, self.answer, vector, state, stream):
            total, age = total + found.reward, age + 1
            for i in np.flatnonzero(found.terminated | found.truncated | found.cut):
                returns[i].append(float(total[i]))
                lengths[i].append(int(age[i]))
                is_whole[i].append(not found.cut[i])
                total[i], age[i] = 0.0, 0
            if all(len(own) >= wanted for own, wanted in zip(returns, share, strict=True)):
                break
        kept: list[Any] = [
            np.concatenate([own[:wanted] for own, wanted in zip(each, share, strict=True)])
            for each in (returns, lengths, is_whole)
        ]
        kept.append(np.zeros_like(kept[2]))  # none is counted as stalled
        return Episodes(kept[0].astype(np.float32), kept[1].astype(np.int32), *kept[2:])


def plays(
    config: Config, answer: Any, vector: HostVector, state: TrainState, stream: int
) -> Iterator[HostStep]:
    """One step after the other of a policy that acts and does not learn.

    Args:
        answer: `hosted.answer` of the configuration, jitted. state: of one member. stream: picks
            the random numbers.
    """
    parts = assemble(config)
    acting = hosted.Acting(state.params, state.observation_moments)
    seen = beginning(config, vector, (EVALUATION_STARTS, stream), state)
    key = jax.random.fold_in(jax.random.fold_in(state.key, EVALUATION_DRAWS), stream)
    num_envs = len(seen.begins)
    hand = hosted.Hand(
        parts.network.start(state.params, num_envs), parts.family.draw_noise(key, num_envs)
    )
    t = 0
    while True:
        reply, hand = answer(acting, hand, seen, (key, np.int32(t)))
        found = stepped(config, vector, jax.device_get(reply.own))
        yield found
        ended = found.terminated | found.truncated | found.cut
        seen = hosted.Seen(fitting(config, found.observation), ended)
        t += 1
