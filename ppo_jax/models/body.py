"""A network before interpretation: raw policy outputs, features and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from ppo_jax.rl.types import PyTree, Window


class Body(NamedTuple):
    """A network before interpretation; `Network` describes rows and memory.

    The policy's output is logits or a mean, [..., n] or [..., A], or a pair (mean, log_std).
    """

    init: Callable[[Array, Any], PyTree]  # (key, log_std_init) -> params
    start: Callable[[PyTree, int], PyTree]
    act: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, Any, Any]]  # (memory, output, features)
    apply: Callable[[PyTree, Window], tuple[Any, Any, Array]]  # (output, features, value)
    policy: Callable[[PyTree, Window], tuple[Any, Any]]  # (output, features)
    values: Callable[[PyTree, Window], tuple[Array, PyTree]]
    value_after: Callable[[PyTree, PyTree, PyTree], Array]
    carry_on: Callable[[PyTree, PyTree], PyTree]
    log_std_shape: tuple[int, ...] | None  # shape of a log std that is a parameter


def feed_forward(
    init: Callable[[Array, Any], PyTree],
    apply: Callable[[PyTree, PyTree], tuple[Any, Any, Array]],
    policy: Callable[[PyTree, PyTree], tuple[Any, Any]],
    value: Callable[[PyTree, PyTree], Array],
    log_std_shape: tuple[int, ...] | None,
) -> Body:
    """A body without memory from functions of observations [..., *O] alone."""
    return Body(
        init=init,
        start=lambda params, num_envs: (),
        act=lambda params, memory, observation: ((), *policy(params, observation)),
        apply=lambda params, window: apply(params, window.observation),
        policy=lambda params, window: policy(params, window.observation),
        values=lambda params, window: (value(params, window.observation), ()),
        value_after=lambda params, memory, observation: value(params, observation),
        carry_on=lambda memory, critic: (),
        log_std_shape=log_std_shape,
    )
