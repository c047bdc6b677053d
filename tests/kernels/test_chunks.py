"""Pieces of many rows: which there are, and that a function of single rows cannot tell."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.kernels import chunks


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(512, 512), (1024, 512), (8192, 512), (6000, 500), (640, 320), (5003, 5003)],
)
def test_a_piece_divides_the_rows_and_few_rows_stay_whole(monkeypatch, rows, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert chunks.piece_size(rows) == expected


def test_a_gpu_takes_all_rows_at_once(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert chunks.piece_size(8192) == 8192


@pytest.mark.parametrize("rows", [1024, 40, 5003])
def test_a_function_of_single_rows_gives_the_same_by_pieces(monkeypatch, rows):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    x = jax.random.normal(jax.random.key(0), (rows, 3, 2))

    def function(x):
        return jnp.sum(jnp.sin(x), axis=(1, 2))

    seen = []

    def watched(x):
        seen.append(x.shape[0])
        return function(x)

    np.testing.assert_allclose(chunks.by_pieces(watched, x), function(x), rtol=1e-6, atol=1e-6)
    assert set(seen) == {chunks.piece_size(rows)}
