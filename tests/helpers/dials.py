"""Joint actions under a mask, and an observation that is a dict: what a memory is combined with."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.envs.actions import dials_of
from ppo_jax.envs.interface import Environment, MultiDiscrete


class Dials(NamedTuple):
    time: Any
    legal: Any


SPACE = MultiDiscrete((3, 2))


def dials(space: Any = SPACE, is_masked: bool = True, is_dict: bool = True) -> Environment:
    """Two dials of 3 and 2 under a mask that changes; an illegal choice costs 1000.

    Any other space will do. The first dial pays at the right time, real numbers pay near 0.

    Args:
        is_dict: the place and the turn are two leaves; else both are one array.
    """
    counts, dial_of = dials_of(space), np.cumsum((0, *dials_of(space)))[:-1]

    def shown(state: Dials) -> Any:
        angle = state.time.astype(jnp.float32)
        place = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        turn = state.time % 2 == 0
        seen: Any = {"place": place, "turn": turn} if is_dict else jnp.append(place, turn)
        if is_masked:
            seen = {**(seen if is_dict else {"observation": seen}), "action_mask": state.legal}
        return seen

    def draw(key: jax.Array) -> jax.Array:
        legal = jax.random.bernoulli(key, 0.5, (sum(counts),))
        return legal.at[dial_of + 1].set(True)  # one choice of each dial at least

    def reset(key: jax.Array, params: Any) -> tuple:
        state = Dials(jnp.zeros((), jnp.int32), draw(key))
        return shown(state), state

    def transition(key: jax.Array, state: Dials, action: Any, params: Any) -> tuple:
        reward, is_legal = jnp.float32(0.0), jnp.bool_(True)
        for part in map(jnp.ravel, jax.tree.leaves(action)):
            if jnp.issubdtype(part.dtype, jnp.integer):
                is_legal = jnp.all(state.legal[dial_of + part]) if is_masked else is_legal
                reward += 1.0 * (part[0] == state.time % 3)
            else:
                reward += 1.0 / (1.0 + jnp.sum(part**2))
        reward = jnp.where(is_legal, reward, -1000.0)
        key_legal, key_end = jax.random.split(key)
        after = Dials(state.time + 1, draw(key_legal))
        ends = jax.random.bernoulli(key_end, 0.2)
        return shown(after), after, reward, ends, after.time >= 9, {}

    example = Dials(jax.ShapeDtypeStruct((), "int32"), jax.ShapeDtypeStruct((sum(counts),), "bool"))
    return Environment(
        name="dials",
        reset=reset,
        transition=transition,
        default_params=(),
        observation=jax.eval_shape(shown, example),
        action_space=space,
        max_episode_steps=9,
        override=lambda params, values: params,
    )
