"""The table of objectives, and their losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ppo_jax.config.config import TRUST_REGION, Config, Hyper
from ppo_jax.kernels.reductions import mean, mean_of_each
from ppo_jax.models.body import Network
from ppo_jax.models.drift import load_drift
from ppo_jax.models.policy_head import Family
from ppo_jax.rl import advantages, ratios, surrogates
from ppo_jax.rl.types import Batch, Metrics, PyTree, Scalar, Setting


class Terms(NamedTuple):
    """Inputs of a surrogate, all per sample [M]."""

    log_prob: Array
    ratio: Array
    advantage: Array
    kl_old_new: Array
    kl_new_old: Array


Surrogate = Callable[[Terms, Hyper[Scalar]], Array]

# Keys are objectives, or their variants. `pg` is the vanilla gradient; `is` has the ratio in place
# of the logarithm. All others bound the effect of the ratio.
SURROGATES: dict[str, Surrogate] = {
    "pg": lambda t, h: surrogates.policy_gradient(t.log_prob, t.advantage),
    "is": lambda t, h: surrogates.importance_sampled(t.ratio, t.advantage),
    "clip": lambda t, h: surrogates.clipped(
        t.ratio,
        t.advantage,
        h.clip_epsilon,
        surrogates.upper_epsilon(h.clip_epsilon, h.clip_epsilon_high),
        h.dual_clip,
    ),
    "kl": lambda t, h: surrogates.kl_penalised(t.ratio, t.advantage, t.kl_old_new, h.kl_coef),
    "kl new-old": lambda t, h: surrogates.kl_penalised(
        t.ratio, t.advantage, t.kl_new_old, h.kl_coef
    ),
    "dpo": lambda t, h: surrogates.drifted(
        t.ratio, t.advantage, surrogates.dpo_drift(t.ratio, t.advantage)
    ),
    "spo": lambda t, h: surrogates.drifted(
        t.ratio, t.advantage, surrogates.spo_drift(t.ratio, t.advantage, h.clip_epsilon)
    ),
}


def find_surrogate(config: Config) -> Surrogate:
    """The surrogate that `config` names, from the table or the user's own drift.

    Raises:
        InputError: the user's drift cannot be loaded, or is no drift.
    """
    if config.objective == "drift":
        drift = load_drift(config.drift)
        return lambda t, h: surrogates.drifted(t.ratio, t.advantage, drift(t.ratio, t.advantage))
    if config.objective in TRUST_REGION:
        return SURROGATES["is"]
    if config.objective == "kl" and config.kl_direction == "new-old":
        return SURROGATES["kl new-old"]
    return SURROGATES[config.objective]


def minibatch_loss(
    params: PyTree,
    batch: Batch,
    hyper: Hyper[Scalar],
    config: Config,
    network: Network,
    family: Family,
) -> tuple[Array, tuple[Metrics, Array]]:
    """Surrogate + c_v L^VF - c_e H  (Schulman et al. 2017, eq. 9), with its diagnostics.

    Args:
        batch: [M] samples, with advantages already standardised if configured.

    Returns:
        The scalar loss, its diagnostics (means), and the log-ratios [M], which `rl/ratios.py`
        turns into the other diagnostics once per iteration.
    """
    distribution, value = network.apply(params, batch.window)
    log_prob = family.log_prob(distribution, batch.action)
    log_ratio = surrogates.log_ratio(log_prob, batch.log_prob_old)
    ratio = jnp.exp(log_ratio)
    kept = family.keep(distribution)
    kl_old_new = family.kl(batch.distribution_old, kept)
    kl_new_old = family.kl(kept, batch.distribution_old)
    terms = Terms(log_prob, ratio, batch.advantage, kl_old_new, kl_new_old)
    policy_loss = find_surrogate(config)(terms, hyper)
    value_loss = surrogates.value_loss(
        value, batch.value_old, batch.value_target, hyper.value_clip_epsilon
    )
    per_sample = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": family.entropy(distribution),
        "kl_old_new": kl_old_new,
        "kl_new_old": kl_new_old,
    }
    per_sample = {name: weighted(batch, value) for name, value in per_sample.items()}
    total = per_sample["policy_loss"] + hyper.value_coef * per_sample["value_loss"]
    total = total - hyper.entropy_coef * per_sample["entropy"]
    diagnostics = (mean_of_each(per_sample), log_ratio)
    return mean(total), jax.lax.stop_gradient(diagnostics)


def weighted(batch: Batch, values: Array) -> Array:
    """Values [M] times the samples' weights, if they have any; their mean is the weighted mean."""
    return values if isinstance(batch.weight, tuple) else values * batch.weight


def gradient_cosine(
    params: PyTree, batch: Batch, setting: Setting, network: Network, family: Family
) -> Metrics:
    """Cosine between the gradients of L^PG and L^IS on the same samples, and the distance from old.

    The cosine is 1 at theta_old; its fall measures the error of the logarithm as an objective. It
    is returned with KL[old||new] and the effective sample size over N at the same point. With
    `normalize_advantages` per minibatch the samples' advantages are standardised here, and weights
    are scaled to a mean of 1. `batch` holds this device's rows; the measurements are of all
    devices.
    """
    config, hyper, across = setting
    if not isinstance(batch.weight, tuple):
        total = jnp.maximum(across.mean(jnp.mean(batch.weight)), 1e-30)
        batch = batch._replace(weight=batch.weight / total)
    if config.normalize_advantages == "minibatch":
        found = advantages.mean_and_variance(batch.advantage, across, batch.weight)
        batch = batch._replace(advantage=advantages.standardise(batch.advantage, *found))

    def gradient(name: str) -> tuple[Array, tuple[Metrics, Array]]:
        policy_only = dataclasses.replace(hyper, value_coef=0.0, entropy_coef=0.0)
        named = dataclasses.replace(config, objective=name, drift=None)

        def loss(p: PyTree) -> tuple[Array, tuple[Metrics, Array]]:
            return minibatch_loss(p, batch, policy_only, named, network, family)

        found, diagnostics = jax.grad(loss, has_aux=True)(params)
        return ravel_pytree(found)[0], diagnostics

    (pg, _), (sampled, (means, log_ratio)) = gradient("pg"), gradient("is")
    ratio = jnp.exp(log_ratio)
    sizes = jnp.mean(weighted(batch, ratio)), jnp.mean(weighted(batch, ratio**2))
    local = (pg, sampled, means["kl_old_new"], *sizes)
    pg, sampled, kl_old_new, ratio_mean, square = across.mean(local)
    units = [g / jnp.linalg.norm(g) for g in (pg, sampled)]  # NaN where a gradient has vanished
    return {
        "gradient_cosine": jnp.dot(*units, precision="highest"),
        "kl_old_new_probe": kl_old_new,
        "ess_fraction_probe": ratios.ess_fraction(ratio_mean, square),
    }


def critic_loss(
    params: PyTree, batch: Batch, hyper: Hyper[Scalar], network: Network
) -> tuple[Array, tuple[Metrics, tuple[()]]]:
    """c_v L^VF alone, for objectives whose policy takes its step elsewhere."""
    loss = surrogates.value_loss(
        network.value(params, batch.window),
        batch.value_old,
        batch.value_target,
        hyper.value_clip_epsilon,
    )
    value_loss = jnp.mean(weighted(batch, loss))
    return hyper.value_coef * value_loss, ({"value_loss": jax.lax.stop_gradient(value_loss)}, ())
