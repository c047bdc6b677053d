"""Drifts for the tests of mirror learning."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def clip_drift(ratio: Array, advantage: Array, epsilon: Array | float) -> Array:
    """L^CLIP as a drift: relu((r - clip(r, 1 - eps, 1 + eps)) A)  (Kuba et al. 2022, sec. 4.4)."""
    excess = ratio - jnp.clip(ratio, 1.0 - epsilon, 1.0 + epsilon)
    return jax.nn.relu(excess * advantage)
