"""Metrics of an iteration's ratios, which measure how far the policy has moved on its samples."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Hyper
from ppo_jax.kernels.reductions import weighted_sums
from ppo_jax.rl.surrogates import MAX_LOG_RATIO, upper_epsilon
from ppo_jax.rl.types import Metrics, Scalar


class Ratios(NamedTuple):
    """One device's ratios of an iteration, reduced; `ratio_metrics` reads them."""

    means: Array  # [6]
    largest: Array  # [2]
    total: Array | tuple[()] = ()  # [], mean weight of the samples, if they have any


def measure_ratios(
    hyper: Hyper[Scalar], log_ratio: Array, active: Array, weight: Array | tuple[()] = ()
) -> Ratios:
    """Reduce this device's ratios over the minibatches that were learnt from.

    Args:
        log_ratio: [E, M, rows], before each minibatch's step.
        active: [E, M], 1 for a minibatch that was learnt from.
        weight: of each log-ratio, 0 for a sample that is left out; () for equal weights.
    """
    log_ratio = kept(log_ratio, weight)
    ratio = jnp.exp(log_ratio)
    upper = upper_epsilon(hyper.clip_epsilon, hyper.clip_epsilon_high)
    is_clipped = (ratio < 1.0 - hyper.clip_epsilon) | (ratio > 1.0 + upper)
    is_clamped = jnp.abs(log_ratio) >= MAX_LOG_RATIO
    share = active / jnp.maximum(jnp.sum(active) * ratio.shape[-1], 1.0)
    k3 = ratio - 1.0 - log_ratio
    values = [-log_ratio, k3, is_clipped * 1.0, is_clamped * 1.0, ratio, ratio**2]
    share, total = jnp.broadcast_to(share[..., None], ratio.shape), ()
    if not isinstance(weight, tuple):
        share = share * weight
        total = jnp.sum(share)
    means = weighted_sums(values, share)
    largest = [jnp.max(kept(ratio, weight)), jnp.max(jnp.abs(log_ratio[0, 0]))]
    return Ratios(means, jnp.stack(largest), total)


def kept(values: Array, weight: Array | tuple[()]) -> Array:
    """Values of samples, 0 for those that are left out."""
    return values if isinstance(weight, tuple) else jnp.where(weight > 0.0, values, 0.0)


def ratio_metrics(gathered: Ratios) -> Metrics:
    """Metrics of an iteration's ratios from all devices, stacked on a leading axis [D].

    Returns:
        `kl_k1` and `kl_k3`, Schulman's estimates of KL[old||new] from samples of old. The ratios'
        mean, maximum and effective sample size. The shares of ratios beyond the clip and of
        log-ratios clamped to +-MAX_LOG_RATIO. The largest |log-ratio| of the very first minibatch,
        which is computed at theta_old: 0 up to rounding.
    """
    largest = jnp.max(gathered.largest, axis=0)
    means = jnp.mean(gathered.means, axis=0)
    if not isinstance(gathered.total, tuple):
        means = means / jnp.maximum(jnp.mean(gathered.total), 1e-30)  # all may be left out
    k1, k3, clip_fraction, clamped_fraction, mean, square = means
    return {
        "kl_k1": k1,
        "kl_k3": k3,
        "clip_fraction": clip_fraction,
        "clamped_fraction": clamped_fraction,
        "ratio_mean": mean,
        "ess_fraction": ess_fraction(mean, square),
        "ratio_max": largest[0],
        "log_ratio_abs_first": largest[1],
    }


def ess_fraction(ratio_mean: Array, ratio_square_mean: Array) -> Array:
    """Kish's effective sample size of importance weights, divided by their number."""
    return jnp.square(ratio_mean) / jnp.maximum(ratio_square_mean, 1e-30)
