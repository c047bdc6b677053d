"""Small problems, and a rollout of random numbers, for the trainer's tests."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ppo_jax.config.config import Config
from ppo_jax.kernels.collectives import ALONE
from ppo_jax.rl.ratios import measure_ratios, ratio_metrics
from ppo_jax.rl.types import Rollout, Window
from ppo_jax.training.update import summarise

# Half the compile time, and no less exact.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SWING = Config(
    env="Pendulum-v1",
    num_envs=4,
    rollout_length=16,
    num_epochs=2,
    num_minibatches=2,
    hidden_sizes=(8,),
    normalize_observations=True,
    normalize_rewards=True,
    orthogonal_init=False,
    total_env_steps=64 * 3,
)

CHOICE = Config(
    env="probe:action-choice",
    num_envs=8,
    rollout_length=4,
    num_epochs=2,
    num_minibatches=2,
    hidden_sizes=(8,),
    activation="relu",
    orthogonal_init=False,
    total_env_steps=32 * 12,
)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def toy_rollout(seed=0):
    """A rollout of T = 5, B = 3 of random numbers, its sample (t, b) marked 10 t + b."""
    rng = np.random.default_rng(seed)

    def normal():
        return jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)

    mark = jnp.asarray(10.0 * np.arange(5)[:, None] + np.arange(3), jnp.float32)
    terminated = jnp.asarray(rng.random((5, 3)) < 0.2)
    return Rollout(
        window=Window(mark[..., None]),
        action=mark[..., None],
        log_prob=normal(),
        distribution=(mark[..., None],),
        value=normal(),
        value_next=jnp.where(terminated, 0.0, normal()),
        reward=3.0 * normal(),
        terminated=terminated,
        truncated=jnp.asarray(rng.random((5, 3)) < 0.2) & ~terminated,
    )


def all_metrics(hyper, learned, across=ALONE):
    """The metrics that the trainer logs of minibatch updates, over all devices."""
    found = learned.log_ratio, learned.diagnostics["active"], learned.weight
    ratios = measure_ratios(hyper, *found)
    return {**summarise(learned.diagnostics), **ratio_metrics(across.gather(ratios))}
