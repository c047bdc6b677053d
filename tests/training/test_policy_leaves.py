"""The policy's own parameters are read off the traced program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import shown
from own_network import nnx_pair

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import Box, Discrete
from ppo_jax.models.network import make_network
from ppo_jax.rl.types import Window
from ppo_jax.training.natural_gradient import policy_leaves


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
        ({"network": nnx_pair(3)}, Discrete(3), {"critic"}),
        ({"network": scanned_pair()}, Discrete(3), {"critic"}),
    ],
    ids=["separate", "shared", "gaussian", "gsde", "nnx", "jit and scan"],
)
def test_the_policys_parameters_are_told_from_the_critics(
    fields: dict, space: Any, critic: set[str]
) -> None:
    network, _ = make_network(Config(hidden_sizes=(4, 4), **fields), shown(3), space)
    params = network.init(jax.random.key(0), 0.0)
    found = policy_leaves(network, params, Window(jnp.zeros((1, 3))))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = [{getattr(entry, "key", None) for entry in path} for path in paths]
    assert found == [not path & critic for path in names]
    assert 0 < sum(found) < len(found)
