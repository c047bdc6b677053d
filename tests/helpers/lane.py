"""An environment with one start, terminations and time limits, for any action space."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppo_jax.envs.interface import Environment


class Walker(NamedTuple):
    x: Any
    time: Any


def lane(space: Any) -> Environment:
    """A walk on a line from one start; it ends beyond 1, and by a time limit after 7 steps.

    The start does not depend on the key, so forms that draw other keys for it can be compared.
    """

    def shown(state: Walker) -> jax.Array:
        return jnp.stack([state.x, jnp.sin(3.0 * state.x), state.time / 7.0])

    def reset(key: jax.Array, params: Any) -> tuple:
        state = Walker(jnp.float32(0.3), jnp.zeros((), jnp.int32))
        return shown(state), state

    def transition(key: jax.Array, state: Walker, action: Any, params: Any) -> tuple:
        parts = [jnp.sum(jnp.asarray(part, jnp.float32)) for part in jax.tree.leaves(action)]
        push = sum(parts) - 0.5
        x = state.x + 0.2 * jnp.tanh(push) + 0.1 * jax.random.normal(key)
        after = Walker(x, state.time + 1)
        return shown(after), after, push - x**2, jnp.abs(x) > 1.0, after.time >= 7, {}

    return Environment(
        name="lane",
        reset=reset,
        transition=transition,
        default_params=(),
        observation_shape=(3,),
        action_space=space,
        max_episode_steps=7,
        override=lambda params, values: params,
    )
