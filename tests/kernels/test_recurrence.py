"""Linear recurrences against loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.kernels import backend
from ppo_jax.kernels.recurrence import linear_recurrence


def loop(decay, x, reverse):
    """The recurrence by its definition, one step after the other."""
    y, found = np.zeros_like(x[0]), np.zeros_like(x)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        y = x[t] + decay[t] * y
        found[t] = y
    return found


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (7,), (16, 3), (37, 2, 2)])
def test_a_linear_recurrence_is_its_loop(shape, reverse, form):
    rng = np.random.default_rng(0)
    decay, x = rng.uniform(0.0, 1.0, shape), rng.normal(size=shape)
    with jax.enable_x64(True), backend.use(form):
        found = linear_recurrence(jnp.asarray(decay), jnp.asarray(x), reverse=reverse)
    np.testing.assert_allclose(found, loop(decay, x, reverse), rtol=1e-12, atol=1e-12)


def test_three_steps_by_hand():
    """y = 1, 2 + y / 2, 3 + 0; backwards 3, 2 + 3 / 2, 1 + 4 * 3.5."""
    decay, x = jnp.array([4.0, 0.5, 0.0]), jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(linear_recurrence(decay, x), [1.0, 2.5, 3.0])
    np.testing.assert_array_equal(linear_recurrence(decay, x, reverse=True), [15.0, 3.5, 3.0])
