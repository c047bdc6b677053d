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

from ppo_jax.apps.export.numpy_policy import read
from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.config.trust import Trust
from ppo_jax.envs import leaves
from ppo_jax.envs.actions import own_actions
from ppo_jax.envs.interface import ObservationSpace
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
) -> Callable[..., Any]:
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
    spaces, mask_size = leaves.shown(environment), leaves.mask_size(environment)
    shapes = {name: tuple(space.shape) for name, space in spaces.items()}

    @jax.jit
    def act(rows: dict[str, Array], key: Array | None) -> Any:
        stored = jax.vmap(partial(leaves.to_stored, environment))(rows)
        if key is None:
            action = evaluation.act(acting, stored, (), None, is_deterministic=True)
        else:
            key_noise, key_action = jax.random.split(key)
            noise = acting.family.draw_noise(key_noise, jax.tree.leaves(rows)[0].shape[0])
            action = evaluation.act(acting, stored, noise, key_action, is_deterministic=False)
        return own_actions(environment, action)

    def policy(observation: Any, key: Array | None = None, legal: Any = None) -> Any:
        try:
            rows, is_one = read(shapes, mask_size, observation, legal, jnp.asarray)
        except ValueError as error:
            raise InputError(str(error)) from error
        for name, space in spaces.items():
            require_number(space, rows[name])
        action = act(rows, key)
        return jax.tree.map(lambda leaf: leaf[0], action) if is_one else action

    return policy


def refuse_memory(config: Config) -> None:
    """Refuse a recurrent policy: used without its memory, it would silently act differently."""
    if config.memory != "none":
        raise InputError(
            f"This run's policy has a memory ({config.memory}), and a policy outside of the "
            "program cannot carry one yet; ppo-jax eval RUN plays it, with --video as well."
        )


def require_number(space: ObservationSpace, rows: Array) -> None:
    """Refuse what is no whole number of an environment that shows whole numbers."""
    if not space.is_number:
        return
    rule = f"this policy takes one whole number from {space.low} to {space.high}, or [n] of them."
    if not jnp.issubdtype(rows.dtype, jnp.integer):
        raise InputError(f"An observation of {rows.dtype} does not fit: {rule}")
    if isinstance(rows, Tracer):
        return
    outside = (rows < space.low) | (rows > space.high)
    if outside.any():
        raise InputError(f"The observation {rows[outside][0]} does not fit: {rule}")
