"""Minibatch updates: E epochs over a batch, each in its own order, one step per minibatch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config, Hyper
from ppo_jax.kernels.chunks import mean_over_chunks
from ppo_jax.kernels.collectives import Across
from ppo_jax.kernels.packing import as_row, gather_rows, materialise, scan_outer
from ppo_jax.kernels.permutation import permutations
from ppo_jax.rl.advantages import mean_and_variance, standardise
from ppo_jax.rl.surrogates import adapted_learning_rate
from ppo_jax.rl.types import Batch, Metrics, PyTree, Scalar, Setting
from ppo_jax.training.optimizer import flatten, optimizer_step

# (params, minibatch) -> loss, (means over the samples, log-ratios [M] or ())
Loss = Callable[[PyTree, Batch], tuple[Array, tuple[Metrics, Array | tuple[()]]]]
Probe = Callable[[PyTree, Batch], Metrics]

# Measured once an epoch, at its start, if `measure_gradient_cosine` asks for it.
PROBED = ("gradient_cosine", "kl_old_new_probe", "ess_fraction_probe")


KL = "kl_old_new"
# Steps of an iteration up to which the KL is measured once more, after the last of them. Each step
# measures it before it moves, which is 0 for the first and too little for the next few.
SHORT = 4


class MinibatchRows(NamedTuple):
    """The rows of minibatches [E, M, N / M], known before the first step."""

    index: Array  # into the batch
    advantage: Array  # as the loss sees it


class Learner(NamedTuple):
    """State of the epochs."""

    params: PyTree  # in the optimiser's form
    opt_state: PyTree
    rate: Array  # [], factor on the learning rate, adapted once an epoch
    active: Array  # [], bool; False once KL[old||new] has reached `kl_stop`


class Learned(NamedTuple):
    """Result of the epochs."""

    params: PyTree
    opt_state: PyTree
    rate: Array  # []
    kl: Array  # [], KL[old||new]: of the last epoch, before its steps; after them if they are few
    diagnostics: Metrics  # [E, M], with `grad_norm` and `active` (1 for a step that was taken)
    log_ratio: Array | tuple[()]  # [E, M, N / M], before each step
    weight: Array | tuple[()] = ()  # the same, of the samples; () if they have none


def minibatch_order(
    config: Config, key: Array, num_rows: int, num_envs: int, has_memory: bool = False
) -> Array:
    """An exact permutation of the batch's rows for each epoch, [E, M, N / M].

    `samples` permutes all N = T x B rows of the batch. `env-rows`, which a memory implies, permutes
    the B environments and keeps each one's T steps together. With a key for each block of
    environments [blocks] each block is permuted, and a minibatch takes as many rows of each.
    """
    if key.ndim:
        return block_order(config, key, num_rows, num_envs, has_memory)
    num_steps = num_rows // num_envs
    if has_memory:  # rows of one environment are contiguous
        envs = permutations(key, config.num_epochs, num_envs)
        rows = envs[:, :, None] * num_steps + jnp.arange(num_steps)[None, None]
    elif config.shuffle == "env-rows":
        envs = permutations(key, config.num_epochs, num_envs)
        rows = envs[:, :, None] + jnp.arange(num_steps)[None, None] * num_envs
    else:
        rows = permutations(key, config.num_epochs, num_rows)
    return rows.reshape(config.num_epochs, config.num_minibatches, -1)


def block_order(
    config: Config, keys: Array, num_rows: int, num_envs: int, has_memory: bool
) -> Array:
    """`minibatch_order` of blocks with keys [blocks] of their own."""
    blocks, num_steps = keys.shape[0], num_rows // num_envs
    width = num_envs // blocks

    def order(key: Array) -> Array:
        return minibatch_order(config, key, num_rows // blocks, width, has_memory)

    own = jnp.moveaxis(jax.vmap(order)(keys), 0, 2)  # [E, M, blocks, N / M / blocks]
    step, env = (own % num_steps, own // num_steps) if has_memory else (own // width, own % width)
    env = env + width * jnp.arange(blocks)[None, None, :, None]
    rows = env * num_steps + step if has_memory else step * num_envs + env
    return rows.reshape(config.num_epochs, config.num_minibatches, -1)


def take_minibatches(batch: Batch, num_envs: int) -> Callable[[Array], Batch]:
    """`take(index)`: the samples at `index` [M], with the memory of their environments."""
    memory = batch.window.memory
    take_rows = gather_rows(batch._replace(window=batch.window._replace(memory=())))
    if not jax.tree.leaves(memory):
        return take_rows
    num_steps = batch.advantage.shape[0] // num_envs

    def take(index: Array) -> Batch:
        minibatch = take_rows(index)
        envs = index.reshape(-1, num_steps)[:, 0] // num_steps
        own = jax.tree.map(lambda leaf: leaf[envs], memory)
        return minibatch._replace(window=minibatch.window._replace(memory=own))

    return take


def standardised_rows(config: Config, batch: Batch, index: Array, across: Across) -> MinibatchRows:
    """The minibatches with their advantages, standardised if configured."""
    advantage = batch.advantage[index]
    if config.normalize_advantages == "minibatch":
        each = jax.vmap(lambda a, weight: standardise(a, *mean_and_variance(a, across, weight)))
        rows = (-1, index.shape[-1])
        weight = jax.tree.map(lambda leaf: leaf[index].reshape(rows), batch.weight)
        advantage = each(advantage.reshape(rows), weight).reshape(index.shape)
    return MinibatchRows(index, advantage)


def minibatch_updates(
    setting: Setting, loss: Loss, learner: Learner, batch: Batch, key: Array, probe: Any = None
) -> Learned:
    """E epochs x M minibatches of optimiser steps on `loss`, each sample exactly once per epoch.

    A minibatch whose KL[old||new] has reached `kl_stop` takes no step, nor does any after it.

    Args:
        learner: parameters as a tree; `rate` moves after each epoch, by its mean KL[old||new].
        batch: this device's rows. probe: a `Probe` of the first minibatch before each epoch.
    """
    config, hyper, across = setting
    num_rows = batch.advantage.shape[0]
    num_envs = num_rows // config.rollout_length
    has_memory = bool(jax.tree.leaves(batch.window.memory))
    is_short = config.num_epochs * config.num_minibatches <= SHORT
    take = take_minibatches(batch, num_envs)
    flat, restore = flatten(config, learner.params)
    gradient_of = partial(minibatch_gradient, loss, restore, take)

    def step(learner: Learner, rows: MinibatchRows) -> tuple[Learner, tuple[Any, ...]]:
        # The sequences of a memory are not cut into chunks.
        average = (lambda function, rows: function(rows)) if has_memory else mean_over_chunks
        found, log_ratio = average(partial(gradient_of, learner.params), rows)
        learner, diagnostics = optimise(setting, learner, *across.mean(found))
        return learner, (as_row(diagnostics), log_ratio)

    def epoch(learner: Learner, rows: MinibatchRows) -> tuple[Learner, tuple[Any, ...]]:
        probed = {} if probe is None else probe(restore(learner.params), take(rows.index[0]))
        learner, (table, log_ratio) = jax.lax.scan(step, learner, rows)
        if KL in table and not is_short:
            learner = paced(hyper, learner, jnp.mean(table[KL]))
        return learner, (table, log_ratio, probed)

    index = materialise(minibatch_order(config, key, num_rows, num_envs, has_memory))
    rows = standardised_rows(config, batch, index, across)
    end, (table, log_ratio, probed) = scan_outer(epoch, learner._replace(params=flat), rows)
    diagnostics = {**table, **{name: value[:, None] for name, value in probed.items()}}
    kl = jnp.mean(table[KL][-1]) if KL in table else jnp.full((), jnp.nan)
    if KL in table and is_short:
        kl = kl_after(setting, loss, restore(end.params), batch)
        end = paced(hyper, end, kl)
    weight = jax.tree.map(lambda leaf: leaf[index], batch.weight)
    return Learned(restore(end.params), end.opt_state, end.rate, kl, diagnostics, log_ratio, weight)


def minibatch_gradient(
    loss: Loss,
    restore: Callable[[PyTree], PyTree],
    take: Callable[[Array], Batch],
    params: PyTree,
    rows: MinibatchRows,
) -> tuple[tuple[PyTree, Metrics], Array | tuple[()]]:
    """Gradient and diagnostics of some rows, and their log-ratios."""

    def of_rows(p: PyTree) -> tuple[Array, tuple[Metrics, Array | tuple[()]]]:
        return loss(restore(p), take(rows.index)._replace(advantage=rows.advantage))

    gradient, (means, log_ratio) = jax.grad(of_rows, has_aux=True)(params)
    return (gradient, means), log_ratio


def optimise(
    setting: Setting, learner: Learner, gradient: PyTree, diagnostics: Metrics
) -> tuple[Learner, Metrics]:
    """One optimiser step, unless the KL bound has been reached, and the step's diagnostics."""
    config, hyper, _ = setting
    active = learner.active & ~has_reached(hyper.kl_stop, diagnostics)
    hyper = dataclasses.replace(hyper, learning_rate=learner.rate * hyper.learning_rate)
    params, opt_state, grad_norm = optimizer_step(
        config, hyper, learner.params, learner.opt_state, gradient, active
    )
    diagnostics = {**diagnostics, "grad_norm": grad_norm, "active": active * 1.0}
    return Learner(params, opt_state, learner.rate, active), diagnostics


def has_reached(kl_stop: Array | float, diagnostics: Mapping[str, Array]) -> Array:
    """Check that KL[old||new] has reached the bound. A NaN never reaches it: it stays visible."""
    kl = diagnostics.get(KL, jnp.full((), jnp.nan))
    return (kl >= kl_stop) & jnp.isfinite(kl_stop)


def paced(hyper: Hyper[Scalar], learner: Learner, kl: Array) -> Learner:
    """The learner with its learning rate adapted to the KL[old||new] that it has led to."""
    rate = adapted_learning_rate(learner.rate, hyper.learning_rate, kl, hyper.kl_lr_target)
    return learner._replace(rate=rate)


def kl_after(setting: Setting, loss: Loss, params: PyTree, batch: Batch) -> Array:
    """Mean KL[old||new] of the batch under the new parameters, [], if something follows it."""
    hyper = setting.hyper

    def measure() -> Array:
        means, _ = batch_mean(setting, batch, lambda rows: loss(params, rows)[1])
        return means[KL]

    is_used = jnp.isfinite(hyper.kl_target) | jnp.isfinite(hyper.kl_lr_target)
    return jax.lax.cond(is_used, measure, lambda: jnp.full((), jnp.nan))


def batch_mean(
    setting: Setting, batch: Batch, function: Callable[[Batch], tuple[PyTree, PyTree]]
) -> tuple[PyTree, PyTree]:
    """Means over the batch of all devices, and this device's values of each row.

    Args:
        function: rows -> (means, values [n, ...]).
    """
    if jax.tree.leaves(batch.window.memory):  # its sequences are not cut into chunks
        means, values = function(batch)
    else:
        means, values = mean_over_chunks(function, batch)
    return setting.across.mean(means), values


def summarise(diagnostics: Metrics) -> Metrics:
    """Reduce each [E, M] diagnostic of an iteration's minibatches to one number.

    Means run over the minibatches that were learnt from.
    """
    active = diagnostics["active"]
    share = active / jnp.maximum(jnp.sum(active), 1.0)
    names = [name for name in diagnostics if name not in (*PROBED, "active")]
    values = jnp.stack([diagnostics[name] for name in names])
    means = jnp.sum(jnp.where(active[None] > 0.0, values, 0.0) * share[None], axis=(1, 2))
    return {
        **dict(zip(names, means, strict=True)),
        "updates_fraction": jnp.mean(active),
        **{
            f"{name}_{word}": diagnostics[name][place, 0]
            for name in PROBED
            if name in diagnostics
            for word, place in (("first_epoch", 0), ("last_epoch", -1))
        },
    }
