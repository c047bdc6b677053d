"""One step of the natural gradient within a trust region, then minibatch updates of the critic.

TRPO (Schulman et al. 2015): maximise L^IS subject to mean KL[old||new] <= delta, by the step
F^-1 g scaled to the bound and a backtracking line search. `npg` is the same without the search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ppo_jax.kernels.chunks import mean_of_prepared
from ppo_jax.models.network import Network, freeze, keep_frozen, policy_leaves
from ppo_jax.models.policy_head import Family
from ppo_jax.rl import trust_region
from ppo_jax.rl.advantages import mean_and_variance, standardise
from ppo_jax.rl.ratios import Ratios, kept, measure_ratios
from ppo_jax.rl.types import Batch, Metrics, PyTree, Setting, Window
from ppo_jax.training import objectives
from ppo_jax.training.update import Learner, batch_mean, minibatch_updates, summarise


def trust_region_update(
    setting: Setting, network: Network, family: Family, learner: Learner, batch: Batch, key: Array
) -> tuple[Learner, Metrics, Ratios]:
    """One constrained step of the policy on the whole batch, then E x M steps of the critic.

    The critic moves only parameters that the policy does not depend on, so the bound on the KL
    still holds afterwards. With a shared torso these are the value head's.

    Returns:
        the learner, the metrics after the policy's step, and this device's ratios. The metric
        `updates_fraction` is the accepted share of the full step, 0 if the line search accepted
        none.
    """
    config, hyper, across = setting
    if config.normalize_advantages == "minibatch":  # the one minibatch is the batch
        moments = mean_and_variance(batch.advantage, across, batch.weight)
        batch = batch._replace(advantage=standardise(batch.advantage, *moments))
    objective = make_objective(setting, network, family, learner.params, batch)
    params, fraction, metrics, log_ratio = policy_step(
        setting, objective, fisher_product(setting, network, family, learner.params, batch)
    )
    weight = jax.tree.map(lambda leaf: leaf[None, None], batch.weight)
    ratios = measure_ratios(hyper, log_ratio[None, None], jnp.ones((1, 1)), weight)
    first = jnp.max(jnp.abs(kept(objective.log_ratio, batch.weight)))
    ratios = ratios._replace(largest=ratios.largest.at[1].set(first))
    learner = learner._replace(params=params)
    learner, value_loss = critic_updates(setting, network, learner, batch, key)
    return learner, {**metrics, "value_loss": value_loss, "updates_fraction": fraction}, ratios


class Objective(NamedTuple):
    """L^IS on a batch, as a function of the flat parameters [P], and at theta_old."""

    measure: Callable[[Array], tuple[tuple[Array, Metrics], Array]]  # (loss, means), log-ratios
    params: Array  # [P], theta_old
    unravel: Callable[[Array], PyTree]
    loss: Array  # []
    gradient: Array  # [P]
    log_ratio: Array  # [N], 0 up to rounding


def make_objective(
    setting: Setting, network: Network, family: Family, params: PyTree, batch: Batch
) -> Objective:
    """The surrogate of a batch, without the critic, whose old values stand in its place."""
    config, hyper, _ = setting
    flat, unravel = ravel_pytree(params)
    without_critic = dataclasses.replace(hyper, value_coef=0.0)

    def loss(vector: Array, rows: Batch) -> tuple[Array, tuple[Metrics, Array]]:
        def apply(params: PyTree, window: Window) -> tuple[PyTree, Array]:
            return network.policy(params, window), rows.value_old

        return objectives.minibatch_loss(
            unravel(vector), rows, without_critic, config, network._replace(apply=apply), family
        )

    def at(vector: Array, rows: Batch) -> tuple[PyTree, Array]:
        value, (means, log_ratio) = loss(vector, rows)
        return (value, means), log_ratio

    def gradient_at(rows: Batch) -> tuple[PyTree, Array]:
        (value, (_, log_ratio)), gradient = jax.value_and_grad(loss, has_aux=True)(flat, rows)
        return (value, gradient), log_ratio

    def measure(vector: Array) -> tuple[tuple[Array, Metrics], Array]:
        return batch_mean(setting, batch, partial(at, vector))

    (loss_old, gradient), log_ratio = batch_mean(setting, batch, gradient_at)
    return Objective(measure, flat, unravel, loss_old, gradient, log_ratio)


def policy_step(
    setting: Setting, objective: Objective, product: trust_region.Product
) -> tuple[PyTree, Array, Metrics, Array]:
    """The constrained step: parameters, accepted share of it, metrics and log-ratios after it."""
    config, hyper, _ = setting
    step = trust_region.natural_step(
        product, -objective.gradient, hyper.trust_region_kl, config.num_cg_iterations
    )

    def gain(vector: Array) -> tuple[Array, Array]:
        (loss, means), _ = objective.measure(vector)
        return objective.loss - loss, means["kl_old_new"]

    if config.objective == "npg":
        moved, fraction = objective.params + step, jnp.ones(())
    else:
        found = trust_region.backtrack(gain, objective.params, step, hyper.trust_region_kl)
        moved, fraction = found.params, found.fraction
    (_, means), log_ratio = objective.measure(moved)
    table = {name: value[None, None] for name, value in means.items()}
    table["grad_norm"] = jnp.sqrt(jnp.sum(jnp.square(objective.gradient)))[None, None]
    table["active"] = jnp.ones((1, 1))
    return objective.unravel(moved), fraction, summarise(table), log_ratio


def fisher_product(
    setting: Setting, network: Network, family: Family, params: PyTree, batch: Batch
) -> trust_region.Product:
    """v -> (F + damping) v, with F the Fisher matrix of the policy on the batch.

    The KL has no slope at theta_old, so its Hessian is J' H J alone.
    """
    flat, unravel = ravel_pytree(params)

    def curvature(rows: Batch) -> trust_region.Product:
        def policy(vector: Array) -> PyTree:
            return family.keep(network.policy(unravel(vector), rows.window))

        def divergence(distribution: PyTree) -> Array:
            kl = family.kl(rows.distribution_old, distribution)
            return jnp.mean(objectives.weighted(rows, kl))

        return trust_region.gauss_newton_product(divergence, policy, flat)

    def mean(function: Callable[[Batch], Array]) -> Array:
        return batch_mean(setting, batch, lambda rows: (function(rows), ()))[0]

    fisher = mean_of_prepared(curvature, mean, batch)
    return lambda v: fisher(v) + setting.hyper.fisher_damping * v


def critic_updates(
    setting: Setting, network: Network, learner: Learner, batch: Batch, key: Array
) -> tuple[Learner, Array]:
    """E x M steps of the critic's own parameters, and their mean value loss []."""
    frozen = policy_leaves(network, learner.params, batch.window)

    def loss(params: PyTree, rows: Batch) -> tuple[Array, tuple[Metrics, tuple[()]]]:
        return objectives.critic_loss(freeze(params, frozen), rows, setting.hyper, network)

    found = minibatch_updates(setting, loss, learner, batch, key)
    # An optimiser with weight decay moves leaves without a gradient, too.
    params = keep_frozen(learner.params, found.params, frozen)
    learner = learner._replace(params=params, opt_state=found.opt_state)
    return learner, jnp.mean(found.diagnostics["value_loss"])
