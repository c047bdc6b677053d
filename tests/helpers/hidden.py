"""An environment whose actor and critic see parts of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ppo_jax.envs.interface import Discrete, Environment

SHAPES = {"actor": (2,), "both": (), "critic": (3,)}


def hidden() -> Environment:
    """Ends at once; the actor sees noise, the critic the reward to come."""

    def shown(key: jax.Array) -> dict[str, jax.Array]:
        keys = dict(zip(SHAPES, jax.random.split(key, 3), strict=True))
        return {name: jax.random.normal(keys[name], shape) for name, shape in SHAPES.items()}

    def transition(key, state, action, params):
        yes, no = jnp.ones((), bool), jnp.zeros((), bool)
        return shown(key), state, state["critic"][0], yes, no, {}

    return Environment(
        name="hidden",
        reset=lambda key, params: (shown(key), shown(key)),
        transition=transition,
        default_params=(),
        observation=jax.eval_shape(shown, jax.eval_shape(jax.random.key, 0)),
        action_space=Discrete(3),
        max_episode_steps=None,
        override=lambda params, values: params,
    )


ENVIRONMENT = hidden()
