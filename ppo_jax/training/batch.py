"""What a rollout is made into: samples with their advantages, running moments, counts of episodes.

With `axis_name` each device holds its own environments, and statistics are those of all of them.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config, Hyper
from ppo_jax.rl import advantages, moments
from ppo_jax.rl.types import Batch, EpisodeStats, Metrics, Moments, Rollout, TrainState


class Tally(NamedTuple):
    """What a device counts of its own rollout, to be told to the others at the iteration's end."""

    mean: Array  # [2], of R - V and of the value targets R
    variance: Array  # [2]
    episodes: EpisodeStats


def scaled_rewards(
    config: Config, hyper: Hyper, state: TrainState, steps: Rollout, axis_name: str | None
) -> tuple[Array, Array, Moments]:
    """Rewards divided by the standard deviation of the discounted return, where asked for.

    The scale may take in the rewards that it scales (unlike the observations' statistics, which
    the ratio depends on), so that the first iteration is scaled as well.
    """
    if not config.normalize_rewards:
        return steps.reward, state.discounted_return, state.return_moments
    discounted_return, returns = moments.discounted_returns(
        state.discounted_return, steps.reward, steps.terminated | steps.truncated, hyper.gamma
    )
    return_moments = merged(state.return_moments, returns.reshape(-1), axis_name)
    return moments.scale(return_moments, steps.reward), discounted_return, return_moments


def merged(running: Moments, rows: Array, axis_name: str | None) -> Moments:
    """`running` with this iteration's rows of all devices merged in."""
    fresh = moments.all_reduce(moments.from_batch(rows), axis_name)
    return moments.merge(running, fresh)


def make_batch(
    config: Config,
    hyper: Hyper,
    steps: Rollout,
    reward: Array,
    episodes: EpisodeStats,
    axis_name: str | None,
) -> tuple[Batch, Tally]:
    """The N = T x B samples of a rollout, time-major [N], with advantages and value targets."""
    advantage, value_target = advantages.gae(
        reward,
        steps.value,
        steps.value_next,
        steps.terminated | steps.truncated,
        hyper.gamma,
        hyper.gae_lambda,
    )
    if config.normalize_advantages == "batch":
        centre, variance = advantages.mean_and_variance(advantage, axis_name)
        advantage = advantages.standardise(advantage, centre, variance)
    mean, variance = jax.vmap(advantages.mean_and_variance)(
        jnp.stack([value_target - steps.value, value_target])
    )

    def flatten(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:])

    batch = Batch(
        observation=flatten(steps.observation),
        action=flatten(steps.action),
        log_prob_old=flatten(steps.log_prob),
        distribution_old=jax.tree.map(flatten, steps.distribution),
        value_old=flatten(steps.value),
        advantage=flatten(advantage),
        value_target=flatten(value_target),
    )
    return batch, Tally(mean, variance, episodes)


def metrics(every: Tally) -> Metrics:
    """What all devices have counted, given their tallies with a leading axis [D].

    Sums over the episodes that ended, and the critic's explained variance 1 - Var[R - V] / Var[R].
    """
    episodes = jax.tree.map(partial(jnp.sum, axis=0), every.episodes)
    _, (unexplained, variance) = advantages.pooled(every.mean, every.variance)
    return {
        "explained_variance": 1.0 - unexplained / jnp.maximum(variance, 1e-12),
        "num_episodes": episodes.num_episodes,
        "episode_return_sum": episodes.return_sum,
        "episode_length_sum": episodes.length_sum,
    }
