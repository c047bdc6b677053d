"""Pieces of many rows, small enough to stay in a core's cache from one layer to the next."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array

from ppo_jax.kernels.backend import is_cpu

PIECE_ROWS = 512  # measured with 64-wide layers; more rows leave the caches between two layers


def piece_size(num_rows: int) -> int:
    """Rows of one piece, a divisor of `num_rows`: all of them where they are few, or on a GPU.

    A GPU pays for every kernel that it starts, and takes all rows at once.
    """
    if not is_cpu() or num_rows <= PIECE_ROWS:
        return num_rows
    divisors = [d for d in range(PIECE_ROWS // 4, PIECE_ROWS + 1) if num_rows % d == 0]
    return max(divisors, default=num_rows)


def by_pieces(function: Callable[[Array], Array], rows: Array) -> Array:
    """`function` of rows [N, ...], which treats each row by itself, piece by piece."""
    size = piece_size(rows.shape[0])
    if size == rows.shape[0]:
        return function(rows)
    values = jax.lax.map(function, rows.reshape(-1, size, *rows.shape[1:]))
    return values.reshape(-1, *values.shape[2:])
