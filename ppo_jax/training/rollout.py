"""T steps of B environments in one scan; owns resets, time limits and episode statistics.

The scan's body does only what must be done in order: choose an action, step, reset what ended.
Values and log-probabilities need no order, so one large pass computes them afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.envs import leaves
from ppo_jax.envs.interface import Environment
from ppo_jax.kernels.packing import scan_rows
from ppo_jax.kernels.reductions import finite_or_zero, finite_rows
from ppo_jax.kernels.select import where_rows
from ppo_jax.models.policy import Policy
from ppo_jax.rl.types import EnvCarry, EpisodeStats, PyTree, Rollout
from ppo_jax.training.draws import Draws, draw_all, draw_noise
from ppo_jax.training.values import Record, valued

BUFFER = 2**32 - 1  # folded into the resets' key, beyond the number of any reset


class Choice(NamedTuple):
    """The policy's part of a step of B environments."""

    action: PyTree  # [B, ...]
    distribution: PyTree  # [B, *D]
    memory: PyTree  # [B, ...], after the policy saw the observation
    noise: PyTree


class Transition(NamedTuple):
    """One step of B environments, before any reset."""

    action: PyTree  # [B, ...]
    distribution: PyTree  # [B, *D]
    memory: PyTree  # [B, ...], after the policy saw the observation
    noise: PyTree
    observation: PyTree  # [B, *O], raw successor
    state: PyTree  # [B, ...]
    reward: Array  # [B]
    terminated: Array  # [B]
    truncated: Array  # [B], never set together with `terminated`
    is_bad: Array | tuple[()] = ()  # [B], not finite; its reward is then 0
    metrics: PyTree = ()  # name -> [B], the environment's own, if it has any


def reset_all(
    environment: Environment,
    env_params: PyTree,
    policy: Policy,
    num_envs: int,
    key: Array,
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
        noise=policy.family.draw_noise(key_noise, num_envs),
        memory=policy.network.start(policy.params, num_envs),
    )


def step(
    environment: Environment,
    env_params: PyTree,
    policy: Policy,
    carry: EnvCarry,
    draws: Draws,
    is_noise_due: Array,
) -> Transition:
    """Act and step B environments. Rollout, evaluation and videos all call it.

    Args:
        draws: of this step. is_noise_due: [], True if gSDE's noise is drawn again.
    """
    chosen = choose(policy, carry, draws, is_noise_due)
    observation, state, reward, terminated, truncated, info = jax.vmap(
        environment.transition, in_axes=(0, 0, 0, None)
    )(draws.key_env, carry.state, policy.to_env(chosen.action), env_params)
    found = Transition(
        action=chosen.action,
        distribution=policy.family.keep(chosen.distribution),
        memory=chosen.memory,
        noise=chosen.noise,
        observation=observation,
        state=state,
        reward=reward,
        terminated=terminated,
        truncated=truncated & ~terminated,
        metrics=leaves.own_metrics(environment, info, len(reward)),
    )
    if not policy.drops_bad:
        return found
    return found._replace(**marked(found.reward, (found.observation, carry.observation)))


def choose(policy: Policy, carry: EnvCarry, draws: Draws, is_noise_due: Array) -> Choice:
    """Choose an action for each of B environments; for the arguments see `step`."""
    num_envs = carry.episode_length.shape[0]
    noise = carry.noise
    if jax.tree.leaves(noise):
        noise = jax.lax.cond(
            is_noise_due,
            lambda: draw_noise(policy.family, draws.key_noise, num_envs),
            lambda: carry.noise,
        )
    seen = policy.see(carry.observation)
    memory, distribution = policy.network.act(policy.params, carry.memory, seen)
    if draws.action is None:
        action = policy.family.mode(distribution)
    else:
        action = policy.family.sample(draws.action, distribution, noise)
    return Choice(action, distribution, memory, noise)


def marked(reward: Array, seen: PyTree) -> dict[str, Array]:
    """Mark the transitions with a number that is not finite; an unknown reward counts as 0."""
    return {"reward": finite_or_zero(reward), "is_bad": ~finite_rows((reward, *seen))}


def is_noise_due(config: Config, t: Array) -> Array:
    """Check for a new draw of gSDE's noise at step t of a rollout."""
    every = config.gsde_resample_steps
    return t == 0 if every == -1 else t % every == 0


def rollout(
    config: Config,
    environment: Environment,
    env_params: PyTree,
    policy: Policy,
    carry: EnvCarry,
    key: Array,
) -> tuple[EnvCarry, Rollout, PyTree, EpisodeStats]:
    """T steps of every environment under a frozen policy.

    Args:
        key: as for `draw_all`.

    Returns:
        carry for the next rollout, the rollout [T, B], the raw observations [T, B, *O] (for the
        normaliser), and the sums over the episodes that ended in it.
    """
    num_envs = carry.episode_length.shape[0]
    stats = no_episodes(num_envs, leaves.metric_names(environment))
    carry = carry._replace(memory=remembered(policy, carry))
    keys = key if key.ndim else jax.random.split(key, 4)
    draws, resets, refill = draw_all(policy.family, config.rollout_length, num_envs, keys)
    reset = start_states(config, environment, env_params, keys[2])

    def body(
        loop: tuple[EnvCarry, EpisodeStats], inputs: tuple[Array, Draws, Any]
    ) -> tuple[tuple[EnvCarry, EpisodeStats], Record]:
        (carry, stats), (t, draws, resets) = loop, inputs
        found = step(environment, env_params, policy, carry, draws, is_noise_due(config, t))
        ended = found.terminated | found.truncated
        following = refill(resets, t, ended, reset, (found.observation, found.state))
        return count(policy, carry, stats, found, following), record_of(carry, found)

    inputs = (jnp.arange(config.rollout_length), draws, resets)
    (after, stats), records = scan_rows(body, (carry, stats), inputs)
    taken, after = valued(config, policy, carry, after, records)
    return after, taken, records.observation, over_environments(stats)


def start_states(
    config: Config, environment: Environment, env_params: PyTree, key: Array
) -> Callable[[Array], tuple[PyTree, PyTree]]:
    """The reset of a rollout: key -> (observation, state).

    With `config.start_states` it draws from that many fresh starts, made once for the rollout.
    Each start is then distributed as the environment's own, but two episodes of one rollout may
    begin alike.

    Args:
        key: of the buffer of fresh starts; not read without one.

    Returns:
        A function of a key. Observation and state are those of one environment, without an axis.
    """
    if not config.start_states:
        return lambda key: environment.reset(key, env_params)
    keys = jax.random.split(jax.random.fold_in(key, BUFFER), config.start_states)
    fresh = jax.vmap(environment.reset, in_axes=(0, None))(keys, env_params)

    def drawn(key: Array) -> tuple[PyTree, PyTree]:
        place = jax.random.randint(key, (), 0, config.start_states)
        return jax.tree.map(lambda leaf: leaf[place], fresh)

    return drawn


def no_episodes(num_envs: int, names: Sequence[str] = ()) -> EpisodeStats:
    """Sums over no episode, [B] each; `names` are the environment's own metrics."""
    sums = {name: jnp.zeros(num_envs) for name in names}
    none = [jnp.zeros(num_envs) for _ in range(3)]
    return EpisodeStats(none[0], none[1], none[2], sums or ())


def over_environments(stats: EpisodeStats) -> EpisodeStats:
    """Sums [] over the environments of sums [B]."""
    sums, names = jax.tree.flatten(stats)
    return jax.tree.unflatten(names, jnp.sum(jnp.stack(sums), axis=1))


def remembered(policy: Policy, carry: EnvCarry) -> PyTree:
    """The memory before the next step; a learned start may have moved since it was carried."""
    if not jax.tree.leaves(carry.memory):
        return carry.memory
    begins = carry.episode_length == 0
    start = policy.network.start(policy.params, begins.shape[0])
    return where_rows(begins, start, carry.memory)


def record_of(carry: EnvCarry, found: Transition) -> Record:
    """The part of a transition that the rollout keeps."""
    return Record(
        observation=carry.observation,
        observation_final=found.observation,
        action=found.action,
        distribution=found.distribution,
        reward=found.reward,
        terminated=found.terminated,
        truncated=found.truncated,
        is_bad=found.is_bad,
    )


def count(
    policy: Policy,
    carry: EnvCarry,
    stats: EpisodeStats,
    found: Transition,
    following: tuple[PyTree, PyTree],
) -> tuple[EnvCarry, EpisodeStats]:
    """The carry after a step, with the sums over the episodes that ended in it, [B].

    Args:
        following: observation and state of the next step, fresh for an episode that ended.
    """
    ended = found.terminated | found.truncated
    running = (carry.episode_return, carry.episode_length)
    (episode_return, episode_length), stats = lengthened(
        running, stats, found.reward, ended, found.metrics
    )
    observation, state = following
    start = policy.network.start(policy.params, ended.shape[0])
    carry = EnvCarry(
        state=state,
        observation=observation,
        episode_return=episode_return,
        episode_length=episode_length,
        noise=found.noise,
        memory=where_rows(ended, start, found.memory),
    )
    return carry, stats


def lengthened(
    running: tuple[Array, Array],
    stats: EpisodeStats,
    reward: Array,
    ended: Array,
    metrics: PyTree = (),
) -> tuple[tuple[Array, Array], EpisodeStats]:
    """Return and length [B] of the running episodes one step later, and the sums over the ended."""
    episode_return, episode_length = running[0] + reward, running[1] + 1
    finished = EpisodeStats(jnp.ones(ended.shape[0]), episode_return, episode_length * 1.0, metrics)
    stats = jax.tree.map(lambda total, new: total + jnp.where(ended, new, 0.0), stats, finished)
    return (jnp.where(ended, 0.0, episode_return), jnp.where(ended, 0, episode_length)), stats
