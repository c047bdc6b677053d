"""Chunks of rows: their sizes, and functions with the same result by chunks as at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.kernels import backend, chunks


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(512, 512), (1024, 512), (8192, 512), (6000, 500), (640, 320), (5003, 5003)],
)
def test_a_chunk_divides_the_rows_and_few_rows_stay_whole(rows, expected):
    with backend.use("cpu"):
        assert chunks.chunk_size(rows) == expected


@pytest.mark.parametrize("form", ["gpu", "tpu", "plain"])
def test_off_a_cpu_all_rows_are_one_chunk(form):
    with backend.use(form):
        assert chunks.chunk_size(8192) == 8192


@pytest.mark.parametrize("rows", [1024, 40, 5003])
def test_a_function_of_single_rows_gives_the_same_by_chunks(rows):
    x = jax.random.normal(jax.random.key(0), (rows, 3, 2))

    def function(x):
        return jnp.sum(jnp.sin(x), axis=(1, 2))

    seen = []

    def watched(x):
        seen.append(x.shape[0])
        return function(x)

    with backend.use("cpu"):
        found = chunks.map_chunks(watched, x)
        assert set(seen) == {chunks.chunk_size(rows)}
    np.testing.assert_allclose(found, function(x), rtol=1e-6, atol=1e-6)


def test_means_over_chunks_by_hand_with_every_row_kept_in_its_place(monkeypatch):
    """Two chunks of three rows: (1, 2, 3) and (10, 0, 2)."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 4)
    rows = {"x": jnp.array([1.0, 2.0, 3.0, 10.0, 0.0, 2.0])}
    seen = []

    def function(rows):
        seen.append(rows["x"].shape)
        return {"gradient": 2.0 * rows["x"], "loss": rows["x"].sum()}, -rows["x"]

    with backend.use("cpu"):
        means, values = chunks.mean_over_chunks(function, rows)
    assert set(seen) == {(3,)}
    np.testing.assert_allclose(means["gradient"], [11.0, 2.0, 5.0], rtol=1e-6)
    assert float(means["loss"]) == pytest.approx(9.0)  # (6 + 12) / 2
    np.testing.assert_array_equal(values, [-1.0, -2.0, -3.0, -10.0, 0.0, -2.0])


def test_a_single_chunk_is_the_function_itself():
    means, values = chunks.mean_over_chunks(lambda rows: (jnp.mean(rows), ()), jnp.arange(5.0))
    assert (float(means), values) == (2.0, ())
