"""Random matrices with orthonormal columns or rows, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.kernels.backend import Backend, current, is_accelerator

# Turns of an accelerator's iteration. A turn multiplies a small singular value by 1.5: 46 of them
# raise one of 1e-8, below the rounding of float32, to 1; the last ones square the error.
TURNS = 54


def orthogonal(key: Array, shapes: Sequence[tuple[int, int]]) -> list[Array]:
    """A random matrix of each shape, with orthonormal columns (rows if it is wide).

    The plain form is Flax's `orthogonal` initialiser. The tuned form loads and compiles faster, and
    draws other matrices of the same distribution.
    """
    real = jnp.result_type(float)
    if current() is Backend.PLAIN:
        draw = jax.nn.initializers.orthogonal()
        return [draw(jax.random.fold_in(key, i), shape, real) for i, shape in enumerate(shapes)]
    # The first k columns of a random orthogonal matrix are distributed like a random matrix of k
    # columns. So matrices with an equal longer side come from two batches, one of them narrow.
    kinds = [(max(shape), 4 * min(shape) <= max(shape)) for shape in shapes]
    matrices: dict[int, Array] = {}
    groups = sorted(set(kinds))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(groups)))
    for group_key, group in zip(keys, groups, strict=True):
        members = [i for i, kind in enumerate(kinds) if kind == group]
        drawn = (len(members), group[0], max(min(shapes[i]) for i in members))
        factors = polar_factors(jax.random.normal(group_key, drawn, real))
        for i, factor in zip(members, factors, strict=True):
            narrow = factor[:, : min(shapes[i])]
            matrices[i] = narrow if shapes[i][0] == group[0] else narrow.T
    return [matrices[i] for i in range(len(shapes))]


def polar_factors(x: Array) -> Array:
    """Turn standard normal matrices into uniform orthonormal columns [..., n, k], k <= n.

    They are the polar factors of x, by the Newton-Schulz iteration (Higham 2008, Functions of
    Matrices, eq. 8.20). The iteration uses products only; a QR decomposition would dominate loading
    and compiling before training. A rotation of x rotates the factor alike, so the factor is as
    uniform as that of a QR decomposition.
    """
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    identity = jnp.broadcast_to(
        jnp.eye(x.shape[-1], dtype=x.dtype), (*x.shape[:-2], x.shape[-1], x.shape[-1])
    )

    def step(loop: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        x, distance, _, turn = loop
        factor = 1.5 * identity - 0.5 * product(jnp.swapaxes(x, -1, -2), x)  # identity at the end
        return product(x, factor), jnp.max(jnp.abs(factor - identity)), distance, turn + 1

    def is_far(loop: tuple[Array, Array, Array, Array]) -> Array:
        _, _, distance, turn = loop  # from the previous turn: each turn squares the error
        return (distance > 5e-4) & (turn < 100)

    x /= jnp.linalg.norm(x, axis=(-2, -1), keepdims=True)  # no singular value beyond 1
    far = jnp.full((), jnp.inf, x.dtype)
    if (
        is_accelerator()
    ):  # it would wait for the distance after each turn; one too many changes x little
        last = jax.lax.fori_loop(0, TURNS, lambda _, loop: step(loop), (x, far, far, jnp.int32(0)))
        return last[0]
    return jax.lax.while_loop(is_far, step, (x, far, far, jnp.zeros((), jnp.int32)))[0]
