"""Check that the ratios of a run's first minibatch are 1, and find the cause if they are not.

Before the first step pi_theta is pi_old, and every ratio is 1 up to rounding. If it is not, the
log-probabilities of the rollout and of the loss come from two different functions.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config.config import Config
from ppo_jax.models.agent import acting_policy, assemble
from ppo_jax.rl.types import PyTree, TrainState, Window

# Largest |log-ratio| that rounding explains, by `Config.precision`.
TOLERANCE = {"float32": 1e-3, "tf32": 2e-2, "bfloat16": 0.2}
LARGE = 1e4  # observations from which float32 products lose the digits that a ratio needs
NUM_ROWS = 8


def is_one(config: Config, log_ratio_abs: float) -> bool:
    """Check whether the largest |log-ratio| of a first minibatch is no more than rounding."""
    return bool(log_ratio_abs <= TOLERANCE[config.precision])


def complaint(config: Config, state: TrainState, log_ratio_abs: float) -> str:
    """The sentence about ratios that are not 1, with the likely cause.

    Args:
        state: of one member, unbatched; before or after its first iteration.
        log_ratio_abs: largest |log-ratio| of its first minibatch; NaN counts as not 1.
    """
    parts = assemble(config)
    policy = acting_policy(config, parts, state.params, state.observation_moments)
    rows = policy.see(state.carry.observation[:NUM_ROWS])

    def apply(rows: jax.Array) -> PyTree:
        return parts.network.apply(state.params, Window(rows))

    cause = _cause(apply, rows, TOLERANCE[config.precision])
    return (
        f"the first minibatch has a log-ratio of {log_ratio_abs:.2g}, where theta is theta_old and "
        f"every ratio must be 1: {cause}"
    )


def _cause(apply: Callable[[jax.Array], PyTree], rows: jax.Array, bound: float) -> str:
    """The first of the usual causes that shows on some observations [n, *O]."""
    once, twice = apply(rows), jax.jit(apply)(rows)
    alone = jax.tree.map(
        lambda *each: jnp.stack(each), *[apply(rows[i : i + 1]) for i in range(len(rows))]
    )
    alone = jax.tree.map(lambda each, whole: each.reshape(whole.shape), alone, once)
    if not np.isfinite(np.asarray(rows, np.float64)).all():
        return (
            "the environment shows observations that are not finite; `ppo-jax doctor ENV` says "
            "what else it does."
        )
    if difference(once, twice) > bound:
        return (
            "the network answers the same observation in two ways, as it draws random numbers or "
            "keeps something beside its parameters (dropout, noise, batch statistics); make "
            "apply_fn a pure function of (params, observation)."
        )
    if difference(once, alone) > bound:
        return (
            "what the network answers to one observation depends on the others beside it (batch "
            "normalisation, a mean over the batch, products of low precision); make each row its "
            "own, or raise --precision."
        )
    largest = float(np.max(np.abs(np.asarray(rows, np.float64))))
    if largest > LARGE:
        return (
            f"observations are as large as {largest:.2g}, too large for float32's digits; scale "
            "them in the environment, or take --normalize-observations."
        )
    return (
        "the network is a pure function of single observations, so the policy's log-probability "
        "is the suspect; with a policy of ppo_jax's own this is a bug to be reported."
    )


def difference(tree: PyTree, other: PyTree) -> float:
    """Largest |x - y| of all leaves; infinite if one is not finite."""
    gaps = jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y))), tree, other)
    largest = max(jax.tree.leaves(gaps))
    return largest if np.isfinite(largest) else float("inf")
