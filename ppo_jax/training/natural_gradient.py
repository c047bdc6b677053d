"""The other improver: one step of the natural gradient within a trust region, then the critic.

TRPO (Schulman et al. 2015): maximise L^IS subject to mean KL[old||new] <= delta, by the step
F^-1 g scaled to the bound and a backtracking line search. `npg` is the same without the search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.interpreters import partial_eval

from ppo_jax.config.config import Config, Hyper
from ppo_jax.kernels import collectives
from ppo_jax.kernels.chunks import piece_size
from ppo_jax.models.network import Network
from ppo_jax.models.policy_head import Family
from ppo_jax.rl import trust_region
from ppo_jax.rl.advantages import mean_and_variance, standardise
from ppo_jax.rl.types import Batch, Metrics, PyTree
from ppo_jax.training import objectives
from ppo_jax.training.update import PER_ROW, Ratios, by_minibatches, measure_ratios, summarise


def by_trust_region(
    config: Config,
    hyper: Hyper,
    network: Network,
    family: Family,
    params: PyTree,
    opt_state: PyTree,
    batch: Batch,
    num_envs: int,
    key: Array,
    axis_name: str | None = None,
) -> tuple[PyTree, PyTree, Metrics, Ratios]:
    """One constrained step of the policy on the whole batch, then E x M Adam steps of the critic.

    The critic moves only parameters that the policy does not depend on, so that the bound on the
    KL still holds after it; with a shared torso that is the value head.

    Returns:
        params, optimiser state, the metrics after the policy's step (`updates_fraction` is the
        share of the full step that the line search accepted, 0 where it accepted none), and this
        device's ratios after it.
    """
    flat, unravel = ravel_pytree(params)
    if config.normalize_advantages == "minibatch":  # the one minibatch is the batch
        moments = mean_and_variance(batch.advantage, axis_name)
        batch = batch._replace(advantage=standardise(batch.advantage, *moments))

    def loss(vector: Array, rows: Batch) -> tuple[Array, Metrics]:
        without_critic = dataclasses.replace(hyper, value_coef=0.0)
        return objectives.minibatch_loss(
            unravel(vector), rows, without_critic, config, network, family
        )

    def curvature(v: Array, rows: Batch) -> Array:
        """F v on these rows: the KL has no slope at theta_old, so its Hessian is J' H J alone."""

        def policy(vector: Array) -> PyTree:
            return family.keep(network.policy(unravel(vector), rows.observation))

        def divergence(distribution: PyTree) -> Array:
            return jnp.mean(family.kl(rows.distribution_old, distribution))

        return trust_region.gauss_newton_product(divergence, policy, flat)(v)

    over_batch = partial(batch_mean, batch=batch, axis_name=axis_name)
    gradient, before = over_batch(lambda rows: jax.grad(loss, has_aux=True)(flat, rows))
    loss_old, _ = over_batch(lambda rows: loss(flat, rows))

    def fisher_product(v: Array) -> Array:
        product = over_batch(partial(curvature, v))
        return product + hyper.fisher_damping * v

    def measure(vector: Array) -> tuple[Array, Array]:
        loss_new, after = over_batch(lambda rows: loss(vector, rows))
        return loss_old - loss_new, after["kl_old_new"]

    step = trust_region.natural_step(
        fisher_product, -gradient, hyper.trust_region_kl, config.num_cg_iterations
    )
    if config.objective == "npg":
        moved, fraction = flat + step, jnp.ones(())
    else:
        found = trust_region.backtrack(measure, flat, step, hyper.trust_region_kl)
        moved, fraction = found.params, found.fraction
    _, after = over_batch(lambda rows: loss(moved, rows))

    frozen = policy_leaves(network, params, batch.observation[:1])
    params, opt_state, _, fitted = by_minibatches(
        config,
        hyper,
        lambda p, rows: objectives.critic_loss(freeze(p, frozen), rows, hyper, network),
        unravel(moved),
        opt_state,
        batch,
        num_envs,
        key,
        axis_name,
    )
    table = {name: value[None, None] for name, value in after.items()}
    table["grad_norm"] = jnp.sqrt(jnp.sum(jnp.square(gradient)))[None, None]
    table["active"] = jnp.ones((1, 1))
    ratios = measure_ratios(hyper, table[PER_ROW], table["active"])
    first = jnp.max(jnp.abs(before[PER_ROW]))
    metrics = {
        **summarise(table),
        "value_loss": jnp.mean(fitted["value_loss"]),
        "updates_fraction": fraction,
    }
    return params, opt_state, metrics, ratios._replace(largest=ratios.largest.at[1].set(first))


def batch_mean(function: Callable[[Batch], PyTree], batch: Batch, axis_name: str | None) -> PyTree:
    """Mean of what `function` says of each piece of the batch, and of each device's.

    What it says under the name PER_ROW is kept for every row of this device.
    """
    num_rows = batch.advantage.shape[0]
    piece = piece_size(num_rows)
    pieces = jax.tree.map(lambda leaf: leaf.reshape(-1, piece, *leaf.shape[1:]), batch)
    if num_rows == piece:
        result = function(batch)
    else:
        stacked = jax.lax.map(function, pieces)
        result = jax.tree_util.tree_map_with_path(over_pieces, stacked)
    return collectives.mean(result, axis_name, own=PER_ROW)


def over_pieces(path: tuple, leaf: Array) -> Array:
    """What all pieces say [pieces, ...]: the mean, but under the name PER_ROW every row's."""
    is_per_row = any(getattr(part, "key", None) == PER_ROW for part in path)
    return jnp.ravel(leaf) if is_per_row else jnp.mean(leaf, axis=0)


def policy_leaves(network: Network, params: PyTree, observation: Array) -> list[bool]:
    """Which leaves of `params` the action distribution depends on.

    What is left of the traced program without dead code: no assumption on the network's names.
    """
    closed = jax.make_jaxpr(lambda p: network.policy(p, observation))(params)
    _, is_used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return is_used


def freeze(params: PyTree, frozen: list[bool]) -> PyTree:
    """`params` with no gradient into the leaves that are frozen."""
    leaves, treedef = jax.tree.flatten(params)
    return jax.tree.unflatten(
        treedef,
        [
            jax.lax.stop_gradient(leaf) if is_frozen else leaf
            for leaf, is_frozen in zip(leaves, frozen, strict=True)
        ],
    )
