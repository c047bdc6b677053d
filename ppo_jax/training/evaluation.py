"""Whole episodes of a trained policy, with its own random stream and a bounded length."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import Environment
from ppo_jax.kernels.packing import while_running
from ppo_jax.models.policy import Policy
from ppo_jax.rl.types import EnvCarry, PyTree
from ppo_jax.training.draws import Draws
from ppo_jax.training.rollout import Transition, is_noise_due, reset_all, step

Loop = tuple[Array, EnvCarry, Array, Array]  # step, carry, finished [n], stalled [n]


class Contest(NamedTuple):
    """Settings of an evaluation."""

    num_episodes: int
    max_steps: int  # an episode still running then is cut, and counted as it is
    is_deterministic: bool  # act by the distribution's mode, else by samples
    is_wanted: Array | bool = True  # [], False to play nothing: returns and lengths are then 0


class Episodes(NamedTuple):
    """One whole episode of each of n environments, so that short ones are not favoured."""

    episode_return: Array  # [n]
    length: Array  # [n], int32
    finished: Array  # [n], bool; False for an episode that was cut
    stalled: Array  # [n], bool; it did not terminate, and its last step changed and paid nothing


def act(
    policy: Policy, memory: PyTree, observation: PyTree, noise: PyTree, key: Array | None
) -> tuple[PyTree, PyTree]:
    """The actor's memory after raw observations, and actions for the environment, [B, ...].

    Args:
        key: of the sample; None for the distribution's mode.
    """
    memory, distribution = policy.network.act(policy.params, memory, policy.see(observation))
    if key is None:
        action = policy.family.mode(distribution)
    else:
        draw = policy.family.draw(key, jax.tree.leaves(observation)[0].shape[:1])
        action = policy.family.sample(draw, distribution, noise)
    return memory, policy.to_env(action)


def draw_step(
    config: Config, policy: Policy, num_envs: int, is_deterministic: bool, key: Array, t: Array
) -> tuple[Draws, Array]:
    """Random numbers of step t, and a flag that is True if gSDE's noise is drawn again there.

    It is drawn at the steps at which rollouts, one after the other, would have drawn it.
    """
    key_noise, key_action, key_env = jax.random.split(jax.random.fold_in(key, t), 3)
    action = None if is_deterministic else policy.family.draw(key_action, (num_envs,))
    step_of_rollout = t % config.rollout_length
    is_due = jnp.zeros((), bool) if is_deterministic else is_noise_due(config, step_of_rollout)
    return Draws(action, jax.random.split(key_env, num_envs), key_noise), is_due


def followed(carry: EnvCarry, found: Transition) -> EnvCarry:
    """The carry after a step, without a reset."""
    return EnvCarry(
        state=found.state,
        observation=found.observation,
        episode_return=carry.episode_return + found.reward,
        episode_length=carry.episode_length + 1,
        noise=found.noise,
        memory=found.memory,
    )


def episodes(
    config: Config,
    environment: Environment,
    env_params: PyTree,
    policy: Policy,
    contest: Contest,
    key: Array,
) -> Episodes:
    """Exactly one episode of each of n environments.

    Args:
        policy: with the normaliser's trained statistics, which are used and never changed.
    """
    num_episodes, max_steps, is_deterministic, is_wanted = contest
    key_reset, key_steps = jax.random.split(key)
    start = reset_all(environment, env_params, policy, num_episodes, key_reset)
    may_stall = is_deterministic and not (policy.family.num_reals or jax.tree.leaves(start.memory))

    def is_running(loop: Loop) -> Array:
        t, _, finished, _ = loop
        return (t < max_steps) & ~jnp.all(finished)

    def advance(loop: Loop) -> Loop:
        t, carry, finished, stalled = loop
        draws, is_due = draw_step(config, policy, num_episodes, is_deterministic, key_steps, t)
        found = step(environment, env_params, policy, carry, draws, is_due)
        if may_stall:
            stalled = jnp.where(finished, stalled, changed_nothing(carry, found))
        carry = followed(carry, found._replace(reward=jnp.where(finished, 0.0, found.reward)))
        carry = carry._replace(episode_length=carry.episode_length - finished)
        return t + 1, carry, finished | found.terminated | found.truncated, stalled

    nothing = jnp.full(num_episodes, jnp.logical_not(is_wanted))
    none = jnp.zeros(num_episodes, bool)
    _, carry, finished, stalled = while_running(
        is_running, advance, (jnp.zeros((), jnp.int32), start, nothing, none)
    )
    return Episodes(carry.episode_return, carry.episode_length, finished, stalled)


def changed_nothing(before: EnvCarry, found: Transition) -> Array:
    """Flags [B] of steps that left the observation as it was, paid nothing and ended nothing.

    A deterministic policy without a memory repeats such a step as long as the episode lasts.
    """
    pairs = zip(*map(jax.tree.leaves, (before.observation, found.observation)), strict=True)
    is_same = [jnp.all((old == new).reshape(len(old), -1), axis=1) for old, new in pairs]
    return jnp.all(jnp.stack(is_same), axis=0) & (found.reward <= 0) & ~found.terminated
