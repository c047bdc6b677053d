"""Adam in its forms against optax's, step by step."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from ppo_jax.kernels import backend
from ppo_jax.kernels.adam import adam

RATE, EPSILON = 0.02, 1e-5
START = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.zeros(2)}
FLAT, RESTORE = ravel_pytree(START)


def walk(transformation: optax.GradientTransformation) -> tuple:
    """Parameters and state after five gradients of very different sizes."""
    params, state = START, transformation.init(START)
    for i in range(5):
        rng = np.random.default_rng(i)
        flat = rng.normal(size=8) * 10.0 ** rng.normal(size=8)
        gradient = RESTORE(jnp.asarray(flat, jnp.float32))
        updates, state = transformation.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_steps_and_state_are_those_of_optax(form):
    expected, expected_state = walk(optax.adam(RATE, eps=EPSILON))
    with backend.use(form):
        params, state = jax.jit(lambda: walk(adam(RATE, EPSILON)))()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), params, expected
    )
    found = state if hasattr(state, "mu") else state[0]
    for name in ("count", "mu", "nu"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9),
            getattr(found, name),
            getattr(expected_state[0], name),
        )


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_one_vector_takes_the_steps_of_its_leaves(form):
    gradient = jax.tree.map(lambda leaf: jnp.cos(leaf) + 0.1, START)
    with backend.use(form):
        transformation = adam(RATE, EPSILON)
        by_leaf, _ = transformation.update(gradient, transformation.init(START))
        vector = ravel_pytree(gradient)[0]
        updates, _ = transformation.update(vector, transformation.init(FLAT))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=3e-7), RESTORE(updates), by_leaf)


def test_rate_and_epsilon_may_be_traced():
    def step(rate, epsilon):
        transformation = adam(rate, epsilon)
        return transformation.update(jnp.array([3.0, -4.0]), transformation.init(jnp.zeros(2)))[0]

    rates, epsilons = jnp.array([0.1, 1.0]), jnp.array([0.0, 1.0])
    found = jax.jit(jax.vmap(step))(rates, epsilons)
    # the first step is -rate g / (|g| + epsilon)
    np.testing.assert_allclose(found, [[-0.1, 0.1], [-0.75, 0.8]], rtol=1e-5)
