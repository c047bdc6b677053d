"""The policy of a run folder as a plain JAX function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.config.trust import Trust
from ppo_jax.envs.interface import Environment, shown_shape, to_stored
from ppo_jax.models.agent import acting_policy, assemble, env_params
from ppo_jax.runtime.saved_run import load_member
from ppo_jax.training import evaluation


def run_policy(
    run: Path | str,
    *,
    seed_index: int = 0,
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
) -> Callable[..., Array]:
    """The policy of a run folder as a plain function; for its arguments see `load_policy`.

    Raises:
        InputError: also by the function: an observation of another shape, or no whole number of the
            environment's where it shows whole numbers.
    """
    config, hyper, member = load_member(run, seed_index, env, network, "seed_index", trust)
    refuse_memory(config)
    parts = assemble(config)
    world = env_params(parts.environment, hyper)
    acting = acting_policy(config, parts, member.params, member.observation_moments, world)
    environment = parts.environment
    shape = shown_shape(environment)

    @jax.jit
    def act(rows: Array, key: Array | None) -> Array:
        rows = jax.vmap(partial(to_stored, environment))(rows)
        if key is None:
            return evaluation.act(acting, rows, (), None, is_deterministic=True)
        key_noise, key_action = jax.random.split(key)
        noise = acting.family.draw_noise(key_noise, rows.shape[0])
        return evaluation.act(acting, rows, noise, key_action, is_deterministic=False)

    def policy(observation: Any, key: Array | None = None) -> Array:
        observation = jnp.asarray(observation)
        require_number(environment, observation)
        if observation.shape == shape:
            return act(observation[None], key)[0]
        if observation.shape[1:] == shape:
            return act(observation, key)
        raise InputError(
            f"An observation of shape {observation.shape} does not fit: this policy takes one of "
            f"shape {shape}, or a batch [n, ...] of them."
        )

    return policy


def refuse_memory(config: Config) -> None:
    """Refuse a recurrent policy: used without its memory, it would silently act differently."""
    if config.memory != "none":
        raise InputError(
            f"This run's policy has a memory ({config.memory}), and a policy outside of the "
            "program cannot carry one yet; ppo-jax eval RUN plays it, with --video as well."
        )


def require_number(environment: Environment, observation: Array) -> None:
    """Refuse what is no whole number of an environment that shows whole numbers."""
    if environment.raw is None or not environment.raw.observation_space.is_number:
        return
    space = environment.raw.observation_space
    rule = f"this policy takes one whole number from {space.low} to {space.high}, or [n] of them."
    if not jnp.issubdtype(observation.dtype, jnp.integer):
        raise InputError(f"An observation of {observation.dtype} does not fit: {rule}")
    if isinstance(observation, Tracer):
        return
    outside = (observation < space.low) | (observation > space.high)
    if outside.any():
        raise InputError(f"The observation {observation[outside][0]} does not fit: {rule}")
