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
    rows = jax.tree.map(lambda leaf: leaf[:NUM_ROWS], (state.carry.observation, state.carry.memory))
    reset = jnp.zeros(state.carry.episode_length[:NUM_ROWS].shape, bool)
    has_memory = bool(jax.tree.leaves(rows[1]))
    window = Window(policy.see(rows[0]), reset if has_memory else (), rows[1])

    def apply(window: Window) -> PyTree:
        distribution, value = parts.network.apply(state.params, window)
        return parts.family.keep(distribution), value

    cause = _cause(apply, window, TOLERANCE[config.precision])
    return (
        f"the first minibatch has a log-ratio of {log_ratio_abs:.2g}, where theta is theta_old and "
        f"every ratio must be 1: {cause}"
    )


def _cause(apply: Callable[[Window], PyTree], window: Window, bound: float) -> str:
    """The first of the usual causes that shows on some observations, one of each environment."""
    once, twice = apply(window), jax.jit(apply)(window)
    num_rows = jax.tree.leaves(window)[0].shape[0]
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], window) for i in range(num_rows)]
    alone = jax.tree.map(lambda *each: jnp.concatenate(each), *map(apply, rows))
    seen = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(window.observation)]
    if not all(np.isfinite(leaf).all() for leaf in seen):
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
    largest = max(float(np.max(np.abs(leaf))) for leaf in seen)
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
    """Largest |x - y| of all leaves; infinite if one is not finite.

    Equal infinities do not differ: an action mask puts -inf on the logits of illegal actions.
    """
    gaps = jax.tree.map(
        lambda x, y: float(jnp.max(jnp.where(x == y, 0.0, jnp.abs(x - y)))), tree, other
    )
    largest = max(jax.tree.leaves(gaps))
    return largest if np.isfinite(largest) else float("inf")
