"""Cores with a memory, between torso and heads: one row of a table and four pure functions each.

A core sees the torso's features [..., F] and its memory, and gives features [..., H]. Its memory is
that *before* the observation is seen. An episode's first step starts from `start`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.kernels.orthogonal import orthogonal
from ppo_jax.rl.types import PyTree

HIGHEST = jax.lax.Precision.HIGHEST


class Core(NamedTuple):
    """A recurrent layer of H features; memory is a tree [B, ...]."""

    init: Callable[[Array, int, int], PyTree]  # (key, F, H) -> params
    start: Callable[[int, int], PyTree]  # (B, H) -> memory [B, ...]
    step: Callable[[PyTree, PyTree, Array], PyTree]  # (params, memory, x [B, F]) -> memory
    output: Callable[[PyTree], Array]  # memory [..., ] -> features [..., H]


def scan(core: Core, params: PyTree, memory: PyTree, x: Array, reset: Array, size: int) -> PyTree:
    """Memory after each step, [T, B, ...]; where an episode begins it starts anew before the step.

    Args:
        memory: [B, ...], before the first step. x: [T, B, F]. reset: [T, B] bool.
    """
    start = core.start(x.shape[1], size)

    def step(memory: PyTree, inputs: tuple[Array, Array]) -> tuple[PyTree, PyTree]:
        x_t, reset_t = inputs

        def choose(fresh: Array, old: Array) -> Array:
            return jnp.where(reset_t.reshape(-1, *[1] * (old.ndim - 1)), fresh, old)

        memory = core.step(params, jax.tree.map(choose, start, memory), x_t)
        return memory, memory

    return jax.lax.scan(step, memory, (x, reset))[1]


def _gru_init(key: Array, num_inputs: int, size: int) -> PyTree:
    key_input, key_memory = jax.random.split(key)
    from_input = orthogonal(key_input, [(num_inputs, size)] * 3)
    from_memory = orthogonal(key_memory, [(size, size)] * 3)
    return {
        "input": jnp.concatenate(from_input, axis=1),  # [F, 3 H]: reset, update, candidate
        "memory": jnp.concatenate(from_memory, axis=1),  # [H, 3 H]
        "bias": jnp.zeros(3 * size, from_input[0].dtype),
        "memory_bias": jnp.zeros(size, from_input[0].dtype),  # of the candidate
    }


def _gru_step(params: PyTree, memory: Array, x: Array) -> Array:
    """h' = (1 - z) n + z h, n = tanh(W x + r (U h + c))  (Cho et al. 2014; cuDNN's variant)."""
    given = jnp.matmul(x, params["input"], precision=HIGHEST) + params["bias"]
    own = jnp.matmul(memory, params["memory"], precision=HIGHEST)
    reset, update, candidate = jnp.split(given, 3, axis=-1)
    own_reset, own_update, own_candidate = jnp.split(own, 3, axis=-1)
    reset = jax.nn.sigmoid(reset + own_reset)
    update = jax.nn.sigmoid(update + own_update)
    candidate = jnp.tanh(candidate + reset * (own_candidate + params["memory_bias"]))
    return (1.0 - update) * candidate + update * memory


def _zeros(num_envs: int, size: int) -> Array:
    return jnp.zeros((num_envs, size), jnp.result_type(float))


def _identity(memory: Any) -> Any:
    return memory


CORES: dict[str, Core] = {"gru": Core(_gru_init, _zeros, _gru_step, _identity)}
