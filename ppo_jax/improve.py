"""Improvers: what turns a batch into better parameters.

E epochs over the batch, each in its own order, cut into M minibatches; one Adam step a minibatch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from ppo_jax.advantages import mean_and_variance, standardise
from ppo_jax.config import Config, Hyper
from ppo_jax.permutations import permutation
from ppo_jax.surrogates import adapted_factor
from ppo_jax.types import Batch, Metrics, PyTree

Loss = Callable[[PyTree, Batch], tuple[Array, Metrics]]
Probe = Callable[[PyTree, Batch], Metrics]

# Diagnostics of a minibatch that are the largest of its rows; all others are means over them.
MAXIMA = ("ratio_max", "log_ratio_abs_max")

# Measured once an epoch, at its start, where `measure_gradient_cosine` asks for it.
PROBED = ("gradient_cosine", "kl_old_new_probe", "ess_fraction_probe")

PIECE_ROWS = 2048  # 64-wide activations of so many rows stay in a core's cache


Moments = tuple[Array, Array]  # mean and variance of a minibatch's advantages, scalars


class Learner(NamedTuple):
    """What the epochs carry, over the flat parameter vector [P]."""

    params: Array  # [P]
    opt_state: PyTree
    active: Array  # [], bool; False once KL[old||new] has reached `kl_stop`
    rate: Array  # [], factor on the learning rate


def init_optimiser(params: PyTree) -> PyTree:
    """Adam's state over the flat parameter vector."""
    flat, _ = ravel_pytree(params)
    return optax.scale_by_adam().init(flat)


def adam_step(
    hyper: Hyper, params: Array, opt_state: PyTree, gradient: Array, rate: Array | float = 1.0
) -> tuple[Array, PyTree, Array]:
    """One Adam step, `rate` times as long, on the gradient clipped in global norm.

    Returns:
        params [P], optimiser state, and the gradient's norm before clipping.
    """
    grad_norm = jnp.sqrt(jnp.sum(jnp.square(gradient)))
    clipped = gradient * jnp.minimum(1.0, hyper.max_grad_norm / (grad_norm + 1e-12))
    adam = optax.scale_by_adam(eps=hyper.adam_epsilon)
    update, opt_state = adam.update(clipped, opt_state)
    return params - rate * hyper.learning_rate * update, opt_state, grad_norm


def minibatch_rows(config: Config, key: Array, num_rows: int, num_envs: int) -> Array:
    """An exact permutation of the batch's rows for one epoch, [M, N / M].

    `samples` permutes all N = T x B rows of the time-major batch; `env-rows` permutes the B
    environments and keeps each one's T steps together.
    """
    if config.shuffle == "env-rows":
        steps = jnp.arange(num_rows // num_envs) * num_envs
        rows = permutation(key, num_envs)[:, None] + steps[None, :]
    else:
        rows = permutation(key, num_rows)
    return rows.reshape(config.num_minibatches, -1)


def pack(batch: Batch) -> tuple[PyTree, Callable[[PyTree], Batch]]:
    """All real leaves of a batch side by side in one matrix, so that one gather takes a row.

    Returns:
        the packed batch (leading axis N) and the function that restores a `Batch` of its rows.
    """
    leaves, treedef = jax.tree.flatten(batch)
    num_rows = batch.advantage.shape[0]
    is_float = [leaf.dtype == batch.advantage.dtype for leaf in leaves]
    floats = [
        leaf.reshape(num_rows, -1) for leaf, flag in zip(leaves, is_float, strict=True) if flag
    ]
    others = [leaf for leaf, flag in zip(leaves, is_float, strict=True) if not flag]
    shapes = [leaf.shape[1:] for leaf in leaves]
    bounds = list(accumulate(leaf.shape[1] for leaf in floats))[:-1]

    def unpack(packed: PyTree) -> Batch:
        matrix, rest = packed
        columns = iter(jnp.split(matrix, bounds, axis=1))
        others_left = iter(rest)
        restored = [
            next(columns).reshape(-1, *shape) if flag else next(others_left)
            for flag, shape in zip(is_float, shapes, strict=True)
        ]
        return jax.tree.unflatten(treedef, restored)

    return (jnp.concatenate(floats, axis=1), others), unpack


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
        rate: factor on the learning rate that an adaptive one starts from.
        probe: measured at the start of each epoch on its first minibatch, and learnt nothing from.

    Returns:
        params, optimiser state, `rate` as it is at the end, and the [E, M] diagnostics of all
        minibatches with `grad_norm` and `active` (1 where it was learnt from).
    """
    flat, unravel = ravel_pytree(params)
    packed, unpack = pack(batch)
    num_rows = batch.advantage.shape[0]
    piece = piece_size(num_rows // config.num_minibatches)
    names: list[str] = []  # of the diagnostics, which leave the loops as one vector

    def minibatch_of(rows: Array) -> Batch:
        return unpack(jax.tree.map(lambda leaf: leaf[rows], packed))

    def piece_gradient(params: Array, rows: Array, moments: Moments) -> tuple[Array, Metrics]:
        minibatch = minibatch_of(rows)
        if config.normalize_advantages == "minibatch":
            minibatch = minibatch._replace(advantage=standardise(minibatch.advantage, *moments))
        return jax.grad(lambda p: loss(unravel(p), minibatch), has_aux=True)(params)

    def gradient_of(params: Array, rows: Array) -> tuple[Array, Metrics]:
        moments = mean_and_variance(batch.advantage[rows], axis_name)
        pieces = rows.reshape(-1, piece)
        if pieces.shape[0] == 1:
            gradient, diagnostics = piece_gradient(params, rows, moments)
        else:
            gradient, diagnostics = mean_over_pieces(
                lambda piece_rows: piece_gradient(params, piece_rows, moments), pieces
            )
        return all_mean(gradient, diagnostics, axis_name)

    def learn(learner: Learner, rows: Array) -> tuple[Learner, Array]:
        gradient, diagnostics = gradient_of(learner.params, rows)
        kl = diagnostics.get("kl_old_new", jnp.full((), jnp.nan))  # NaN: nothing to adapt to
        rate = 1.0 / adapted_factor(1.0 / learner.rate, kl, hyper.kl_lr_target, 1.5, 2.0)
        stepped = adam_step(hyper, learner.params, learner.opt_state, gradient, rate)
        # A NaN has reached no bound, nor has anything reached an infinite one: it shall show.
        reached = (kl >= hyper.kl_stop) & jnp.isfinite(hyper.kl_stop)
        active = learner.active & ~reached
        kept_params, kept_state = jax.tree.map(
            lambda new, old: jnp.where(active, new, old),
            stepped[:2],
            (learner.params, learner.opt_state),
        )
        diagnostics = {**diagnostics, "grad_norm": stepped[2], "active": active * 1.0}
        names[:] = diagnostics
        return Learner(kept_params, kept_state, active, rate), jnp.stack(list(diagnostics.values()))

    def epoch(learner: Learner, key: Array) -> tuple[Learner, tuple[Array, Metrics]]:
        rows = minibatch_rows(config, key, num_rows, num_envs)
        found = {} if probe is None else probe(unravel(learner.params), minibatch_of(rows[0]))
        learner, table = jax.lax.scan(learn, learner, rows)
        return learner, (table, found)

    learner = Learner(flat, opt_state, jnp.ones((), bool), jnp.asarray(rate, flat.dtype))
    keys = jax.random.split(key, config.num_epochs)
    learner, (table, found) = jax.lax.scan(epoch, learner, keys)  # [E, M, diagnostics], [E]
    diagnostics = dict(zip(names, jnp.moveaxis(table, -1, 0), strict=True))
    diagnostics |= {name: value[:, None] for name, value in found.items()}
    return unravel(learner.params), learner.opt_state, learner.rate, diagnostics


def piece_size(minibatch_size: int) -> int:
    """Rows of one piece of a minibatch, whose gradients are summed piece by piece.

    On a CPU a large minibatch's activations leave the cache between forward and backward pass;
    pieces of at most PIECE_ROWS keep them in it. A GPU takes the minibatch whole.
    """
    if jax.default_backend() != "cpu" or minibatch_size <= 2 * PIECE_ROWS:
        return minibatch_size
    divisors = [d for d in range(PIECE_ROWS // 4, PIECE_ROWS + 1) if minibatch_size % d == 0]
    return max(divisors, default=minibatch_size)


def mean_over_pieces(
    gradient_of: Callable[[Array], tuple[Array, Metrics]], pieces: Array
) -> tuple[Array, Metrics]:
    """Gradient and diagnostics of a minibatch from its equally large pieces [pieces, rows]."""
    shapes = jax.eval_shape(gradient_of, pieces[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total: tuple[Array, Metrics], rows: Array) -> tuple[tuple[Array, Metrics], None]:
        gradient, diagnostics = gradient_of(rows)
        sums = {
            name: jnp.maximum(total[1][name], value) if name in MAXIMA else total[1][name] + value
            for name, value in diagnostics.items()
        }
        return (total[0] + gradient, sums), None

    (gradient, sums), _ = jax.lax.scan(add, zeros, pieces)
    share = 1.0 / pieces.shape[0]
    means = {name: value if name in MAXIMA else value * share for name, value in sums.items()}
    return gradient * share, means


def all_mean(gradient: Array, diagnostics: Metrics, axis_name: str | None) -> tuple[Array, Metrics]:
    """Gradient and diagnostics of the whole minibatch from those of each device's rows."""
    if axis_name is None:
        return gradient, diagnostics
    means = {name: value for name, value in diagnostics.items() if name not in MAXIMA}
    maxima = {name: value for name, value in diagnostics.items() if name in MAXIMA}
    gradient, means = jax.lax.pmean((gradient, means), axis_name)
    return gradient, {**means, **jax.lax.pmax(maxima, axis_name)}


def summarise(diagnostics: Metrics) -> Metrics:
    """One number each of the [E, M] diagnostics of an iteration's minibatches.

    Means run over the minibatches that were learnt from; `log_ratio_abs_first` is that of the very
    first one, which is evaluated at theta_old, where every log-ratio is 0 up to rounding.
    """
    active = diagnostics["active"]
    share = active / jnp.maximum(jnp.sum(active), 1.0)
    means = {
        name: jnp.sum(jnp.where(active > 0.0, value, 0.0) * share)
        for name, value in diagnostics.items()
        if name not in (*MAXIMA, *PROBED, "active")
    }
    square = means.pop("ratio_square_mean")
    return {
        **means,
        # Kish's effective sample size of the importance weights, over the number of samples.
        "ess_fraction": jnp.square(means["ratio_mean"]) / jnp.maximum(square, 1e-30),
        "ratio_max": jnp.max(diagnostics["ratio_max"]),
        "log_ratio_abs_first": diagnostics["log_ratio_abs_max"][0, 0],
        "updates_fraction": jnp.mean(active),
        **{
            f"{name}_{word}": diagnostics[name][place, 0]
            for name in PROBED
            if name in diagnostics
            for word, place in (("first_epoch", 0), ("last_epoch", -1))
        },
    }
