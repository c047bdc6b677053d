"""Random play of an environment, recorded step by step."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.distributed import door
from ppo_jax.envs.actions import dials_of, own_actions
from ppo_jax.envs.interface import (
    ActionSpace,
    Box,
    Discrete,
    Environment,
    MultiDiscrete,
    Product,
    Raw,
    action_mask,
)

NUM_ENVS = 8
NUM_STEPS = 1024


class Play(NamedTuple):
    """NUM_STEPS random steps of NUM_ENVS environments, reset by us where they ended."""

    key: Any  # [T, B], given to each transition; None of an environment outside jax
    action: Any  # [T, B, ...]
    state: Any  # [T, B, ...], before the step; () of an environment outside jax
    observation: Any  # [T, B, *O], before the step
    observation_next: Any  # [T, B, *O], the transition's own
    state_next: Any  # [T, B, ...], the transition's own
    reward: Array  # [T, B]
    terminated: Array  # [T, B]
    truncated: Array  # [T, B]


def play_twice(environment: Environment, key: Array, num_steps: int) -> tuple[Play, Play, float]:
    """The same random play, computed twice by one compiled program, and the second's seconds."""
    program = jax.jit(lambda key: play(environment, key, num_steps))
    first = jax.block_until_ready(program(key))
    began = perf_counter()
    second = jax.block_until_ready(program(key))
    return first, second, perf_counter() - began


def play(environment: Environment, key: Array, num_steps: int) -> Play:
    """NUM_ENVS environments, `num_steps` uniform actions each, under default parameters."""
    params = environment.default_params
    key_reset, key_steps = jax.random.split(key)
    start = jax.vmap(environment.reset, (0, None))(jax.random.split(key_reset, NUM_ENVS), params)

    def step(carry: tuple[Array, Any], key: Array) -> tuple[tuple[Array, Any], Play]:
        observation, state = carry
        key_action, key_env, key_reset = jax.random.split(key, 3)
        keys = jax.random.split(key_env, NUM_ENVS)
        action = jax.vmap(partial(random_action, environment.action_space))(
            jax.random.split(key_action, NUM_ENVS), action_mask(observation)
        )
        observation_next, state_next, reward, terminated, truncated, _ = jax.vmap(
            environment.transition, (0, 0, 0, None)
        )(keys, state, action, params)
        seen = Play(
            key=jax.random.key_data(keys),
            action=action,
            state=state,
            observation=observation,
            observation_next=observation_next,
            state_next=state_next,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
        )
        fresh = jax.vmap(environment.reset, (0, None))(
            jax.random.split(key_reset, NUM_ENVS), params
        )
        ended = terminated | truncated

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(ended.reshape(ended.shape + (1,) * (old.ndim - 1)), new, old)

        return jax.tree.map(choose, fresh, (observation_next, state_next)), seen

    return jax.lax.scan(step, start, jax.random.split(key_steps, num_steps))[1]


class HostPlay(NamedTuple):
    """A random play outside jax."""

    play: Play | None  # the steps before an error; None without any
    seconds: float  # in its steps
    error: Exception | None  # it ended the play


def play_host(environment: Environment, key: Array, num_steps: int) -> HostPlay:
    """NUM_ENVS environments outside jax, `num_steps` uniform legal actions each."""
    assert environment.host is not None
    encode, has_mask = environment.host.encode, action_mask(environment.observation) is not None

    @jax.jit
    def draw(key: Array, seen: Any) -> Any:
        mask = action_mask(jax.vmap(encode)(seen)) if has_mask else None
        keys = jax.random.split(key, NUM_ENVS)
        one = partial(random_action, environment.action_space)
        action = jax.vmap(one)(keys) if mask is None else jax.vmap(one)(keys, mask)
        return own_actions(environment, action)

    keys, steps, error, seconds = jax.random.split(key, num_steps), [], None, 0.0
    vector = environment.host.make(NUM_ENVS, environment.default_params, False, None)
    try:
        seen = vector.reset(0)
        for t in range(num_steps):
            action, began = door.fetch(draw(keys[t], seen)), perf_counter()
            found = vector.step(action)
            seconds += perf_counter() - began
            end = (found.final, (), found.reward, found.terminated, found.truncated)
            steps.append(Play(None, action, (), seen, *end))
            seen = found.observation
    except Exception as raised:
        error = raised
    finally:
        vector.close()
    play = jax.tree.map(lambda *rows: np.stack(rows), *steps) if steps else None
    return HostPlay(play, seconds, error)


def in_own_words(environment: Environment, play: Play) -> tuple[Any, Array, Array] | None:
    """The same steps as the environment itself has them: observation and both flags, [T, B, ...].

    None if it has no words of its own.
    """
    if environment.raw is None:
        return None
    one = partial(_uncast, environment.raw, environment.default_params)
    return jax.jit(jax.vmap(jax.vmap(one)))(play.key, play.state, play.action)


def _uncast(raw: Raw, params: Any, key_data: Array, state: Any, action: Any) -> Any:
    return raw.transition(jax.random.wrap_key_data(key_data), state, action, params)


def random_action(space: ActionSpace, key: Array, mask: Array | None = None) -> Any:
    """A uniform action; a dimension without bounds is normal around 0, or beyond its one bound.

    Args:
        mask: True for each legal action [n], those of several dials side by side. All are legal of
            a dial that allows none.
    """
    if isinstance(space, Product):
        keys = jax.random.split(key, len(space.parts))
        masks: list[Array | None] = [None] * len(keys)
        if mask is not None:
            sizes = [sum(dials_of(part)) for part in space.parts]
            masks = list(jnp.split(mask, np.cumsum(sizes)[:-1]))
        return tuple(map(random_action, space.parts, keys, masks))
    if isinstance(space, Discrete) and mask is None:
        return jax.random.randint(key, (), 0, space.n)
    if isinstance(space, MultiDiscrete) and mask is None:
        return jax.random.randint(key, (len(space.ns),), 0, jnp.array(space.ns))
    if not isinstance(space, Box):
        parts = jnp.split(jnp.asarray(mask), np.cumsum(dials_of(space))[:-1])
        keys = jax.random.split(key, len(parts))
        chances = [jnp.where(part | ~jnp.any(part), 0.0, -jnp.inf) for part in parts]
        drawn = [jax.random.categorical(*each) for each in zip(keys, chances)]
        return drawn[0] if isinstance(space, Discrete) else jnp.stack(drawn)
    has_low, has_high = np.isfinite(space.low), np.isfinite(space.high)
    bounded = has_low & has_high
    low, high = (np.where(bounded, end, 0.0) for end in (space.low, space.high))
    uniform = jax.random.uniform(key, space.shape, minval=low, maxval=high)
    normal = jax.random.normal(key, space.shape)
    from_high = np.where(has_high, space.high, 0.0) - jnp.abs(normal)
    from_low = np.where(has_low, space.low, 0.0) + jnp.abs(normal)
    free = jnp.where(has_low, from_low, jnp.where(has_high, from_high, normal))
    return jnp.where(bounded, uniform, free)
