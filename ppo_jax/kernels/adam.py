"""Adam on one flat vector [P] (Kingma and Ba 2015, algorithm 1), in one pass over it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ppo_jax.kernels.backend import Backend, current, is_cpu

PyTree = Any

DECAYS = (0.9, 0.999)  # beta_1 and beta_2


def adam(
    learning_rate: Array | float, epsilon: Array | float
) -> optax.GradientTransformationExtraArgs:
    """`optax.adam` whose state stays as it is if the extra argument `active` is False.

    The step is then of no use. On a CPU a barrier follows the moments that are kept: without it
    XLA recomputes them inside the step, from copies of the old ones.
    """

    def update(
        updates: Any, state: Any, params: Any = None, *, active: Array | bool = True, **_: Any
    ) -> tuple[Any, Any]:
        del params

        def kept(new: Any) -> Any:
            return jax.tree.map(lambda x, old: jnp.where(active, x, old), new, state)

        if current() is Backend.PLAIN:
            direction, moved = optax.scale_by_adam(*DECAYS, eps=epsilon).update(updates, state)
            return jax.tree.map(lambda leaf: -learning_rate * leaf, direction), kept(moved)
        moved: Any = optax.scale_by_adam(*DECAYS).update(updates, state)[1]
        after = kept(moved)
        first, second = after.mu, after.nu
        if is_cpu():
            first, second = jax.lax.optimization_barrier((first, second))
        mean = optax.tree.bias_correction(first, DECAYS[0], moved.count)
        square = optax.tree.bias_correction(second, DECAYS[1], moved.count)
        step = jax.tree.map(
            lambda m, v: -(learning_rate * m / (jnp.sqrt(v) + epsilon)), mean, square
        )
        return step, after

    return optax.GradientTransformationExtraArgs(optax.scale_by_adam(*DECAYS).init, update)
