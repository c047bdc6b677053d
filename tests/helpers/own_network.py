"""Networks of a user: by two functions, and as a flax nnx module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def own_init(key: jax.Array) -> dict[str, jax.Array]:
    """One matrix for the policy of two actions, one vector for the value."""
    return {"policy": 0.1 * jax.random.normal(key, (2, 2)), "value": jnp.zeros(2)}


def own_apply(params: Any, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
    return observation @ params["policy"], observation @ params["value"]


OWN_NETWORK = (own_init, own_apply)


class NnxActorCritic(nnx.Module):
    """One module with a hidden layer for both and a layer for each."""

    def __init__(self, num_actions: int, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(3, 8, rngs=rngs)
        self.policy = nnx.Linear(8, num_actions, rngs=rngs)
        self.critic = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nnx.tanh(self.hidden(observation))
        return self.policy(x), self.critic(x)[0]


def nnx_pair(num_actions: int) -> tuple[Callable, Callable]:
    """The module as (init_fn, apply_fn)."""
    graph, _ = nnx.split(NnxActorCritic(num_actions, nnx.Rngs(0)))
    return (
        lambda key: nnx.split(NnxActorCritic(num_actions, nnx.Rngs(key)))[1],
        lambda params, observation: nnx.merge(graph, params)(observation),
    )
