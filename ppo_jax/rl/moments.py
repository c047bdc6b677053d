"""Running mean and variance that merge: over batches, over devices, over a whole run.

One batch gives `from_batch`; two sets of moments give `merge`; a sharded batch gives `all_reduce`.
The trainer freezes the running moments within an iteration and merges once at its end, so that
gathered ratio of the first minibatch is 1.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.kernels.collectives import Across
from ppo_jax.rl.types import Moments, PyTree

# The count stops at this many samples, and the moments become an exponential window of that length.
# Without a limit the weight of a new batch would sink below float32's resolution, and the
# statistics would freeze. Between 2**24 and here the count is rounded to float32 (relative 6e-8),
# which is harmless for a weight.
MAX_COUNT = 2.0**30

EPSILON = 1e-8  # OpenAI baselines, VecNormalize


def init(observation: PyTree = None) -> Moments:
    """Moments of no samples: merging them changes nothing, standardising by them keeps x.

    Args:
        observation: tree of shapes and dtypes; None for a stream of numbers [].
    """
    if observation is None:
        zeros: PyTree = jnp.zeros((), jnp.float32)
    else:
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape if is_counted(leaf, observation) else ()),
            observation,
        )
    zeros = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), zeros)
    return Moments(count=jnp.zeros((), jnp.float32), mean=zeros, m2=zeros)


def is_counted(leaf: Any, tree: PyTree) -> bool:
    """Check that a leaf is standardised: always for a single array, else if it is real."""
    return leaf is tree or jnp.issubdtype(leaf.dtype, jnp.floating)


def from_batch(x: PyTree, weight: Array | tuple[()] = ()) -> Moments:
    """Moments of the N >= 1 rows of `x` [N, *O], of any real, integer or bool dtype.

    Args:
        weight: [N], 1 for a row that counts, else 0; () if all do.
    """
    num_rows = jax.tree.leaves(x)[0].shape[0]
    found = [
        _mean_and_m2(leaf, weight) if is_counted(leaf, x) else (jnp.zeros(()), jnp.zeros(()))
        for leaf in jax.tree.leaves(x)
    ]
    means, squares = zip(*found, strict=True)
    treedef = jax.tree.structure(x)
    count = num_rows if isinstance(weight, tuple) else jnp.sum(weight)
    return Moments(
        count=jnp.asarray(count, jnp.float32),
        mean=jax.tree.unflatten(treedef, means),
        m2=jax.tree.unflatten(treedef, squares),
    )


def _mean_and_m2(x: Array, weight: Array | tuple[()]) -> tuple[Array, Array]:
    x = x.astype(jnp.float32)
    # Sums are taken relative to the first row: exact zeros for constant columns, and no
    # cancellation if the mean is far larger than the spread.
    shifted = x - jnp.broadcast_to(x[:1], x.shape)
    if not isinstance(weight, tuple):
        share = jnp.broadcast_to(weight.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
        shifted_mean = jnp.sum(share * shifted, axis=0) / jnp.maximum(jnp.sum(weight), 1.0)
        deviation = shifted - jnp.broadcast_to(shifted_mean[None], x.shape)
        return x[0] + shifted_mean, jnp.sum(share * jnp.square(deviation), axis=0)
    shifted_mean = jnp.mean(shifted, axis=0, keepdims=True)
    deviation = shifted - jnp.broadcast_to(shifted_mean, x.shape)
    return x[0] + shifted_mean[0], jnp.sum(jnp.square(deviation), axis=0)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both samples together, given the moments of each.

        n = n_a + n_b,  d = mean_b - mean_a
        mean = mean_a + d n_b / n
        m2 = m2_a + m2_b + d^2 n_a n_b / n

    Chan, Golub & LeVeque 1979, equations 2.1. An empty side leaves the other bit for bit.
    """
    chex.assert_trees_all_equal_shapes(a.mean, b.mean)
    count = a.count + b.count
    weight_b = b.count / jnp.maximum(count, 1.0)
    delta = jax.tree.map(lambda mean_a, mean_b: mean_b - mean_a, a.mean, b.mean)
    merged = Moments(
        count=count,
        mean=jax.tree.map(lambda mean, d: mean + d * weight_b, a.mean, delta),
        m2=jax.tree.map(
            lambda m2_a, m2_b, d: m2_a + m2_b + jnp.square(d) * (a.count * weight_b),
            a.m2,
            b.m2,
            delta,
        ),
    )
    return _saturate(merged)


def _saturate(moments: Moments) -> Moments:
    """Limit the count to `MAX_COUNT`, with mean and variance unchanged."""
    kept_fraction = jnp.where(moments.count > MAX_COUNT, MAX_COUNT / moments.count, 1.0)
    m2 = jax.tree.map(lambda leaf: leaf * kept_fraction, moments.m2)
    return moments._replace(count=jnp.minimum(moments.count, MAX_COUNT), m2=m2)


def all_reduce(moments: Moments, across: Across) -> Moments:
    """Moments of the samples of all devices, equal on each of them."""
    return combined(across.gather(moments)) if across.axes else moments


def combined(gathered: Moments) -> Moments:
    """Merge the moments of D parts, stacked on a leading axis [D]."""
    num_parts = gathered.count.shape[0]
    parts = [jax.tree.map(lambda leaf: leaf[i], gathered) for i in range(num_parts)]  # noqa: B023
    return reduce(merge, parts)


def variance(moments: Moments) -> PyTree:
    """Population variance [*O], m2 / count; 1 before the first sample."""

    def of(m2: Array) -> Array:
        return jnp.where(moments.count > 0, m2 / jnp.maximum(moments.count, 1.0), 1.0)

    return jax.tree.map(of, moments.m2)


def standardise(moments: Moments, x: PyTree, clip: float = 10.0) -> PyTree:
    """(x - mean) / sqrt(variance + 1e-8), clipped to [-clip, clip]; x is [..., *O], out float32.

    As in OpenAI baselines' VecNormalize. Before the first sample, mean is 0 and variance 1. In a
    tree of several leaves only the real-valued leaves are standardised.
    """

    def of(leaf: Array, mean: Array, known: Array) -> Array:
        if not is_counted(leaf, x):
            return leaf
        centred = leaf.astype(jnp.float32) - jnp.broadcast_to(mean, leaf.shape)
        return _divide_by_std(known, centred, clip)

    return jax.tree.map(of, x, moments.mean, variance(moments))


def scale(moments: Moments, x: Array, clip: float = 10.0) -> Array:
    """x / sqrt(variance + 1e-8), clipped to [-clip, clip]; not centred, so that signs are kept.

    For rewards, with the moments of `discounted_returns`, as in OpenAI baselines' VecNormalize.
    """
    return _divide_by_std(variance(moments), x.astype(jnp.float32), clip)


def _divide_by_std(variance: Array, x: Array, clip: float) -> Array:
    std = jnp.sqrt(variance + EPSILON)
    return jnp.clip(x / jnp.broadcast_to(std, x.shape), -clip, clip)


def discounted_returns(
    carry: Array, reward: Array, ended: Array, gamma: Array | float
) -> tuple[Array, Array]:
    """Rewards summed *forward* in time, the quantity whose spread scales the rewards.

        G_t = gamma G_{t-1} (1 - ended_{t-1}) + r_t

    Args:
        carry: [B], G of the step before, already 0 where its episode ended.
        reward: [T, B].
        ended: [T, B], bool, terminated or truncated.
        gamma: [], discount.

    Returns:
        The carry [B] for the next call, and G [T, B].
    """
    chex.assert_equal_shape([reward, ended])

    def step(running: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        reward_B, ended_B = inputs
        discounted = gamma * running + reward_B
        return jnp.where(ended_B, 0.0, discounted), discounted

    return jax.lax.scan(step, carry, (reward, ended))
