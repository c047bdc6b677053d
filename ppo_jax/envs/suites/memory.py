"""Small tasks that cannot be solved without a memory. Each has an answer in closed form.

| id | the task | without memory | best |
|---|---|---|---|
| TMaze-v0 | turn at a corridor's end to the side that the first observation showed | 0 | 1 |
| Recall-v0 | repeat a bit after `delay` empty steps | 0 | 1 |
| RepeatPrevious-v0 | repeat the symbol of `k` steps ago, at every step | -0.5 | 1 |
| RepeatFirst-v0 | repeat the first symbol at every step | -0.5 | 1 |

The tasks without velocities show positions only: CartPole, Pendulum, MountainCarContinuous.

Sources: the T-maze of Bakker 2001, "Reinforcement Learning with Long Short-Term Memory";
RepeatPrevious and RepeatFirst after POPGym (Morad et al. 2023), with independent symbols in place
of a deck of cards; the tasks without velocities after rl-baselines3-zoo's `NoVel` environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.envs import params as parameters
from ppo_jax.envs.conform import conform
from ppo_jax.envs.interface import Discrete, Environment
from ppo_jax.envs.suites.gymnax import adapter as gymnax

NUM_SYMBOLS = 4
MAX_K = 64  # symbols that RepeatPrevious keeps
# Places of the positions in the observation of each task.
POSITIONS = {
    "CartPole-NoVelocity-v1": ("CartPole-v1", (0, 2)),
    "Pendulum-NoVelocity-v1": ("Pendulum-v1", (0, 1)),
    "MountainCarContinuous-NoVelocity-v0": ("MountainCarContinuous-v0", (0,)),
}


def make(name: str) -> Environment:
    """The task `name`."""
    if name in POSITIONS:
        base, places = POSITIONS[name]
        return positions_only(base, places, f"memory/{name}")
    return _TASKS[name](f"memory/{name}")


class TMazeParams(NamedTuple):
    """Numbers of the T-maze."""

    length: Any = 10  # steps from the start to the junction
    max_steps_in_episode: Any = 100


class TMazeState(NamedTuple):
    """Position in the corridor, the right side (-1 or 1), and time."""

    position: Array
    side: Array
    time: Array


def t_maze(name: str) -> Environment:
    """A corridor with a junction; actions: 0 forward, 1 left, 2 right.

    The observation [2] is the right side, shown at the first step only, and 1 at the junction. A
    turn at the junction ends the episode with 1 or -1; elsewhere it does nothing.
    """

    def look(state: TMazeState, params: TMazeParams) -> Array:
        shown = jnp.where(state.time == 0, state.side, 0)
        return jnp.stack([shown, state.position >= params.length]).astype(jnp.float32)

    def reset(key: Array, params: TMazeParams) -> tuple[Array, TMazeState]:
        zero = jnp.zeros((), jnp.int32)
        state = TMazeState(zero, 2 * jax.random.bernoulli(key).astype(jnp.int32) - 1, zero)
        return look(state, params), state

    def step(key: Array, state: TMazeState, action: Array, params: TMazeParams) -> tuple:
        is_turn = (state.position >= params.length) & (action > 0)
        reward = jnp.where(is_turn, jnp.where(2 * action - 3 == state.side, 1.0, -1.0), 0.0)
        position = jnp.minimum(state.position + (action == 0), params.length)
        after = TMazeState(position.astype(jnp.int32), state.side, state.time + 1)
        is_late = after.time >= params.max_steps_in_episode
        return look(after, params), after, reward, is_turn, is_late, {}

    environment = conform(
        name,
        reset,
        step,
        params=TMazeParams(),
        action_space=Discrete(3),
        max_episode_steps=parameters.time_limit,
    )
    return _limited(environment, length=(0, None))


class RecallParams(NamedTuple):
    """Number of steps between the bit and the question."""

    delay: Any = 10


class RecallState(NamedTuple):
    """The bit (-1 or 1) and time."""

    bit: Array
    time: Array


def recall(name: str) -> Environment:
    """A bit is shown once; the action at the question, `delay` steps later, must repeat it.

    The observation [2] is the bit, shown at the first step only, and 1 at the question. The answer
    pays 1 or -1 and ends the episode; earlier actions do nothing.
    """

    def look(state: RecallState, params: RecallParams) -> Array:
        shown = jnp.where(state.time == 0, state.bit, 0)
        return jnp.stack([shown, state.time >= params.delay]).astype(jnp.float32)

    def reset(key: Array, params: RecallParams) -> tuple[Array, RecallState]:
        bit = 2 * jax.random.bernoulli(key).astype(jnp.int32) - 1
        state = RecallState(bit, jnp.zeros((), jnp.int32))
        return look(state, params), state

    def step(key: Array, state: RecallState, action: Array, params: RecallParams) -> tuple:
        is_asked = state.time >= params.delay
        reward = jnp.where(is_asked, jnp.where(2 * action - 1 == state.bit, 1.0, -1.0), 0.0)
        after = RecallState(state.bit, state.time + 1)
        return look(after, params), after, reward, is_asked, False, {}

    environment = conform(
        name,
        reset,
        step,
        params=RecallParams(),
        action_space=Discrete(2),
        max_episode_steps=None,
    )
    return _limited(environment, delay=(0, None))


class RepeatParams(NamedTuple):
    """Numbers of RepeatPrevious: the distance, and the symbols of an episode."""

    k: Any = 4
    num_symbols: Any = 52


class RepeatFirstParams(NamedTuple):
    """The symbols of an episode."""

    num_symbols: Any = 52


class RepeatState(NamedTuple):
    """The last MAX_K symbols, newest first, the first of the episode, and time."""

    symbols: Array  # [MAX_K]
    first: Array
    time: Array


def _repeat(name: str, params: Any, wanted: Any, start: Any) -> Environment:
    """Symbols one by one, shown one-hot [NUM_SYMBOLS]; each answer pays an equal part of 1 or -1.

    Args:
        wanted: (state, params) -> the right answer.
        start: params -> the first step whose answer counts.
    """

    def look(state: RepeatState) -> Array:
        return jax.nn.one_hot(state.symbols[0], NUM_SYMBOLS)

    def reset(key: Array, params: Any) -> tuple[Array, RepeatState]:
        symbol = jax.random.randint(key, (), 0, NUM_SYMBOLS)
        symbols = jnp.zeros(MAX_K, jnp.int32).at[0].set(symbol)
        state = RepeatState(symbols, symbol, jnp.zeros((), jnp.int32))
        return look(state), state

    def step(key: Array, state: RepeatState, action: Array, params: Any) -> tuple:
        first = start(params)
        share = 1.0 / jnp.maximum(params.num_symbols - first, 1)
        reward = jnp.where(action == wanted(state, params), share, -share)
        reward = jnp.where(state.time >= first, reward, 0.0)
        symbol = jax.random.randint(key, (), 0, NUM_SYMBOLS)
        symbols = jnp.roll(state.symbols, 1).at[0].set(symbol)
        after = RepeatState(symbols, state.first, state.time + 1)
        return look(after), after, reward, after.time >= params.num_symbols, False, {}

    return conform(
        name,
        reset,
        step,
        params=params,
        action_space=Discrete(NUM_SYMBOLS),
        max_episode_steps=None,
    )


def repeat_previous(name: str) -> Environment:
    """The answer is the symbol of `k` steps ago; the first `k` answers do not count."""
    environment = _repeat(
        name,
        RepeatParams(),
        lambda state, params: state.symbols[params.k],
        lambda params: params.k,
    )
    return _limited(environment, k=(0, MAX_K - 1), num_symbols=(1, None))


def repeat_first(name: str) -> Environment:
    """The answer is the episode's first symbol; the first answer does not count."""
    environment = _repeat(
        name, RepeatFirstParams(), lambda state, params: state.first, lambda params: 1
    )
    return _limited(environment, num_symbols=(2, None))


def _limited(environment: Environment, **limits: tuple[int, int | None]) -> Environment:
    """`environment`, which refuses parameters out of their limits (lowest, highest or None)."""

    def override(params: Any, values: Mapping[str, Any]) -> Any:
        changed = environment.override(params, dict(values))
        parameters.require_within(changed, limits)
        return changed

    return environment._replace(override=override)


def positions_only(base: str, places: tuple[int, ...], name: str) -> Environment:
    """A gymnax environment that shows only some numbers of its observation."""
    environment = gymnax.make(base)
    kept = jnp.asarray(places)

    def reset(key: Array, params: Any) -> tuple[Array, Any]:
        observation, state = environment.reset(key, params)
        return observation[kept], state

    def transition(key: Array, state: Any, action: Any, params: Any) -> tuple:
        observation, *rest = environment.transition(key, state, action, params)
        return (observation[kept], *rest)

    shape = jax.ShapeDtypeStruct((len(places),), environment.observation.dtype)
    return environment._replace(
        name=name, reset=reset, transition=transition, observation=shape, raw=None
    )


_TASKS = {
    "TMaze-v0": t_maze,
    "Recall-v0": recall,
    "RepeatPrevious-v0": repeat_previous,
    "RepeatFirst-v0": repeat_first,
}
