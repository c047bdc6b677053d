"""Random orthogonal matrices: orthonormal, uniform and independent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppo_jax.kernels import backend
from ppo_jax.kernels.orthogonal import orthogonal, polar_factors

SHAPES = [(4, 64), (64, 64), (64, 2), (64, 1), (300, 64), (1, 1), (3, 8), (8, 3)]


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_columns_are_orthonormal_and_rows_are_if_the_matrix_is_wide(form):
    with backend.use(form):
        found = jax.jit(lambda key: orthogonal(key, SHAPES))(jax.random.key(0))
    for matrix, shape in zip(found, SHAPES, strict=True):
        assert matrix.shape == shape
        tall = np.float64(matrix if shape[0] >= shape[1] else matrix.T)
        np.testing.assert_allclose(tall.T @ tall, np.eye(min(shape)), atol=1e-5)


@pytest.mark.parametrize("form", ["plain", "cpu"])
def test_matrices_of_one_call_are_draws_of_their_own(form):
    with backend.use(form):
        found = jax.jit(lambda key: orthogonal(key, [(6, 3)] * 4 + [(3, 6)]))(jax.random.key(1))
    tall = [np.asarray(m) if m.shape[0] == 6 else np.asarray(m).T for m in found]
    for i, a in enumerate(tall):
        for b in tall[:i]:
            assert np.abs(a - b).max() > 0.1
            assert np.abs(a + b).max() > 0.1


@pytest.mark.parametrize("form", ["plain", "cpu"])
def test_every_entry_has_the_law_of_a_uniform_matrix(form):
    """An entry x of a uniform orthogonal matrix of size n: (x + 1) / 2 is Beta((n - 1) / 2)."""
    n = 5

    def many(key):
        return jax.vmap(lambda key: orthogonal(key, [(n, 3)])[0])(jax.random.split(key, 1000))

    with backend.use(form):
        found = np.asarray(jax.jit(many)(jax.random.key(2)))
    law = stats.beta((n - 1) / 2, (n - 1) / 2)
    for i, j in ((0, 0), (4, 2), (2, 1)):
        assert stats.kstest((found[:, i, j] + 1.0) / 2.0, law.cdf).pvalue > 1e-3
    np.testing.assert_allclose(found.mean(0), 0.0, atol=4.5 / np.sqrt(n * 1000))


def test_a_polar_factor_is_the_nearest_orthonormal_matrix():
    """U V' of the singular value decomposition, for condition numbers up to some hundreds."""
    with jax.enable_x64(True):
        x = np.random.default_rng(3).normal(size=(20, 8, 8))
        found = jax.jit(polar_factors)(jnp.asarray(x))
        left, _, right = np.linalg.svd(x)
        np.testing.assert_allclose(found, left @ right, atol=1e-6)
