"""Random numbers of a rollout, drawn before its scan; the same for any number of devices.

A draw inside the scan would cost an extra small program at every step. Environments may come in
blocks with keys of their own, so that the devices that share them draw what one device would draw.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.errors import InputError
from ppo_jax.config.values import short
from ppo_jax.kernels.select import Refill, make_refill
from ppo_jax.models.policy_head import Family
from ppo_jax.rl.types import PyTree


class Draws(NamedTuple):
    """Random numbers of one step, or [T, ...] of all steps of a rollout."""

    action: PyTree  # [B, ...], what `Family.sample` needs; None for the distribution's mode
    key_env: Array  # [B], keys of the environments' transitions
    key_noise: Array  # [], or one for each block of environments


def require_key(key: Any) -> None:
    """Refuse what is not one typed PRNG key.

    Raises:
        InputError: a number, an array of numbers, or several keys.
    """
    is_key = isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_key or key.ndim:
        raise InputError(
            f"key={short(key)} must be one typed PRNG key: give jax.random.key(0), or vmap over "
            "several."
        )


def draw_all(
    family: Family, num_steps: int, num_envs: int, key: Array
) -> tuple[Draws, Any, Refill]:
    """The random numbers of T steps of B environments, and the resets' inputs and function.

    Args:
        key: one key, or the four [4] that it would be split into, or [blocks, 4]: four for each
            block of environments, which are as many.
    """
    if key.ndim == 2:
        return draw_blocks(family, num_steps, num_envs, key)
    key_action, key_env, key_reset, key_noise = key if key.ndim else jax.random.split(key, 4)
    draws = Draws(
        action=family.draw(key_action, (num_steps, num_envs)),
        key_env=jax.random.split(key_env, (num_steps, num_envs)),
        key_noise=jax.random.split(key_noise, num_steps),
    )
    return draws, *make_refill(key_reset, num_steps, num_envs)


def draw_blocks(
    family: Family, num_steps: int, num_envs: int, keys: Array
) -> tuple[Draws, Any, Refill]:
    """As `draw_all`, for several blocks of environments with keys [blocks, 4] of their own."""
    count = keys.shape[0]

    def draw(own: Array) -> tuple[Draws, Any]:
        draws, resets, _ = draw_all(family, num_steps, num_envs // count, own)
        return draws, resets

    def of_step(leaf: Array) -> Array:
        """[blocks, T, B / blocks, ...] -> [T, B, ...]."""
        leaf = jnp.swapaxes(leaf, 0, 1)
        return leaf.reshape(num_steps, num_envs, *leaf.shape[3:])

    draws, resets = jax.vmap(draw)(keys)
    draws = Draws(
        action=jax.tree.map(of_step, draws.action),
        key_env=of_step(draws.key_env),
        key_noise=jnp.swapaxes(draws.key_noise, 0, 1),
    )
    return draws, jax.tree.map(of_step, resets), refill_blocks(keys[:, 2], num_steps)


def refill_blocks(keys: Array, num_steps: int) -> Refill:
    """The resets of `draw_blocks`: each block [B / blocks] as if it were alone."""
    count = keys.shape[0]

    def apart(leaf: Array) -> Array:
        return leaf.reshape(count, leaf.shape[0] // count, *leaf.shape[1:])  # it may be empty

    def refill(resets: Any, t: Array, mask: Array, draw: Any, old: PyTree) -> PyTree:
        def one(key: Array, own: Any, mask: Array, old: PyTree) -> PyTree:
            return make_refill(key, num_steps, mask.shape[0])[1](own, t, mask, draw, old)

        given = jax.tree.map(apart, (resets, mask, old))
        filled = jax.vmap(one)(keys, *given)
        num_rows = mask.shape[0]
        return jax.tree.map(lambda leaf: leaf.reshape(num_rows, *leaf.shape[2:]), filled)

    return refill


def draw_noise(family: Family, key: Array, num_envs: int) -> PyTree:
    """Exploration noise of B environments; with a key for each block [blocks], block by block."""
    if key.ndim == 0:
        return family.draw_noise(key, num_envs)
    drawn = jax.vmap(lambda own: family.draw_noise(own, num_envs // key.shape[0]))(key)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), drawn)
