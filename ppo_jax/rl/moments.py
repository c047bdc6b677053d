"""Running mean and variance that merge: over batches, over devices, over a whole run.

One batch gives `from_batch`; two sets of moments give `merge`; a sharded batch gives `all_reduce`.
The trainer freezes the running moments within an iteration and merges once at its end, so that
every ratio of the first minibatch is 1.
"""

from __future__ import annotations

from functools import reduce

import chex
import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.kernels import collectives
from ppo_jax.rl.types import Moments

# Past this many samples the count stays put and the moments become an exponential window of that
# length. Without an end the weight of a new batch would sink below float32's resolution and the
# statistics would freeze; between 2**24 and here the count is rounded to float32 (relative 6e-8),
# which as a weight is harmless.
MAX_COUNT = 2.0**30

EPSILON = 1e-8  # OpenAI baselines, VecNormalize


def init(shape: tuple[int, ...] = ()) -> Moments:
    """Moments of nothing: merging them changes nothing, standardising by them leaves x alone."""
    zeros = jnp.zeros(shape, jnp.float32)
    return Moments(count=jnp.zeros((), jnp.float32), mean=zeros, m2=zeros)


def from_batch(x: Array) -> Moments:
    """Moments of the N >= 1 rows of `x` [N, *O], of any real, integer or bool dtype."""
    num_rows = x.shape[0]
    x = x.astype(jnp.float32)
    # Sums are taken relative to the first row: exact zeros for constant columns, and no
    # cancellation where the mean is far larger than the spread.
    shifted = x - jnp.broadcast_to(x[:1], x.shape)
    shifted_mean = jnp.mean(shifted, axis=0, keepdims=True)
    deviation = shifted - jnp.broadcast_to(shifted_mean, x.shape)
    return Moments(
        count=jnp.asarray(num_rows, jnp.float32),
        mean=x[0] + shifted_mean[0],
        m2=jnp.sum(jnp.square(deviation), axis=0),
    )


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both samples together, given the moments of each.

        n = n_a + n_b,  d = mean_b - mean_a
        mean = mean_a + d n_b / n
        m2 = m2_a + m2_b + d^2 n_a n_b / n

    Chan, Golub & LeVeque 1979, equations 2.1. An empty side leaves the other bit for bit.
    """
    chex.assert_equal_shape([a.mean, b.mean])
    count = a.count + b.count
    weight_b = b.count / jnp.maximum(count, 1.0)
    delta = b.mean - a.mean
    merged = Moments(
        count=count,
        mean=a.mean + delta * weight_b,
        m2=a.m2 + b.m2 + jnp.square(delta) * (a.count * weight_b),
    )
    return _saturate(merged)


def _saturate(moments: Moments) -> Moments:
    """At most `MAX_COUNT` samples' worth of evidence, mean and variance unchanged."""
    kept_fraction = jnp.where(moments.count > MAX_COUNT, MAX_COUNT / moments.count, 1.0)
    return moments._replace(
        count=jnp.minimum(moments.count, MAX_COUNT), m2=moments.m2 * kept_fraction
    )


def all_reduce(moments: Moments, axis_name: str | None) -> Moments:
    """Moments of the samples of all members of a mapped axis, the same on each (None: as given)."""
    if axis_name is None:
        return moments
    return combined(collectives.gathered(moments, axis_name))


def combined(every: Moments) -> Moments:
    """Moments of all samples together, given those of D parts with a leading axis [D]."""
    return reduce(merge, [Moments(*part) for part in zip(*every, strict=True)])


def variance(moments: Moments) -> Array:
    """Population variance [*O], m2 / count; 1 where nothing was counted yet."""
    known = moments.m2 / jnp.maximum(moments.count, 1.0)
    return jnp.where(moments.count > 0, known, 1.0)


def standardise(moments: Moments, x: Array, clip: float = 10.0) -> Array:
    """(x - mean) / sqrt(variance + 1e-8), clipped to [-clip, clip]; x is [..., *O], out float32.

    As in OpenAI baselines' VecNormalize. While nothing was counted, mean is 0 and variance 1.
    """
    centred = x.astype(jnp.float32) - jnp.broadcast_to(moments.mean, x.shape)
    return _divide_by_std(moments, centred, clip)


def scale(moments: Moments, x: Array, clip: float = 10.0) -> Array:
    """x / sqrt(variance + 1e-8), clipped to [-clip, clip]; not centred, so that signs are kept.

    For rewards, with the moments of `discounted_returns`, as in OpenAI baselines' VecNormalize.
    """
    return _divide_by_std(moments, x.astype(jnp.float32), clip)


def _divide_by_std(moments: Moments, x: Array, clip: float) -> Array:
    std = jnp.sqrt(variance(moments) + EPSILON)
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
