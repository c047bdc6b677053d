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


class Network(NamedTuple):
    """Pure functions of the parameters. Without a memory, memory is `()`.

    Rows are [N, ...], in any order. With a memory they are whole environments [B x T, ...], the T
    steps of each together; `window.memory` [B, ...] is the memory before the first step.
    """

    init: Callable[..., PyTree]  # (key, log_std_init=0.0) -> params
    start: Callable[[PyTree, int], PyTree]  # (params, B) -> memory [B, ...] of a new episode
    act: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, Any]]
    # (params, memory, observation [B, *O]) -> (memory, distribution [B, *D]); the actor alone
    apply: Callable[[PyTree, Window], tuple[Any, Array]]  # -> (distribution, value), rows
    policy: Callable[[PyTree, Window], Any]  # -> distribution, rows; the actor alone
    values: Callable[[PyTree, Window], tuple[Array, PyTree]]
    # -> (value, the critic's memory after each row); the critic alone
    value_after: Callable[[PyTree, PyTree, PyTree], Array]
    # (params, the critic's memory before, observation) -> value, rows; no reset
    carry_on: Callable[[PyTree, PyTree], PyTree]
    # (memory after acting, the critic's memory after the last step) -> memory

    def value(self, params: PyTree, window: Window) -> Array:
        """The critic's values of rows."""
        return self.values(params, window)[0]


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
