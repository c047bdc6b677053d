"""Exact permutations without a sort.

Sorting 2^18 random keys takes 40 ms on a CPU, a fifth of an update. A Feistel network computes a
pseudo-random bijection element by element instead.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.kernels.backend import Backend, current, is_accelerator

SMALLEST = 128  # below it a sort is cheap, and a Feistel network has too few bits to mix
FEWEST = 8  # rows or columns of a grid of numbers whose halves mix
_ROUNDS = 8


def permutations(key: Array, count: int, n: int) -> Array:
    """Permutations of 0 .. n-1, [count, n] int32: every number exactly once in each.

    Below SMALLEST, and in the plain form, they are uniform and use sorting. Otherwise they are
    pseudo-random: a Feistel network of 8 rounds (Luby and Rackoff 1988: 4 suffice with random round
    functions) on the smallest power of two that holds n. Each number walks along its cycle until it
    is below n (Black and Rogaway 2002).

    A walk is a loop of unknown length, for which an accelerator would wait. It places the numbers
    on a grid of n cells, whose coordinates are the halves. If n has no such factors, it sorts.
    """
    is_power = n & (n - 1) == 0
    rows = largest_factor(n) if is_accelerator() and not is_power else n
    if n < SMALLEST or current() is Backend.PLAIN or rows < FEWEST:
        return jax.vmap(lambda each: jax.random.permutation(each, n))(jax.random.split(key, count))
    round_keys = jax.random.bits(key, (count, _ROUNDS), jnp.uint32)
    if is_accelerator() and not is_power:
        x = jnp.arange(n, dtype=jnp.uint32)
        return jax.vmap(lambda each: feistel_grid(x, each, (rows, n // rows)))(round_keys)
    return jax.vmap(lambda each: _walked(each, n))(round_keys)


def largest_factor(n: int) -> int:
    """The largest factor of n that is at most its square root."""
    return next(d for d in range(math.isqrt(n), 0, -1) if n % d == 0)


def feistel_grid(x: Array, round_keys: Array, sides: tuple[int, int]) -> Array:
    """A bijection of 0 .. rows x columns - 1: in turn each coordinate gains a hash of the other,
    modulo its side (Black and Rogaway 2002, section 5).

    Args:
        x: [...] uint32, below rows x columns.
        round_keys: [rounds] uint32, an even number of them.
        sides: rows and columns.

    Returns:
        [...] int32.
    """
    rows, columns = (jnp.uint32(side) for side in sides)
    row, column = x // columns, x % columns
    for i in range(0, round_keys.shape[0], 2):
        row = (row + mixed(column + round_keys[i]) % rows) % rows
        column = (column + mixed(row + round_keys[i + 1]) % columns) % columns
    return (row * columns + column).astype(jnp.int32)


def _walked(round_keys: Array, n: int) -> Array:
    """The permutation [n] of the Feistel network with these round keys [_ROUNDS]."""
    num_bits = (n - 1).bit_length()
    start = feistel(jnp.arange(n, dtype=jnp.uint32), round_keys, num_bits)
    if n == 1 << num_bits:
        return start.astype(jnp.int32)

    def walk(x: Array) -> Array:
        return jnp.where(x < n, x, feistel(x, round_keys, num_bits))

    landed = jax.lax.while_loop(lambda x: jnp.any(x >= n), walk, start)
    return landed.astype(jnp.int32)


def feistel(x: Array, round_keys: Array, num_bits: int) -> Array:
    """A bijection of 0 .. 2^num_bits - 1: each half in turn is xored with a hash of the other.

    Args:
        x: [...] uint32, below 2^num_bits.
        round_keys: [rounds] uint32, an even number of them.

    Returns:
        [...] uint32.
    """
    low_bits = num_bits // 2
    low_mask, high_mask = (1 << low_bits) - 1, (1 << (num_bits - low_bits)) - 1
    high, low = x >> low_bits, x & low_mask
    for i in range(0, round_keys.shape[0], 2):
        high = high ^ (mixed(low + round_keys[i]) & high_mask)
        low = low ^ (mixed(high + round_keys[i + 1]) & low_mask)
    return (high << low_bits) | low


def mixed(x: Array) -> Array:
    """The finaliser of MurmurHash3 (Appleby), which spreads every input bit over all 32."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
