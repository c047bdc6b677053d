"""Pictures of one episode of a trained policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import programs
from ppo_jax.envs.interface import Environment
from ppo_jax.models.agent import acting_policy, assemble, env_params
from ppo_jax.rl.types import TrainState
from ppo_jax.training import evaluation, schedules

MAX_FRAMES = 1_000  # a video ends here even if the episode goes on


def renderer(environment: Environment) -> Callable[[Any, Any], np.ndarray]:
    """The function that draws a state of `environment`.

    Raises:
        InputError: neither the environment nor ppo_jax has a picture of it.
    """
    if environment.render is None:
        raise InputError(
            f"{environment.name} cannot be drawn, as neither it nor ppo_jax has a picture of it: "
            "leave --video out, or give the environment a render(state, params)."
        )
    return environment.render


def draw_frames(
    config: Config, hyper: Hyper, member: TrainState, policy_mode: str, stream: int
) -> list[np.ndarray]:
    """One episode of one seed as pictures, uint8 [H, W, 3] each.

    Args:
        member: the state of one seed, without a leading axis. stream: picks the random numbers.

    Raises:
        InputError: the environment has no picture.
    """
    parts = assemble(config)
    environment = parts.environment
    render = renderer(environment)
    params = env_params(environment, schedules.resolve(hyper, jnp.ones(())))
    policy = acting_policy(config, parts, member.params, member.observation_moments, params)
    key = jax.random.fold_in(jax.random.fold_in(member.key, programs.EVALUATION), stream)
    key_reset, key_steps = jax.random.split(key)
    observation, state = environment.reset(key_reset, params)
    noise, every = parts.family.draw_noise(key_steps, 1), evaluation.noise_steps(config)

    @jax.jit
    def step(observation: Array, state: Any, noise: Any, t: Array) -> tuple[Array, Any, Any, Array]:
        key_noise, key_action, key_env = jax.random.split(jax.random.fold_in(key_steps, t), 3)
        fresh = parts.family.draw_noise(key_noise, 1)
        noise = jax.tree.map(lambda new, old: jnp.where(t % every == 0, new, old), fresh, noise)
        is_deterministic = policy_mode == "deterministic"
        action = evaluation.act(policy, observation[None], noise, key_action, is_deterministic)[0]
        observation, state, _, terminated, truncated, _ = environment.transition(
            key_env, state, action, params
        )
        return observation, state, noise, terminated | truncated

    pictures = [render(state, params)]
    for t in range(MAX_FRAMES):
        observation, state, noise, ended = step(observation, state, noise, np.int32(t))
        pictures.append(render(state, params))
        if ended:
            break
    return pictures
