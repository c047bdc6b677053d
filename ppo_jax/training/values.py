"""Values and log-probabilities of a rollout, in one pass after its scan: they need no order."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.kernels.chunks import map_chunks
from ppo_jax.kernels.select import map_where, where_rows
from ppo_jax.models.policy import Policy
from ppo_jax.rl import advantages
from ppo_jax.rl.types import EnvCarry, PyTree, Rollout, Window


class Record(NamedTuple):
    """Data that the scan keeps of one step of B environments."""

    observation: PyTree  # [B, *O], raw
    observation_final: PyTree  # [B, *O], raw successor before any reset
    action: PyTree  # [B, ...]
    distribution: PyTree  # [B, *D]
    reward: Array  # [B]
    terminated: Array  # [B]
    truncated: Array  # [B]
    is_bad: Array | tuple[()] = ()  # [B]


def valued(
    config: Config, policy: Policy, before: EnvCarry, carry: EnvCarry, records: Record
) -> tuple[Rollout, EnvCarry]:
    """The rollout with its values, and the carry with the critic's memory after it.

    Args:
        before: the first step. carry: after the last. records: [T, B].
    """
    ended = records.terminated | records.truncated
    reset = episode_starts(before, ended)
    window = Window(policy.see(records.observation), reset, before.memory)
    value, critic = critic_pass(policy, window, records.reward.shape)
    terminated, truncated = records.terminated, records.truncated
    if config.time_limits == "termination":
        terminated, truncated = ended, jnp.zeros_like(truncated)
    # An episode that goes on after the last step has its final observation there as well.
    is_last = jnp.arange(config.rollout_length)[:, None] == config.rollout_length - 1
    value_final = map_where(
        lambda rows: policy.network.value_after(policy.params, rows[0], policy.see(rows[1])),
        jax.tree.map(_rows, (critic, records.observation_final)),
        (truncated | (is_last & ~terminated)).reshape(-1),
        records.reward.shape[1],
    ).reshape(value.shape)
    start = policy.network.start(policy.params, value.shape[1])
    last = policy.network.carry_on(carry.memory, jax.tree.map(lambda leaf: leaf[-1], critic))
    return (
        Rollout(
            window=window,
            action=records.action,
            log_prob=policy.family.log_prob(records.distribution, records.action),
            distribution=records.distribution,
            value=value,
            value_next=advantages.successor_values(
                value, value_final[-1], value_final, terminated, truncated
            ),
            reward=records.reward,
            terminated=terminated,
            truncated=truncated,
            is_bad=records.is_bad,
        ),
        carry._replace(memory=where_rows(ended[-1], start, last)),
    )


def episode_starts(before: EnvCarry, ended: Array) -> Array | tuple[()]:
    """Flags [T, B], True where an episode begins; () without a memory."""
    flags = jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]])
    if not jax.tree.leaves(before.memory):
        return ()
    return flags.at[0].set(before.episode_length == 0)


def critic_pass(policy: Policy, window: Window, shape: tuple[int, ...]) -> tuple[Array, PyTree]:
    """V of every observation of a window, and the critic's memory after it, both [T, B, ...]."""
    values = partial(policy.network.values, policy.params)
    if not jax.tree.leaves(window.memory):  # rows may come in any order
        rows = jax.tree.map(_rows, window.observation)
        value = map_chunks(lambda observation: values(Window(observation))[0], rows)
        return value.reshape(shape), ()
    found = values(window.by_environment())
    num_steps, num_envs = shape
    return jax.tree.map(
        lambda leaf: jnp.swapaxes(leaf.reshape(num_envs, num_steps, *leaf.shape[1:]), 0, 1), found
    )


def _rows(leaf: Array) -> Array:
    """[T, B, ...] -> [T x B, ...]."""
    return leaf.reshape(-1, *leaf.shape[2:])
