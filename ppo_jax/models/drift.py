"""A user's drift D(ratio, advantage): loaded and checked once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.errors import InputError
from ppo_jax.config.loading import load_attribute, require_own


@lru_cache(maxsize=64)
def load_drift(drift: Callable[[Array, Array], Array] | str) -> Callable[[Array, Array], Array]:
    """The user's drift, checked once."""
    function = drift if callable(drift) else load_attribute(drift)
    if isinstance(drift, str):
        require_own(drift, function, "drift")
    with jax.ensure_compile_time_eval():  # needs numbers, even while a loss is traced
        check_drift(function, str(drift))
    return function


def check_drift(drift: Callable[[Array, Array], Array], name: str) -> None:
    """Refuse a function that is no drift of mirror learning (Kuba et al. 2022, definition 1).

    Raises:
        InputError: it is negative somewhere, or has a value or a slope at ratio 1.
    """
    ratio, advantage = jnp.meshgrid(jnp.geomspace(0.05, 20.0, 81), jnp.linspace(-3.0, 3.0, 25))
    ratio, advantage = ratio.ravel(), advantage.ravel()
    one = jnp.ones_like(advantage)
    value = jnp.asarray(drift(ratio, advantage))
    if value.shape != ratio.shape:
        raise InputError(
            f"drift={name!r} returns shape {value.shape} for ratios and advantages of shape "
            f"{ratio.shape}: it must return one number per sample."
        )
    lowest = int(jnp.argmin(value))
    slope = jax.vmap(jax.grad(lambda r, a: jnp.sum(drift(r[None], a[None]))))(one, advantage)
    # Autodiff sees one side of a kink only. At a kink, half the distance from ratio 1 gives half
    # the value.
    whole = jnp.stack([drift(one + h, advantage) for h in (1e-3, -1e-3)])
    half = jnp.stack([drift(one + h, advantage) for h in (5e-4, -5e-4)])
    is_kinked = jnp.any((whole > 1e-5) & (half > 0.4 * whole))
    problems = {
        f"is {value[lowest]:.3g} at ratio {ratio[lowest]:.3g}, advantage {advantage[lowest]:.3g}, "
        "but a drift is never negative": not bool(value[lowest] >= -1e-5),
        "is not 0 at ratio 1": not bool(jnp.max(jnp.abs(drift(one, advantage))) <= 1e-5),
        "has a slope at ratio 1, which would change the first gradient": not bool(
            (jnp.max(jnp.abs(slope)) <= 1e-4) & ~is_kinked
        ),
    }
    for problem, is_there in problems.items():
        if is_there:
            raise InputError(f"drift={name!r} {problem}: see docs/extending.md.")
