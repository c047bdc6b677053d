"""T steps of B environments in one scan; owns resets, time limits and episode statistics.

The scan's body does only what must be done in order: choose an action, step, reset what ended.
Values and log-probabilities need no order, so they are computed afterwards in one large pass.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import Environment
from ppo_jax.kernels.backend import is_cpu
from ppo_jax.kernels.chunks import by_pieces
from ppo_jax.kernels.packing import scan_packed
from ppo_jax.models.network import Network
from ppo_jax.models.policy_head import Family
from ppo_jax.rl import advantages, moments
from ppo_jax.rl.types import EnvCarry, EpisodeStats, Moments, PyTree, Rollout

UNROLLED_STEPS = 4  # on a GPU, where a loop adds two kernels to each turn


class Policy(NamedTuple):
    """What acts: frozen for the length of a rollout."""

    network: Network
    family: Family
    params: PyTree
    moments: Moments | None  # of the observations, None where they are not normalised

    def see(self, observation: Array) -> Array:
        """Raw observations as the networks take them."""
        if self.moments is None:
            return observation
        return moments.standardise(self.moments, observation)


class Chance(NamedTuple):
    """The random numbers of a rollout, drawn before it in one piece: [T, ...] or of one step.

    A draw inside the scan would cost a small program of its own at every step.
    """

    t: Array  # []
    action: PyTree  # [B, ...], what `Family.sample` needs
    key_env: Array  # [B], keys of the environments' transitions
    key_noise: Array  # []
    key_reset: Any  # [B] where every environment is reset at every step, () where pools are drawn


class Step(NamedTuple):
    """What the scan keeps of one step of B environments."""

    observation: Array  # [B, *O], raw
    observation_final: Array  # [B, *O], raw successor before any reset
    action: Array  # [B, ...]
    distribution: PyTree  # [B, *D]
    reward: Array  # [B]
    terminated: Array  # [B]
    truncated: Array  # [B]


def reset_all(
    environment: Environment, env_params: PyTree, family: Family, num_envs: int, key: Array
) -> EnvCarry:
    """B freshly reset environments."""
    key_reset, key_noise = jax.random.split(key)
    observation, state = jax.vmap(environment.reset, in_axes=(0, None))(
        jax.random.split(key_reset, num_envs), env_params
    )
    return EnvCarry(
        state=state,
        observation=observation,
        episode_return=jnp.zeros(num_envs),
        episode_length=jnp.zeros(num_envs, jnp.int32),
        noise=family.draw_noise(key_noise, num_envs),
    )


def where_rows(rows: Array, yes: PyTree, no: PyTree) -> PyTree:
    """`jnp.where` over pytrees with a condition per leading row."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(rows.shape + (1,) * (a.ndim - rows.ndim)), a, b)

    return jax.tree.map(choose, yes, no)


def reset_ended(
    environment: Environment,
    env_params: PyTree,
    key: Array,
    t: Array | int,
    ended: Array,
    observation: Array,
    state: PyTree,
) -> tuple[Array, PyTree]:
    """Give every ended environment a start state of its own.

    Start states are drawn in pools of B / 8: none where nothing ended, a further pool while some
    environment is still without. So each state is an independent draw of the environment's own
    start distribution, at the cost of the resets that are needed rather than of B.

    With a key for each environment all are reset and few are taken: a GPU pays for the kernels it
    starts, not for resets, and for a loop of unknown length it waits for the host.

    Args:
        key: of all resets of a rollout, the i-th of step t draws from fold_in(key, t B + i); or
            keys [B].
        ended: [B] bool. observation: [B, *O] and state: [B, ...] of the step just taken.
    """
    num_envs = ended.shape[0]
    if key.ndim:
        fresh = jax.vmap(environment.reset, in_axes=(0, None))(key, env_params)
        return where_rows(ended, fresh, (observation, state))
    pool_size = max(1, num_envs // 8)
    rank = jnp.cumsum(ended) - 1  # the ended environments, numbered 0, 1, 2, ...
    num_ended = rank[-1] + 1

    def draw_pool(carry: tuple[Array, Array, PyTree]) -> tuple[Array, Array, PyTree]:
        first, observation, state = carry
        draws = t * num_envs + first + jnp.arange(pool_size)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, draws)
        pool = jax.vmap(environment.reset, in_axes=(0, None))(keys, env_params)
        slot = rank - first
        served = ended & (slot >= 0) & (slot < pool_size)
        fresh = jax.tree.map(lambda leaf: leaf[jnp.clip(slot, 0, pool_size - 1)], pool)
        observation, state = where_rows(served, fresh, (observation, state))
        return first + pool_size, observation, state

    _, observation, state = jax.lax.while_loop(
        lambda carry: carry[0] < num_ended,
        draw_pool,
        (jnp.zeros((), num_ended.dtype), observation, state),
    )
    return observation, state


def step(
    config: Config,
    environment: Environment,
    env_params: PyTree,
    policy: Policy,
    key_reset: Array,
    carry: EnvCarry,
    stats: EpisodeStats,
    chance: Chance,
) -> tuple[EnvCarry, EpisodeStats, Step]:
    """One step of B environments. `stats` are of each environment, [B]."""
    num_envs = carry.episode_length.shape[0]
    noise = carry.noise
    if jax.tree.leaves(noise):
        every = config.gsde_resample_steps
        is_due = chance.t == 0 if every == -1 else chance.t % every == 0
        noise = jax.lax.cond(
            is_due,
            lambda: policy.family.draw_noise(chance.key_noise, num_envs),
            lambda: carry.noise,
        )
    distribution = policy.network.policy(policy.params, policy.see(carry.observation))
    action = policy.family.sample(chance.action, distribution, noise)
    observation_final, state, reward, terminated, truncated, _ = jax.vmap(
        environment.transition, in_axes=(0, 0, 0, None)
    )(
        chance.key_env,
        carry.state,
        policy.family.to_env(action),
        env_params,
    )
    truncated = truncated & ~terminated
    ended = terminated | truncated
    episode_return = carry.episode_return + reward
    episode_length = carry.episode_length + 1
    finished = EpisodeStats(jnp.ones(num_envs), episode_return, episode_length * 1.0)
    stats = jax.tree.map(lambda total, new: total + jnp.where(ended, new, 0.0), stats, finished)
    key = chance.key_reset if jax.tree.leaves(chance.key_reset) else key_reset
    observation, state = reset_ended(
        environment, env_params, key, chance.t, ended, observation_final, state
    )
    record = Step(
        observation=carry.observation,
        observation_final=observation_final,
        action=action,
        distribution=policy.family.keep(distribution),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
    )
    carry = EnvCarry(
        state=state,
        observation=observation,
        episode_return=jnp.where(ended, 0.0, episode_return),
        episode_length=jnp.where(ended, 0, episode_length),
        noise=noise,
    )
    return carry, stats, record


def draw_chance(family: Family, num_steps: int, num_envs: int, key: Array) -> tuple[Chance, Array]:
    """The random numbers of `num_steps` steps of `num_envs` environments, and their resets' key.

    Args:
        key: one key, or the four [4] that it would be split into.
    """
    key_action, key_env, key_reset, key_noise = key if key.ndim else jax.random.split(key, 4)
    chance = Chance(
        t=jnp.arange(num_steps),
        action=family.draw(key_action, (num_steps, num_envs)),
        key_env=jax.random.split(key_env, (num_steps, num_envs)),
        key_noise=jax.random.split(key_noise, num_steps),
        key_reset=(() if is_cpu() else jax.random.split(key_reset, (num_steps, num_envs))),
    )
    return chance, key_reset


def rollout(
    config: Config,
    environment: Environment,
    env_params: PyTree,
    policy: Policy,
    carry: EnvCarry,
    key: Array,
) -> tuple[EnvCarry, Rollout, Array, EpisodeStats]:
    """T steps of every environment under a frozen policy.

    Args:
        key: as for `draw_chance`.

    Returns:
        carry for the next rollout, the rollout [T, B], the raw observations [T, B, *O] (for the
        normaliser), and the sums over the episodes that ended in it.
    """
    num_envs = carry.episode_length.shape[0]
    stats = EpisodeStats(*(jnp.zeros(num_envs) for _ in EpisodeStats._fields))
    chance, key_reset = draw_chance(policy.family, config.rollout_length, num_envs, key)

    def body(
        loop: tuple[EnvCarry, EpisodeStats], chance: Chance
    ) -> tuple[tuple[EnvCarry, EpisodeStats], Step]:
        carry, stats, record = step(
            config, environment, env_params, policy, key_reset, *loop, chance
        )
        return (carry, stats), record

    # A GPU pays for every kernel that a step starts, a CPU for what is moved.
    scan = jax.lax.scan if is_cpu() else partial(scan_packed, unroll=UNROLLED_STEPS)
    (carry, stats), steps = scan(body, (carry, stats), chance)

    observation = policy.see(steps.observation)
    shape = steps.reward.shape
    flat = observation.reshape(-1, *observation.shape[2:])
    value = by_pieces(partial(policy.network.value, policy.params), flat).reshape(shape)
    terminated, truncated = steps.terminated, steps.truncated
    if config.time_limits == "termination":
        terminated, truncated = terminated | truncated, jnp.zeros_like(truncated)
    # Where an episode goes on after the last step, what follows is as much a final observation.
    is_last = jnp.arange(config.rollout_length)[:, None] == config.rollout_length - 1
    value_final = values_where(policy, steps.observation_final, truncated | (is_last & ~terminated))
    return (
        carry,
        Rollout(
            observation=observation,
            action=steps.action,
            log_prob=policy.family.log_prob(steps.distribution, steps.action),
            distribution=steps.distribution,
            value=value,
            value_next=advantages.successor_values(
                value, value_final[-1], value_final, terminated, truncated
            ),
            reward=steps.reward,
            terminated=terminated,
            truncated=truncated,
        ),
        steps.observation,
        EpisodeStats(*jnp.sum(jnp.stack(stats), axis=1)),
    )


def values_where(policy: Policy, observation: Array, wanted: Array) -> Array:
    """V(observation) where `wanted`, 0 elsewhere, at the cost of the wanted rows alone.

    Wanted rows are gathered into packs of a fixed size and valued pack by pack: no pack where
    nothing is wanted, one where few are. A GPU values all rows: their number is then known before
    it starts, and it need not wait for the host.

    Args:
        observation: [T, B, *O], raw. wanted: [T, B] bool.
    """
    if not is_cpu():
        return jnp.where(wanted, policy.network.value(policy.params, policy.see(observation)), 0.0)
    flat = observation.reshape((-1, *observation.shape[wanted.ndim :]))
    is_wanted = wanted.reshape(-1)
    num_rows = is_wanted.shape[0]
    pack = min(num_rows, max(wanted.shape[1], 16))
    counted = jnp.cumsum(is_wanted)
    num_wanted = counted[-1]
    place = jnp.where(is_wanted, counted - 1, num_rows + pack)
    source = jnp.zeros(num_rows + pack, jnp.int32)  # place -> row; padded to whole packs
    source = source.at[place].set(jnp.arange(num_rows), mode="drop")

    def value_pack(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        first, values = carry
        rows = jax.lax.dynamic_slice_in_dim(source, first, pack)
        is_real = first + jnp.arange(pack) < num_wanted
        fresh = policy.network.value(policy.params, policy.see(flat[rows]))
        rows = jnp.where(is_real, rows, num_rows)
        return first + pack, values.at[rows].set(fresh, mode="drop")

    _, values = jax.lax.while_loop(
        lambda carry: carry[0] < num_wanted,
        value_pack,
        (jnp.zeros((), num_wanted.dtype), jnp.zeros(num_rows)),
    )
    return values.reshape(wanted.shape)
