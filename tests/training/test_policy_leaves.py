"""Which parameters the policy depends on is read off the traced program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import Box, Discrete
from ppo_jax.models.network import make_network
from ppo_jax.training import natural_gradient


class NnxActorCritic(nnx.Module):
    """One module with a hidden layer for both and a layer for each."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(3, 8, rngs=rngs)
        self.policy = nnx.Linear(8, 3, rngs=rngs)
        self.critic = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nnx.relu(self.hidden(observation))
        return self.policy(x), self.critic(x)[0]


def nnx_pair() -> tuple[Callable, Callable]:
    graph, _ = nnx.split(NnxActorCritic(nnx.Rngs(0)))
    return (
        lambda key: nnx.split(NnxActorCritic(nnx.Rngs(key)))[1],
        lambda params, observation: nnx.merge(graph, params)(observation),
    )


def scanned_pair() -> tuple[Callable, Callable]:
    """A compiled function around a loop that carries policy and critic side by side."""

    @jax.jit
    def apply_fn(params: Any, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        def layer(carry: tuple, weights: tuple) -> tuple:
            actor, critic = carry
            return (jnp.tanh(actor @ weights[0]), jnp.tanh(critic @ weights[1])), None

        weights = (params["policy"], params["critic"])
        (actor, critic), _ = jax.lax.scan(layer, (observation, observation), weights)
        return actor, critic.sum()

    def init_fn(key: jax.Array) -> dict[str, jax.Array]:
        return {"policy": jax.random.normal(key, (2, 3, 3)), "critic": jnp.ones((2, 3, 3))}

    return init_fn, apply_fn


BOX = Box((1,), np.full(1, -1.0), np.full(1, 1.0))


@pytest.mark.parametrize(
    ("fields", "space", "critic"),
    [
        ({}, Discrete(3), {"critic_torso", "value_head"}),
        ({"shared_torso": True}, Discrete(3), {"value_head"}),
        ({"policy": "gaussian"}, BOX, {"critic_torso", "value_head"}),
        ({"policy": "gsde"}, BOX, {"critic_torso", "value_head"}),
        ({"network": nnx_pair()}, Discrete(3), {"critic"}),
        ({"network": scanned_pair()}, Discrete(3), {"critic"}),
    ],
    ids=["separate", "shared", "gaussian", "gsde", "nnx", "jit and scan"],
)
def test_the_policys_parameters_are_told_from_the_critics(
    fields: dict, space: Any, critic: set[str]
) -> None:
    network, _ = make_network(Config(hidden_sizes=(4, 4), **fields), (3,), space)
    params = network.init(jax.random.key(0), 0.0)
    found = natural_gradient.policy_leaves(network, params, jnp.zeros((1, 3)))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = [{getattr(entry, "key", None) for entry in path} for path in paths]
    assert found == [not path & critic for path in names]
    assert 0 < sum(found) < len(found)
