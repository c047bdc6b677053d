"""A run as it is saved, without any training, for tests of policies outside of the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.options import RunOptions
from ppo_jax.rl import moments
from ppo_jax.storage import checkpoint, run_folder
from ppo_jax.training import schedules, trainer

TINY = Config(
    num_envs=2, rollout_length=8, num_minibatches=1, hidden_sizes=(8, 8), total_env_steps=16
)


def saved(folder: Path, config: Config, seeds: int = 2, **given: Any) -> Path:
    """A run as it is saved, its policies far from their start, its normaliser far from 0 and 1."""
    keys = jax.random.split(jax.random.key(0), seeds)
    hyper = schedules.as_arrays(config, Hyper())

    def wave(leaf: jax.Array) -> jax.Array:
        return min(1.0, leaf.ndim - 0.9) * jnp.sin(3.0 * jnp.arange(leaf.size) + 1.0).reshape(
            leaf.shape
        )

    def moved(key: jax.Array) -> Any:
        state = trainer.init(config, hyper, key)
        noise = jax.tree.map(
            lambda leaf: (0.5 * jax.random.normal(key, (50, *leaf.shape[1:])) + 0.25).astype(
                leaf.dtype
            ),
            state.carry.observation,
        )
        params = jax.tree.map(
            lambda leaf: 2.0 * leaf + 0.1 * wave(leaf),
            state.params,
        )
        seen = moments.from_batch(noise)
        return state._replace(params=params, observation_moments=seen)

    state = jax.vmap(moved)(keys)
    options = RunOptions(out=str(folder), seeds=seeds)
    with run_folder.claimed(config, Hyper(), options, jax.devices()[:1]):
        pass
    checkpoint.save(
        checkpoint.checkpoint_folder(folder, 16), state, {"env_steps": 16, "num_seeds": seeds}
    )
    return folder
