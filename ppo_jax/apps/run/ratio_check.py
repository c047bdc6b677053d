"""Why the ratios of a run's first minibatch are not 1, in a sentence for the user who caused it.

Before the first step pi_theta is pi_old, and every ratio is 1 up to rounding. Where it is not, the
log-probability of the rollout and that of the loss come from two different functions.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config.config import Config
from ppo_jax.rl.types import PyTree, TrainState
from ppo_jax.training import trainer

# Largest |log-ratio| that rounding explains, by `Config.precision`.
TOLERANCE = {"float32": 1e-3, "tf32": 2e-2, "bfloat16": 0.2}
LARGE = 1e4  # observations from which float32 products lose the digits that a ratio needs
NUM_ROWS = 8


def is_one(config: Config, log_ratio_abs: float) -> bool:
    """Whether the largest |log-ratio| of a first minibatch is no more than rounding."""
    return bool(log_ratio_abs <= TOLERANCE[config.precision])


def complaint(config: Config, state: TrainState, log_ratio_abs: float) -> str:
    """The sentence about ratios that are not 1.

    Args:
        state: of one member, unbatched; before or after its first iteration.
        log_ratio_abs: largest |log-ratio| of its first minibatch; NaN counts as not 1.
    """
    parts = trainer.assemble(config)
    policy = trainer.acting_policy(config, parts, state.params, state.observation_moments)
    raw = state.carry.observation[:NUM_ROWS]
    seen = policy.see(raw)
    head = (
        f"the first minibatch has a log-ratio of {log_ratio_abs:.2g}, where theta is theta_old and "
        "every ratio must be 1: "
    )

    def answer(observation: jax.Array) -> PyTree:
        return parts.network.apply(state.params, observation)

    once, twice = answer(seen), jax.jit(answer)(seen)
    alone = jax.tree.map(
        lambda *rows: jnp.stack(rows), *[answer(seen[i : i + 1]) for i in range(len(seen))]
    )
    alone = jax.tree.map(lambda rows, whole: rows.reshape(whole.shape), alone, once)
    if not np.isfinite(np.asarray(seen, np.float64)).all():
        return head + (
            "the environment shows observations that are not finite; `ppo-jax doctor ENV` says "
            "what else it does."
        )
    bound = TOLERANCE[config.precision]
    if difference(once, twice) > bound:
        return head + (
            "the network answers the same observation in two ways, as it draws random numbers or "
            "keeps something beside its parameters (dropout, noise, batch statistics); make "
            "apply_fn a pure function of (params, observation)."
        )
    if difference(once, alone) > bound:
        return head + (
            "what the network answers to one observation depends on the others beside it (batch "
            "normalisation, a mean over the batch, products of low precision); make each row its "
            "own, or raise --precision."
        )
    largest = float(np.max(np.abs(np.asarray(seen, np.float64))))
    if largest > LARGE:
        return head + (
            f"observations are as large as {largest:.2g}, too large for float32's digits; scale "
            "them in the environment, or take --normalize-observations."
        )
    return head + (
        "the network is a pure function of single observations, so the policy's log-probability "
        "is the suspect; with a policy of ppo_jax's own this is a bug to be reported."
    )


def difference(tree: PyTree, other: PyTree) -> float:
    """Largest |x - y| of all leaves; infinite where one is not finite."""
    gaps = jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y))), tree, other)
    largest = max(jax.tree.leaves(gaps))
    return largest if np.isfinite(largest) else float("inf")
