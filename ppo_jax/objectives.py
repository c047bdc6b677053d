"""The table of objectives, and the loss that every minibatch objective shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax import surrogates
from ppo_jax.config import Config, Hyper
from ppo_jax.distributions import Family
from ppo_jax.networks import Network
from ppo_jax.types import Batch, Metrics, PyTree


class Terms(NamedTuple):
    """What a surrogate may be made of, all per sample [M]."""

    log_prob: Array
    ratio: Array
    advantage: Array
    kl_old_new: Array


Surrogate = Callable[[Terms, Hyper], Array]

SURROGATES: dict[str, Surrogate] = {
    "pg": lambda t, h: surrogates.policy_gradient(t.log_prob, t.advantage),
    "is": lambda t, h: surrogates.importance_sampled(t.ratio, t.advantage),
    "clip": lambda t, h: surrogates.clipped(t.ratio, t.advantage, h.clip_epsilon),
    "kl": lambda t, h: surrogates.kl_penalised(t.ratio, t.advantage, t.kl_old_new, h.kl_coef),
    "dpo": lambda t, h: surrogates.drifted(
        t.ratio, t.advantage, surrogates.dpo_drift(t.ratio, t.advantage)
    ),
    "spo": lambda t, h: surrogates.drifted(
        t.ratio, t.advantage, surrogates.spo_drift(t.ratio, t.advantage, h.clip_epsilon)
    ),
}


def minibatch_loss(
    params: PyTree,
    batch: Batch,
    hyper: Hyper,
    config: Config,
    network: Network,
    family: Family,
) -> tuple[Array, Metrics]:
    """Surrogate + c_v L^VF - c_e H  (Schulman et al. 2017, eq. 9), with its diagnostics.

    Args:
        batch: [M] samples, their advantages standardised already where that is asked for.

    Returns:
        The scalar loss and its diagnostics, each a scalar.
    """
    distribution, value = network.apply(params, batch.observation)
    log_prob = family.log_prob(distribution, batch.action)
    log_ratio = surrogates.log_ratio(log_prob, batch.log_prob_old)
    ratio = jnp.exp(log_ratio)
    kl_old_new = family.kl(batch.distribution_old, family.keep(distribution))
    terms = Terms(log_prob, ratio, batch.advantage, kl_old_new)
    policy_loss = SURROGATES[config.objective](terms, hyper)
    value_loss = surrogates.value_loss(
        value, batch.value_old, batch.value_target, hyper.value_clip_epsilon
    )
    entropy = family.entropy(distribution)
    total = policy_loss + hyper.value_coef * value_loss - hyper.entropy_coef * entropy
    per_sample = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "kl_old_new": kl_old_new,
        "clip_fraction": (jnp.abs(ratio - 1.0) > hyper.clip_epsilon) * 1.0,
        "ratio_mean": ratio,
        "ratio_square_mean": jnp.square(ratio),
    }
    # One mean over a matrix instead of seven over vectors: on a CPU each is a kernel of its own.
    means = jnp.mean(jax.lax.stop_gradient(jnp.stack(list(per_sample.values()))), axis=1)
    diagnostics = {
        **dict(zip(per_sample, means, strict=True)),
        "ratio_max": jnp.max(ratio),
        "log_ratio_abs_max": jnp.max(jnp.abs(log_ratio)),
    }
    return jnp.mean(total), diagnostics
