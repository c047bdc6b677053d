"""From a rollout to a batch: scaled rewards, advantages, samples, and counts of episodes."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config, Hyper
from ppo_jax.kernels.collectives import Across
from ppo_jax.rl import advantages, moments
from ppo_jax.rl.metrics import env_metric_sum
from ppo_jax.rl.types import (
    Batch,
    EpisodeStats,
    Metrics,
    Moments,
    Rollout,
    Scalar,
    TrainState,
    Window,
)


class Tally(NamedTuple):
    """Counts of one device's rollout, to be gathered at the iteration's end."""

    mean: Array  # [2], of R - V and of the value targets R
    variance: Array  # [2]
    episodes: EpisodeStats
    dropped: Array | tuple[()] = ()  # [], share of the transitions that are left out


def scale_rewards(
    config: Config, hyper: Hyper[Scalar], state: TrainState, steps: Rollout, across: Across
) -> tuple[Array, Array, Moments]:
    """Divide rewards by the standard deviation of the discounted return, if configured.

    The scale may include the rewards that it scales, so the first iteration is scaled as well. The
    observations' statistics may not, because the ratio depends on them. Transitions that are left
    out do not count in the moments; an unknown reward is 0 in the returns after it.

    Returns:
        rewards [T, B], the discounted return [B] to continue from, and its moments.
    """
    if not config.normalize_rewards:
        return steps.reward, state.discounted_return, state.return_moments
    discounted_return, returns = moments.discounted_returns(
        state.discounted_return, steps.reward, steps.terminated | steps.truncated, hyper.gamma
    )
    weight = jax.tree.map(lambda is_bad: 1.0 - is_bad.reshape(-1), steps.is_bad)
    fresh = moments.all_reduce(moments.from_batch(returns.reshape(-1), weight), across)
    return_moments = moments.merge(state.return_moments, fresh)
    return moments.scale(return_moments, steps.reward), discounted_return, return_moments


def make_batch(
    config: Config,
    hyper: Hyper[Scalar],
    steps: Rollout,
    reward: Array,
    episodes: EpisodeStats,
    across: Across,
) -> tuple[Batch, Tally]:
    """The N = T x B samples of a rollout with advantages and value targets.

    Rows are time-major; with a memory each environment's steps are contiguous.
    """
    advantage, value_target, weight = estimates(hyper, steps, reward, across)
    if config.normalize_advantages == "batch":
        centre, variance = advantages.mean_and_variance(advantage, across, weight)
        advantage = advantages.standardise(advantage, centre, variance)
    mean, variance = jax.vmap(lambda x: advantages.mean_and_variance(x, weight=weight))(
        jnp.stack([value_target - steps.value, value_target])
    )
    has_memory = bool(jax.tree.leaves(steps.window.memory))

    def flatten(x: Array) -> Array:
        x = jnp.swapaxes(x, 0, 1) if has_memory else x
        return x.reshape(-1, *x.shape[2:])

    observation = jax.tree.map(flatten, steps.window.observation)
    batch = Batch(
        window=steps.window.by_environment() if has_memory else Window(observation),
        action=jax.tree.map(flatten, steps.action),
        log_prob_old=flatten(steps.log_prob),
        distribution_old=jax.tree.map(flatten, steps.distribution),
        value_old=flatten(steps.value),
        advantage=flatten(advantage),
        value_target=flatten(value_target),
        weight=jax.tree.map(flatten, weight),
    )
    dropped = jax.tree.map(lambda is_bad: jnp.mean(is_bad * 1.0), steps.is_bad)
    return batch, Tally(mean, variance, episodes, dropped)


def estimates(
    hyper: Hyper[Scalar], steps: Rollout, reward: Array, across: Across
) -> tuple[Array, Array, Array | tuple[()]]:
    """Advantages, value targets and weights [T, B] of a rollout's transitions.

    A transition that is left out has weight 0, and the credit of those before it is cut as by a
    time limit: the last of them bootstraps from the value of its successor. The other weights are
    equal and of mean 1 over all, so that means over chunks and devices stay means.
    """
    ended = steps.terminated | steps.truncated
    numbers = (hyper.gamma, hyper.gae_lambda)
    if isinstance(steps.is_bad, tuple):
        return *advantages.gae(reward, steps.value, steps.value_next, ended, *numbers), ()
    is_before = jnp.concatenate([steps.is_bad[1:], jnp.zeros_like(ended[:1])])
    cut = ended | steps.is_bad | is_before
    advantage, target = advantages.gae(reward, steps.value, steps.value_next, cut, *numbers)
    kept = 1.0 - steps.is_bad
    weight = kept / jnp.maximum(across.mean(jnp.mean(kept)), 1e-30)
    return (
        jnp.where(steps.is_bad, 0.0, advantage),
        jnp.where(steps.is_bad, steps.value, target),
        weight,
    )


def batch_metrics(tallies: Tally) -> Metrics:
    """Metrics of a batch from the tallies of all devices, stacked on a leading axis [D].

    Sums over the episodes that ended, and the critic's explained variance 1 - Var[R - V] / Var[R],
    NaN for targets that are constant up to rounding.
    """
    episodes = jax.tree.map(partial(jnp.sum, axis=0), tallies.episodes)
    share = jax.tree.map(lambda dropped: 1.0 - dropped, tallies.dropped)
    (_, mean), (unexplained, variance) = advantages.pooled(tallies.mean, tallies.variance, share)
    is_constant = variance <= 1e-12 + jnp.square(1e-5 * mean)
    explained = 1.0 - unexplained / jnp.where(is_constant, 1.0, variance)
    dropped = tallies.dropped
    return {
        **({} if isinstance(dropped, tuple) else {"dropped_fraction": jnp.mean(dropped)}),
        "explained_variance": jnp.where(is_constant, jnp.nan, explained),
        "num_episodes": episodes.num_episodes,
        "episode_return_sum": episodes.return_sum,
        "episode_length_sum": episodes.length_sum,
        **{env_metric_sum(name): total for name, total in dict(episodes.metric_sums).items()},
    }
