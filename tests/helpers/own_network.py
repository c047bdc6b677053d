"""A user's network: one matrix for the policy of two actions, one vector for the value."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def own_init(key: jax.Array) -> dict[str, jax.Array]:
    return {"policy": 0.1 * jax.random.normal(key, (2, 2)), "value": jnp.zeros(2)}


def own_apply(params: Any, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
    return observation @ params["policy"], observation @ params["value"]


OWN_NETWORK = (own_init, own_apply)
