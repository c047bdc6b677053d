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


def recurrent_init(key: jax.Array) -> dict[str, jax.Array]:
    """A memory of 4 numbers that observations of 2 numbers move, for three actions."""
    keys = jax.random.split(key, 3)
    shapes = {"input": (2, 4), "memory": (4, 4), "out": (4, 4)}
    return {name: jax.random.normal(k, shapes[name]) for name, k in zip(shapes, keys, strict=True)}


def recurrent_apply(params: Any, memory: Any, observation: jax.Array) -> tuple[Any, tuple]:
    hidden = jnp.tanh(observation @ params["input"] + memory["hidden"] @ params["memory"])
    out = hidden @ params["out"]
    return {"hidden": hidden, "steps": memory["steps"] + 1}, (out[:3], out[3])


def recurrent_start() -> dict[str, jax.Array]:
    return {"hidden": jnp.zeros(4), "steps": jnp.zeros((), jnp.int32)}


RECURRENT_NETWORK = (recurrent_init, recurrent_apply, recurrent_start)
