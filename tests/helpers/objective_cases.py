"""Policies, batches and small runs for the tests of objectives and of their updates."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config.config import OBJECTIVES, Config, Hyper
from ppo_jax.envs.interface import Box, Discrete, MultiDiscrete, Product
from ppo_jax.models.body import Network
from ppo_jax.models.policy_head import Family
from ppo_jax.rl.types import Batch, Window
from ppo_jax.training import trainer

BOX = Box((2,), np.array([-1.0, -2.0]), np.array([1.0, 3.0]))
POLICIES = {
    "categorical": ("categorical", Discrete(3)),
    "multi-categorical": ("categorical", MultiDiscrete((3, 2))),
    "gaussian": ("gaussian", BOX),
    "gaussian-state-std": ("gaussian-state-std", BOX),
    "gsde": ("gsde", BOX),
    "tanh-gaussian": ("tanh-gaussian", BOX),
    "hybrid": ("gaussian", Product((MultiDiscrete((3, 2)), BOX))),
}


def own_drift(ratio: jax.Array, advantage: jax.Array) -> jax.Array:
    return jnp.abs(advantage) * (ratio - 1.0) ** 4


# Every objective, and the other direction of the KL: name -> the fields that ask for it.
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"objective": name} for name in OBJECTIVES},
    "drift": {"objective": "drift", "drift": own_drift},
    "kl new-old": {"objective": "kl", "kl_direction": "new-old"},
}

# Half the compile time, and no less exact.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def draw_batch(network: Network, family: Family, params: Any, shape: tuple, size: int) -> Batch:
    """A batch as the rollout makes one: `params` are those of pi_old, which draws the actions."""
    rng = np.random.default_rng(1)
    observation = jnp.asarray(rng.normal(size=(size, *shape)))
    distribution, value = network.apply(params, Window(observation))
    noise = family.draw_noise(jax.random.key(2), size)
    draw = family.draw(jax.random.key(3), (size,))
    action = family.sample(draw, distribution, noise)
    return Batch(
        window=Window(observation),
        action=action,
        log_prob_old=family.log_prob(distribution, action),
        distribution_old=family.keep(distribution),
        value_old=value,
        advantage=jnp.asarray(rng.normal(size=size)),
        value_target=value + jnp.asarray(rng.normal(size=size)),
    )


SMALL: dict[str, Any] = {
    "env": "probe:action-choice",
    "num_envs": 8,
    "rollout_length": 8,
    "num_epochs": 4,
    "num_minibatches": 2,
    "hidden_sizes": (8,),
    "total_env_steps": 64 * 6,
}


@jax.enable_x64(False)
def train(config: Config, hyper: Hyper) -> tuple[Any, dict[str, np.ndarray]]:
    """A run of one seed for each value on the hyperparameters' axis, in single precision."""
    key = jax.random.key(2)
    axes = jax.tree.map(lambda leaf: 0 if np.ndim(leaf) else None, hyper)
    state, rows = jit(jax.vmap(lambda h: trainer.train(config, h, key), (axes,)))(hyper)
    return state, jax.tree.map(np.asarray, rows)
