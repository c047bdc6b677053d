"""Improvers: what turns a batch into better parameters.

E epochs over the batch, each in its own order, cut into M minibatches; one Adam step a minibatch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from ppo_jax.config.config import Config, Hyper
from ppo_jax.kernels import collectives
from ppo_jax.kernels.backend import is_cpu
from ppo_jax.kernels.chunks import piece_size
from ppo_jax.kernels.packing import pack
from ppo_jax.kernels.permutation import permutations
from ppo_jax.rl.advantages import mean_and_variance, standardise
from ppo_jax.rl.surrogates import MAX_LOG_RATIO, adapted_factor, ess_fraction, upper_epsilon
from ppo_jax.rl.types import Batch, Metrics, PyTree

Loss = Callable[[PyTree, Batch], tuple[Array, Metrics]]
Probe = Callable[[PyTree, Batch], Metrics]

# Of a minibatch's diagnostics this one holds a number for each row; all others are means over them.
# It leaves the loops as it is: made into what is logged inside them, it would cost several small
# kernels a minibatch.
PER_ROW = "log_ratio"

# Measured once an epoch, at its start, where `measure_gradient_cosine` asks for it.
PROBED = ("gradient_cosine", "kl_old_new_probe", "ess_fraction_probe")

ADAM_DECAYS = (0.9, 0.999)  # of the moments: beta_1, beta_2 of Kingma and Ba 2015

MOST_UNROLLED = 8  # epochs: a program of more of them would take long to compile


class Rows(NamedTuple):
    """What is known of the minibatches [E, M, N / M] before anything is learnt from the first."""

    index: Array  # into the batch
    advantage: Array  # as the loss shall see it


class Learner(NamedTuple):
    """What the epochs carry, over the flat parameter vector [P]."""

    params: Array  # [P]
    opt_state: PyTree
    active: Array  # [], bool; False once KL[old||new] has reached `kl_stop`


def init_optimiser(params: PyTree) -> PyTree:
    """Adam's state over the flat parameter vector."""
    flat, _ = ravel_pytree(params)
    return optax.scale_by_adam().init(flat)


def adam_step(
    hyper: Hyper,
    params: Array,
    opt_state: PyTree,
    gradient: Array,
    rate: Array | float = 1.0,
    active: Array | bool = True,
) -> tuple[Array, PyTree, Array]:
    """One Adam step, `rate` times as long, on the gradient clipped in global norm.

    Where it is not `active`, parameters and optimiser state stay as they are.

    Returns:
        params [P], optimiser state, and the gradient's norm before clipping.
    """
    grad_norm = jnp.sqrt(jnp.sum(jnp.square(gradient)))
    clipped = gradient * jnp.minimum(1.0, hyper.max_grad_norm / (grad_norm + 1e-12))

    def kept(new: Array, old: Array) -> Array:
        return jnp.where(active, new, old)

    moved: PyTree = optax.scale_by_adam(*ADAM_DECAYS).update(clipped, opt_state)[1]
    opt_state = jax.tree.map(kept, moved, opt_state)
    first, second = opt_state.mu, opt_state.nu
    if is_cpu():  # without it XLA makes them anew within the step, from copies of the old ones
        first, second = jax.lax.optimization_barrier((first, second))
    mean = optax.tree.bias_correction(first, ADAM_DECAYS[0], moved.count)
    square = optax.tree.bias_correction(second, ADAM_DECAYS[1], moved.count)
    step = hyper.learning_rate * mean / (jnp.sqrt(square) + hyper.adam_epsilon)
    return kept(params - rate * step, params), opt_state, grad_norm


def minibatch_rows(config: Config, key: Array, num_rows: int, num_envs: int) -> Array:
    """An exact permutation of the batch's rows for each epoch, [E, M, N / M].

    `samples` permutes all N = T x B rows of the time-major batch; `env-rows` permutes the B
    environments and keeps each one's T steps together.
    """
    if config.shuffle == "env-rows":
        steps = jnp.arange(num_rows // num_envs) * num_envs
        rows = permutations(key, config.num_epochs, num_envs)[:, :, None] + steps
    else:
        rows = permutations(key, config.num_epochs, num_rows)
    return rows.reshape(config.num_epochs, config.num_minibatches, -1)


def by_minibatches(
    config: Config,
    hyper: Hyper,
    loss: Loss,
    params: PyTree,
    opt_state: PyTree,
    batch: Batch,
    num_envs: int,
    key: Array,
    axis_name: str | None = None,
    rate: Array | float = 1.0,
    probe: Probe | None = None,
) -> tuple[PyTree, PyTree, Array, Metrics]:
    """E epochs x M minibatches of Adam on `loss`, each sample exactly once an epoch.

    A minibatch whose KL[old||new] has reached `kl_stop` takes no step, nor does any after it.
    With `axis_name`, `batch` holds this device's rows, and gradients are averaged over devices.

    Args:
        rate: factor on the learning rate that an adaptive one starts from; it moves after each
            epoch, by that epoch's mean KL[old||new].
        probe: measured at the start of each epoch on its first minibatch, and learnt nothing from.

    Returns:
        params, optimiser state, `rate` as it is at the end, and the [E, M] diagnostics of all
        minibatches with `grad_norm` and `active` (1 where it was learnt from); those of PER_ROW
        have a further axis of rows.
    """
    flat, unravel = ravel_pytree(params)
    packed, unpack = pack(batch)
    num_rows = batch.advantage.shape[0]
    piece = piece_size(num_rows // config.num_minibatches)
    names: list[str] = []  # of the diagnostics, which leave the loops as one vector

    def minibatch_of(rows: Array) -> Batch:
        return unpack(jax.tree.map(lambda leaf: leaf[rows], packed))

    def piece_gradient(params: Array, piece: Rows) -> tuple[Array, Metrics]:
        minibatch = minibatch_of(piece.index)._replace(advantage=piece.advantage)
        return jax.grad(lambda p: loss(unravel(p), minibatch), has_aux=True)(params)

    def gradient_of(params: Array, rows: Rows) -> tuple[Array, Metrics]:
        pieces = jax.tree.map(lambda leaf: leaf.reshape(-1, piece), rows)
        if pieces.index.shape[0] == 1:
            gradient, diagnostics = piece_gradient(params, rows)
        else:
            gradient, diagnostics = mean_over_pieces(partial(piece_gradient, params), pieces)
        return collectives.mean((gradient, diagnostics), axis_name, own=PER_ROW)

    def advantages_of(index: Array) -> Array:
        advantage = batch.advantage[index]
        if config.normalize_advantages != "minibatch":
            return advantage
        each = jax.vmap(lambda a: standardise(a, *mean_and_variance(a, axis_name)))
        return each(advantage.reshape(-1, index.shape[-1])).reshape(index.shape)

    def learn(
        rate: Array, learner: Learner, rows: Rows
    ) -> tuple[Learner, tuple[Array, Array | None]]:
        gradient, diagnostics = gradient_of(learner.params, rows)
        per_row = diagnostics.pop(PER_ROW, None)
        kl = diagnostics.get("kl_old_new", jnp.full((), jnp.nan))  # NaN: no bound to reach
        # A NaN has reached no bound, nor has anything reached an infinite one: it shall show.
        reached = (kl >= hyper.kl_stop) & jnp.isfinite(hyper.kl_stop)
        active = learner.active & ~reached
        params, opt_state, grad_norm = adam_step(
            hyper, learner.params, learner.opt_state, gradient, rate, active
        )
        diagnostics = {**diagnostics, "grad_norm": grad_norm, "active": active * 1.0}
        names[:] = diagnostics
        row = jnp.stack(list(diagnostics.values()))
        return Learner(params, opt_state, active), (row, per_row)

    def epoch(carry: tuple[Learner, Array], rows: Rows) -> tuple[tuple[Learner, Array], tuple]:
        learner, rate = carry
        first = rows.index[0]
        found = {} if probe is None else probe(unravel(learner.params), minibatch_of(first))
        learner, (table, per_row) = jax.lax.scan(partial(learn, rate), learner, rows)
        if "kl_old_new" in names:
            kl = jnp.mean(table[:, names.index("kl_old_new")])
            rate = 1.0 / adapted_factor(1.0 / rate, kl, hyper.kl_lr_target, 1.5, 2.0)
        return (learner, rate), (table, per_row, found)

    start = Learner(flat, opt_state, jnp.ones((), bool)), jnp.asarray(rate, flat.dtype)
    index = minibatch_rows(config, key, num_rows, num_envs)
    if is_cpu():  # without it XLA makes them anew within the gather, number by number
        index = jax.lax.optimization_barrier(index)
    rows = Rows(index, advantages_of(index))
    # A loop within a loop keeps a GPU's iteration from being one graph: few epochs do without it.
    is_flat = not is_cpu() and config.num_epochs <= MOST_UNROLLED
    (learner, rate), (table, per_row, found) = jax.lax.scan(epoch, start, rows, unroll=is_flat)
    diagnostics = dict(zip(names, jnp.moveaxis(table, -1, 0), strict=True))
    diagnostics |= {name: value[:, None] for name, value in found.items()}
    if per_row is not None:
        diagnostics[PER_ROW] = per_row
    return unravel(learner.params), learner.opt_state, rate, diagnostics


def mean_over_pieces(
    gradient_of: Callable[[Rows], tuple[Array, Metrics]], pieces: Rows
) -> tuple[Array, Metrics]:
    """Gradient and diagnostics of a minibatch from its equally large pieces [pieces, rows]."""
    shapes = jax.eval_shape(gradient_of, jax.tree.map(lambda leaf: leaf[0], pieces))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    zeros[1].pop(PER_ROW, None)
    start, restore = ravel_pytree(zeros)  # one vector: an addition each is a kernel each

    def add(total: Array, rows: Rows) -> tuple[Array, Array | None]:
        gradient, diagnostics = gradient_of(rows)
        per_row = diagnostics.pop(PER_ROW, None)
        return total + ravel_pytree((gradient, diagnostics))[0], per_row

    total, per_row = jax.lax.scan(add, start, pieces)
    gradient, means = restore(total / pieces.index.shape[0])
    return gradient, means if per_row is None else {**means, PER_ROW: per_row.reshape(-1)}


class Ratios(NamedTuple):
    """What a device's ratios of an iteration come to: see `ratio_metrics`."""

    means: Array  # [6]
    largest: Array  # [2]


def summarise(diagnostics: Metrics) -> Metrics:
    """One number each of the [E, M] diagnostics of an iteration's minibatches.

    Means run over the minibatches that were learnt from. Ratios are not among them.
    """
    active = diagnostics["active"]
    share = active / jnp.maximum(jnp.sum(active), 1.0)
    names = [name for name in diagnostics if name not in (PER_ROW, *PROBED, "active")]
    values = jnp.stack([diagnostics[name] for name in names])
    means = jnp.sum(jnp.where(active > 0.0, values, 0.0) * share, axis=(1, 2))
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


def measure_ratios(hyper: Hyper, log_ratio: Array, active: Array) -> Ratios:
    """This device's ratios of an iteration, over the minibatches that were learnt from.

    Args:
        log_ratio: [E, M, rows], before each minibatch's step.
        active: [E, M], 1 where the minibatch was learnt from.
    """
    ratio = jnp.exp(log_ratio)
    upper = upper_epsilon(hyper.clip_epsilon, hyper.clip_epsilon_high)
    is_clipped = (ratio < 1.0 - hyper.clip_epsilon) | (ratio > 1.0 + upper)
    is_clamped = jnp.abs(log_ratio) >= MAX_LOG_RATIO
    share = active / jnp.maximum(jnp.sum(active) * ratio.shape[-1], 1.0)
    k3 = ratio - 1.0 - log_ratio
    values = jnp.stack([-log_ratio, k3, is_clipped * 1.0, is_clamped * 1.0, ratio, ratio**2])
    shares = jnp.broadcast_to(share[..., None], ratio.shape).reshape(-1)
    # As a product, a kernel in place of two for each; a GPU shall not round its factors.
    means = jnp.dot(values.reshape(len(values), -1), shares, precision="highest")
    return Ratios(means, jnp.stack([jnp.max(ratio), jnp.max(jnp.abs(log_ratio[0, 0]))]))


def ratio_metrics(every: Ratios) -> Metrics:
    """What the ratios of an iteration say, given those of every device, with a leading axis [D].

    Returns:
        `kl_k1` and `kl_k3`, Schulman's estimates of KL[old||new] from samples of old; the ratios'
        mean, maximum and effective sample size; the share of them beyond the clip, and that of
        log-ratios clamped to +-MAX_LOG_RATIO; and the largest |log-ratio| of the very first
        minibatch, which is met at theta_old: 0 up to rounding.
    """
    largest = jnp.max(every.largest, axis=0)
    k1, k3, clip_fraction, clamped_fraction, mean, square = jnp.mean(every.means, axis=0)
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
