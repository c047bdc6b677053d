"""Joint actions under a mask, and an observation that is a dict: what a memory is combined with."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppo_jax.envs.interface import Environment, MultiDiscrete


class Dials(NamedTuple):
    time: Any
    legal: Any


def dials() -> Environment:
    """Two dials of 3 and 2 under a mask that changes; an illegal choice costs 1000."""

    def shown(state: Dials) -> dict[str, jax.Array]:
        place = jnp.stack([jnp.cos(1.0 * state.time), jnp.sin(1.0 * state.time)])
        return {"place": place, "turn": state.time % 2 == 0, "action_mask": state.legal}

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, 0.5, (5,)).at[jnp.array([1, 3])].set(True)

    def reset(key: jax.Array, params: Any) -> tuple:
        state = Dials(jnp.zeros((), jnp.int32), draw(key))
        return shown(state), state

    def transition(key: jax.Array, state: Dials, action: jax.Array, params: Any) -> tuple:
        is_legal = state.legal[action[0]] & state.legal[3 + action[1]]
        reward = jnp.where(is_legal, 1.0 * (action[0] == state.time % 3), -1000.0)
        key_legal, key_end = jax.random.split(key)
        after = Dials(state.time + 1, draw(key_legal))
        ends = jax.random.bernoulli(key_end, 0.2)
        return shown(after), after, reward, ends, after.time >= 9, {}

    spec = {"place": ((2,), "float32"), "turn": ((), "bool"), "action_mask": ((5,), "bool")}
    return Environment(
        name="dials",
        reset=reset,
        transition=transition,
        default_params=(),
        observation={name: jax.ShapeDtypeStruct(*leaf) for name, leaf in spec.items()},
        action_space=MultiDiscrete((3, 2)),
        max_episode_steps=9,
        override=lambda params, values: params,
    )
