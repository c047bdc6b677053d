"""Networks without a memory, made of two functions of observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ppo_jax.models.body import Network


def network_of(
    policy: Callable[[Any, Any], Any], value: Callable[[Any, Any], jax.Array]
) -> Network:
    """A network from `policy(params, observation)` and `value(params, observation)`."""
    return Network(
        init=lambda key, log_std_init=0.0: {},
        start=lambda params, num_envs: (),
        act=lambda params, memory, x: ((), policy(params, x)),
        apply=lambda params, window: (
            policy(params, window.observation),
            value(params, window.observation),
        ),
        policy=lambda params, window: policy(params, window.observation),
        values=lambda params, window: (value(params, window.observation), ()),
        value_after=lambda params, memory, x: value(params, x),
        carry_on=lambda memory, critic: (),
    )


def shown(*shape: int, dtype: Any = "float32") -> jax.ShapeDtypeStruct:
    """The shape and dtype of an observation that is one array."""
    return jax.ShapeDtypeStruct(shape, dtype)
