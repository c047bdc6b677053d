"""Causal attention over the last K observations of an episode, as a core.

Its memory is the last K embeddings with a flag for each that was seen. A reset clears the flags.
The layer is a block of a transformer (Vaswani et al. 2017) with the norm before each part, and a
learned bias for the age of an observation in place of positions (Raffel et al. 2020, 2.1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

PyTree = Any
HIGHEST = jax.lax.Precision.HIGHEST
HEADS = 4  # attention heads of a wide layer; a narrow one has a single head
NARROW = 32
BLOCK = 32  # steps that share a block of scores, at least K of them
EPSILON = 1e-6  # added to the variance by the norm


class CoreShape(NamedTuple):
    """The sizes of a core."""

    inputs: int  # F
    size: int  # H
    window: int = 1  # K, observations that attention sees; other cores do not read it


def start(num_envs: int, shape: CoreShape) -> PyTree:
    """Nothing seen."""
    return {
        "seen": jnp.zeros((num_envs, shape.window, shape.size), jnp.result_type(float)),
        "valid": jnp.zeros((num_envs, shape.window), bool),
    }


def num_heads(size: int) -> int:
    """Heads of a layer of this size."""
    return HEADS if size >= NARROW and size % HEADS == 0 else 1


def step(params: PyTree, memory: PyTree, x: Array) -> tuple[PyTree, Array]:
    """One observation more: (memory, features [B, H])."""
    embedded = _dense(x, params["input"], params["bias"])
    newest = jnp.ones_like(memory["valid"][:, :1])
    seen = jnp.concatenate([memory["seen"][:, 1:], embedded[:, None]], axis=1)
    valid = jnp.concatenate([memory["valid"][:, 1:], newest], axis=1)
    age = jnp.arange(seen.shape[1])[::-1][None]  # the oldest first
    found = _attend(params, embedded[:, None], seen, valid[:, None], age)
    return {"seen": seen, "valid": valid}, _finish(params, embedded, found[:, 0])


def scan(
    params: PyTree, memory: PyTree, x: Array, reset: Array, fresh: PyTree
) -> tuple[PyTree, Array]:
    """All steps at once, in blocks of time; a fresh memory is always empty.

    Args:
        memory: before the first step, `seen` [B, K, H] and `valid` [B, K].
        x: [T, B, F].
        reset: [T, B], 1 or True at the first step of an episode. fresh: not read.

    Returns:
        The memory after each step, [T, B, ...], and the features [T, B, H].
    """
    del fresh
    num_steps, num_envs, _ = x.shape
    window = memory["valid"].shape[1]
    embedded = _dense(x, params["input"], params["bias"])
    length = min(num_steps, max(window, BLOCK))
    num_blocks = -(-num_steps // length)
    spare = num_blocks * length - num_steps
    # Entries are the memory, the steps, and a filling that nothing sees, in the order of time.
    filling = jnp.zeros((num_envs, spare, embedded.shape[-1]), embedded.dtype)
    entries = jnp.concatenate([memory["seen"], jnp.swapaxes(embedded, 0, 1), filling], axis=1)
    episode = jnp.cumsum(reset.T, axis=1)  # [B, T]
    episode = jnp.concatenate([episode, jnp.zeros((num_envs, spare), episode.dtype)], axis=1)
    # Entries that were not seen belong to no episode.
    before = jnp.where(memory["valid"], 0, -1).astype(episode.dtype)
    owners = jnp.concatenate([before, episode], axis=1)
    first = jnp.arange(num_blocks) * length
    columns = first[:, None] + jnp.arange(window + length)[None]  # [blocks, K + L]
    age = window + jnp.arange(length)[:, None] - jnp.arange(window + length)[None]  # [L, K + L]

    def blocks(leaf: Array, size: int) -> Array:  # [B, ...] -> [B x blocks, ...]
        return leaf.reshape(num_envs * num_blocks, size, *leaf.shape[3:])

    queries = entries[:, window:].reshape(num_envs * num_blocks, length, -1)
    own = blocks(episode.reshape(num_envs, num_blocks, length), length)
    others = blocks(owners[:, columns], window + length)
    visible = own[:, :, None] == others[:, None, :]
    visible &= ((age >= 0) & (age < window))[None]
    keys = blocks(entries[:, columns], window + length)
    found = _attend(params, queries, keys, visible, age)
    found = found.reshape(num_envs, num_blocks * length, -1)[:, :num_steps]
    after = _memory_after(entries, owners, episode[:, :num_steps], window)
    return after, _finish(params, embedded, jnp.swapaxes(found, 0, 1))


def _memory_after(entries: Array, owners: Array, episode: Array, window: int) -> PyTree:
    """The last K entries after each step, [T, B, K, ...]."""
    num_steps = episode.shape[1]
    last = jnp.arange(num_steps)[:, None] + 1 + jnp.arange(window)[None]  # [T, K]
    valid = owners[:, last] == episode[:, :, None]
    seen = jnp.where(valid[..., None], entries[:, last], 0.0)
    return {"seen": jnp.swapaxes(seen, 0, 1), "valid": jnp.swapaxes(valid, 0, 1)}


def _attend(params: PyTree, queries: Array, keys: Array, visible: Array, age: Array) -> Array:
    """Attention of queries [n, L, H] to entries [n, S, H] that are visible [n, L, S].

    Args:
        age: [L, S], steps from an entry to a query.
    """
    size = queries.shape[-1]
    heads = num_heads(size)
    asked, offered = _norm(queries), _norm(keys)

    def split(x: Array, name: str) -> Array:
        return jnp.matmul(x, params[name], precision=HIGHEST).reshape(*x.shape[:2], heads, -1)

    query, key, value = split(asked, "query"), split(offered, "key"), split(offered, "value")
    scores = jnp.einsum("nlhd,nshd->nhls", query, key, precision=HIGHEST)
    scores *= (size // heads) ** -0.5
    by_age = params["age"][:, jnp.clip(age, 0, params["age"].shape[1] - 1)]  # [heads, L, S]
    scores = jnp.where(visible[:, None], scores + by_age[None], -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    mixed = jnp.einsum("nhls,nshd->nlhd", weights, value, precision=HIGHEST)
    return jnp.matmul(mixed.reshape(*queries.shape), params["output"], precision=HIGHEST)


def _finish(params: PyTree, embedded: Array, attended: Array) -> Array:
    """Both residual parts of the block."""
    x = embedded + attended
    hidden = jax.nn.gelu(_dense(_norm(x), params["up"], params["up_bias"]))
    return x + _dense(hidden, params["down"], params["down_bias"])


def _norm(x: Array) -> Array:
    """Mean 0 and variance 1 over the features."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPSILON)


def _dense(x: Array, kernel: Array, bias: Array) -> Array:
    product = jnp.matmul(x, kernel, precision=HIGHEST)
    return product + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
