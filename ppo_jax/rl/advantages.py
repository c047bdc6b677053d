"""Advantages and value targets.

An episode can end in two ways, and they differ in one number only, `value_next`, the value of the
state that follows step t:

* terminated: nothing follows, `value_next` = 0;
* truncated (a time limit): the episode would have gone on, `value_next` = V(final observation),
  never V(observation after the reset) and never 0;
* neither: `value_next` = V(next observation).

Both endings cut lambda's recursion: no credit flows across the end of an episode.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp
from jax import Array

from ppo_jax.kernels.collectives import ALONE, Across
from ppo_jax.kernels.recurrence import linear_recurrence


def gae(
    reward: Array,
    value: Array,
    value_next: Array,
    ended: Array,
    gamma: Array | float,
    gae_lambda: Array | float,
) -> tuple[Array, Array]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16) and its lambda-returns.

    A_t = delta_t + gamma lambda (1 - ended_t) A_{t+1},
    delta_t = r_t + gamma value_next_t - V(s_t).

    Args:
        reward, value, value_next: [T, ...] float.
        ended: [T, ...] bool, terminated or truncated at step t.
        gamma, gae_lambda: scalars in [0, 1].

    Returns:
        advantage [T, ...] and value target A_t + V(s_t) [T, ...], the TD(lambda) return.
    """
    chex.assert_equal_shape([reward, value, value_next, ended])
    delta = reward + gamma * value_next - value
    decay = gamma * gae_lambda * (1.0 - ended)
    advantage = linear_recurrence(decay, delta, reverse=True)
    return advantage, advantage + value


def successor_values(
    value: Array, value_last: Array, value_final: Array, terminated: Array, truncated: Array
) -> Array:
    """`value_next` [T, B] from the values of the observations that the policy saw.

    Args:
        value: [T, B], V(observation at step t).
        value_last: [B], V(observation after step T - 1); unused if the episode ended.
        value_final: [T, B], V(final observation) if truncated; otherwise unused.
        terminated, truncated: [T, B] bool; termination wins if both are set.
    """
    following = jnp.concatenate([value[1:], value_last[None]])
    return jnp.where(terminated, 0.0, jnp.where(truncated, value_final, following))


def standardise(advantage: Array, mean: Array, variance: Array) -> Array:
    """(A - mean) / std. A constant advantage gives 0: the floor grows with the values' size.

    Args:
        advantage: [...]. mean, variance: of all advantages, [].

    Returns:
        [...], without a unit.
    """
    floor = 1e-8 + 1e-5 * jnp.abs(mean)  # below it, float32 deviations are rounding errors
    return (advantage - mean) / (jnp.sqrt(variance) + floor)


def mean_and_variance(
    x: Array, across: Across = ALONE, weight: Array | tuple[()] = ()
) -> tuple[Array, Array]:
    """Mean and population variance over all elements, and over all devices of `across`.

    Args:
        x: [...], of the same shape on every device.
        weight: of each element, as x, at least 0; () for equal weights.

    Returns:
        Mean and variance, [] each.
    """
    if not isinstance(weight, tuple):
        total, first = across.mean((jnp.mean(weight), jnp.mean(weight * x)))
        total = jnp.maximum(total, 1e-30)  # all may be left out
        mean = first / total
        return mean, across.mean(jnp.mean(weight * jnp.square(x - mean))) / total
    centre = jnp.mean(x)
    local = centre, jnp.mean(jnp.square(x - centre))
    return pooled(*across.gather(local)) if across.axes else local


def pooled(means: Array, variances: Array, share: Array | tuple[()] = ()) -> tuple[Array, Array]:
    """Combine the means and variances [D, ...] of D equally large samples into those of all, [...].

    The total variance is the mean of the variances plus the variance of the means.

    Args:
        share: [D], of each sample that counts; () if all of it does.
    """
    if not isinstance(share, tuple):
        share = share / jnp.maximum(jnp.sum(share), 1e-30)  # all may be left out
        share = share.reshape(-1, *[1] * (means.ndim - 1))
        mean = jnp.sum(share * means, axis=0)
        return mean, jnp.sum(share * (variances + jnp.square(means - mean[None])), axis=0)
    mean = jnp.mean(means, axis=0)
    return mean, jnp.mean(variances + jnp.square(means - mean[None]), axis=0)
