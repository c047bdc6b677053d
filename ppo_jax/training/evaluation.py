"""Whole episodes of a trained policy, with its own random stream and a bounded length."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import Environment
from ppo_jax.rl.types import EnvCarry, PyTree
from ppo_jax.training.rollout import Policy, reset_all


class Episodes(NamedTuple):
    """One whole episode of each of n environments, so that short ones are not favoured."""

    episode_return: Array  # [n]
    length: Array  # [n], int32
    finished: Array  # [n], bool; False where the bound on the length cut the episode


def act(
    policy: Policy, observation: Array, noise: PyTree, key: Array | None, is_deterministic: bool
) -> Array:
    """Actions for the environment, [B, ...], from raw observations [B, *O]."""
    distribution = policy.network.policy(policy.params, policy.see(observation))
    if is_deterministic or key is None:
        action = policy.family.mode(distribution)
    else:
        draw = policy.family.draw(key, observation.shape[:1])
        action = policy.family.sample(draw, distribution, noise)
    return policy.family.to_env(action)


def noise_steps(config: Config) -> int:
    """Steps for which a draw of gSDE's noise is held, as in a rollout."""
    every = config.gsde_resample_steps
    return config.rollout_length if every == -1 else every


def episodes(
    config: Config,
    environment: Environment,
    env_params: PyTree,
    policy: Policy,
    num_episodes: int,
    max_steps: int,
    is_deterministic: bool,
    key: Array,
) -> Episodes:
    """Exactly one episode of each of `num_episodes` environments.

    Args:
        policy: with the normaliser's trained statistics, which are used and never changed.
        max_steps: an episode still running after so many steps is cut and counted as it stands.
        is_deterministic: act by the distribution's mode, else by samples.
    """
    key_reset, key_steps = jax.random.split(key)
    start = reset_all(environment, env_params, policy.family, num_episodes, key_reset)
    every = noise_steps(config)

    def is_running(loop: tuple[Array, EnvCarry, Array]) -> Array:
        t, _, finished = loop
        return (t < max_steps) & ~jnp.all(finished)

    def step(loop: tuple[Array, EnvCarry, Array]) -> tuple[Array, EnvCarry, Array]:
        t, carry, finished = loop
        key_noise, key_action, key_env = jax.random.split(jax.random.fold_in(key_steps, t), 3)
        noise = carry.noise
        if jax.tree.leaves(noise) and not is_deterministic:
            noise = jax.lax.cond(
                t % every == 0,
                lambda: policy.family.draw_noise(key_noise, num_episodes),
                lambda: carry.noise,
            )
        action = act(policy, carry.observation, noise, key_action, is_deterministic)
        observation, state, reward, terminated, truncated, _ = jax.vmap(
            environment.transition, in_axes=(0, 0, 0, None)
        )(jax.random.split(key_env, num_episodes), carry.state, action, env_params)
        carry = EnvCarry(
            state=state,
            observation=observation,
            episode_return=carry.episode_return + jnp.where(finished, 0.0, reward),
            episode_length=carry.episode_length + ~finished,
            noise=noise,
        )
        return t + 1, carry, finished | terminated | truncated

    nothing = jnp.zeros(num_episodes, bool)
    _, carry, finished = jax.lax.while_loop(
        is_running, step, (jnp.zeros((), jnp.int32), start, nothing)
    )
    return Episodes(carry.episode_return, carry.episode_length, finished)
