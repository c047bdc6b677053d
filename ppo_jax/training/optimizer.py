"""Optimisers: a table from names to optax transformations; each takes its numbers from `Hyper`.

An elementwise optimiser works on one flat vector [P], so a step takes a few kernels instead of a
few per leaf. An optimiser of matrices works on the tree of parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.loading import load_attribute, require_own
from ppo_jax.kernels.adam import adam
from ppo_jax.kernels.packing import materialise_gradient
from ppo_jax.rl.types import PyTree, Scalar


class Optimizer(NamedTuple):
    """A transformation whose updates are added to the parameters, made from resolved numbers."""

    make: Callable[[Hyper[Scalar]], optax.GradientTransformation]
    is_elementwise: bool  # it works on the flat vector [P], else on the tree
    keeps_state: bool = False  # its update takes `active`, and keeps the state if that is False


def _rmsprop(hyper: Hyper[Scalar], is_torch: bool) -> optax.GradientTransformation:
    return optax.chain(
        optax.scale_by_rms(
            hyper.rmsprop_decay,
            hyper.adam_epsilon,
            initial_scale=0.0 if is_torch else 1.0,
            eps_in_sqrt=not is_torch,
        ),
        optax.scale(-hyper.learning_rate),
    )


def _muon(hyper: Hyper[Scalar]) -> optax.GradientTransformation:
    """Optax's muon, whose products an accelerator must not round."""
    rate, decay = hyper.learning_rate, hyper.weight_decay
    muon: Any = optax.contrib.muon(rate, beta=hyper.momentum, weight_decay=decay)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.default_matmul_precision("highest"):
            return muon.update(updates, state, params)

    return optax.GradientTransformation(muon.init, update)


# `max_grad_norm` bounds the gradient's global norm before every one of them.
OPTIMIZERS: dict[str, Optimizer] = {
    "adam": Optimizer(lambda h: adam(h.learning_rate, h.adam_epsilon), True, keeps_state=True),
    "adamw": Optimizer(
        lambda h: optax.chain(
            adam(h.learning_rate, h.adam_epsilon),
            optax.add_decayed_weights(-h.learning_rate * h.weight_decay),
        ),
        True,
        keeps_state=True,  # `chain` hands `active` on
    ),
    # Two forms: TensorFlow's, which Atari's published A2C has, and torch's, the default of A2C in
    # Stable-Baselines3. Epsilon is within the root or beside it, the first mean square 1 or 0.
    "rmsprop": Optimizer(partial(_rmsprop, is_torch=False), True),
    "rmsprop_torch": Optimizer(partial(_rmsprop, is_torch=True), True),
    "sgd": Optimizer(
        lambda h: optax.chain(optax.trace(h.momentum), optax.scale(-h.learning_rate)), True
    ),
    "muon": Optimizer(_muon, False),
}


def find_optimizer(config: Config) -> Optimizer:
    """The optimiser that `config` names: a row of the table, or the user's own.

    Raises:
        InputError: the user's own cannot be loaded, or returns no optax transformation.
    """
    if isinstance(config.optimizer, str) and config.optimizer in OPTIMIZERS:
        return OPTIMIZERS[config.optimizer]
    own = config.optimizer
    function = load_attribute(own) if isinstance(own, str) else own
    if isinstance(own, str):
        require_own(own, function, "optimiser")

    def make(hyper: Hyper[Scalar]) -> optax.GradientTransformation:
        found = function(hyper)
        if not (hasattr(found, "init") and hasattr(found, "update")):
            raise InputError(
                f"optimizer={own!r} returns {type(found).__name__} where an optax transformation "
                "is needed: write a function (hyper) -> optax.GradientTransformation."
            )
        return found

    return Optimizer(make, is_elementwise=False)


def flatten(config: Config, params: PyTree) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """Return parameters in the optimiser's form, a vector [P] or the tree, and its inverse."""
    if find_optimizer(config).is_elementwise:
        return ravel_pytree(params)
    return params, lambda tree: tree


def init_optimizer(config: Config, hyper: Hyper[Scalar], params: PyTree) -> PyTree:
    """The optimiser's state before the first step."""
    flat, _ = flatten(config, params)
    return find_optimizer(config).make(hyper).init(flat)


def optimizer_step(
    config: Config,
    hyper: Hyper[Scalar],
    params: PyTree,
    opt_state: PyTree,
    gradient: PyTree,
    active: Array | bool = True,
) -> tuple[PyTree, PyTree, Array]:
    """One step on the gradient clipped in global norm; no step if it is not `active`.

    Args:
        params, gradient: in the form of `flatten`.

    Returns:
        params, optimiser state, and the gradient's norm before clipping.
    """
    gradient = materialise_gradient(gradient)
    grad_norm = optax.tree.norm(gradient)
    factor = jnp.minimum(1.0, hyper.max_grad_norm / (grad_norm + 1e-12))
    clipped = jax.tree.map(lambda leaf: leaf * factor, gradient)
    optimizer = find_optimizer(config)
    update: Any = optimizer.make(hyper).update

    def kept(new: Array, old: Array) -> Array:
        return jnp.where(active, new, old)

    if optimizer.keeps_state:
        updates, moved = update(clipped, opt_state, params, active=active)
    else:
        updates, moved = update(clipped, opt_state, params)
        moved = jax.tree.map(kept, moved, opt_state)
    return jax.tree.map(lambda p, u: kept(p + u, p), params, updates), moved, grad_norm
