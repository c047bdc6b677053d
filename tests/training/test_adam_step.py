"""One step of Adam on the clipped gradient, by hand, in numbers and beside optax."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy_adam import numpy_adam

from ppo_jax.config.config import Hyper
from ppo_jax.training import update as improve


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("max_grad_norm", [0.5, 2.0, math.inf])
def test_three_adam_steps_by_hand(max_grad_norm: float) -> None:
    """The gradients' norms are 5, 0.13 and sqrt(2): clipped or not in turn."""
    hyper = Hyper(learning_rate=0.1, max_grad_norm=max_grad_norm, adam_epsilon=1e-3)
    gradients = np.array([[3.0, -4.0], [0.12, 0.05], [-1.0, 1.0]])
    params = jnp.array([1.0, -2.0])
    state = improve.init_optimiser(params)
    for gradient in gradients:
        params, state, norm = improve.adam_step(hyper, params, state, jnp.asarray(gradient))
        assert float(norm) == pytest.approx(np.linalg.norm(gradient), abs=1e-12)
    by_hand = numpy_adam(np.array([1.0, -2.0]), [lambda _, g=g: g for g in gradients], hyper)
    np.testing.assert_allclose(params, by_hand, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_the_first_step_in_numbers() -> None:
    """Gradient (3, -4), norm 5, bound 1: (0.6, -0.8). Adam's first step is g / (|g| + eps).

    With eps = 0.2 and learning rate 1: 0.6 / 0.8 = 0.75 and -0.8 / 1 = -0.8.
    """
    hyper = Hyper(learning_rate=1.0, max_grad_norm=1.0, adam_epsilon=0.2)
    zeros = jnp.zeros(2)
    params, _, norm = improve.adam_step(
        hyper, zeros, improve.init_optimiser(zeros), jnp.array([3.0, -4.0])
    )
    np.testing.assert_allclose(params, [-0.75, 0.8], atol=1e-10)
    assert float(norm) == 5.0


@pytest.mark.usefixtures("double")
def test_the_norm_is_clipped_as_a_whole_so_that_directions_stay() -> None:
    """An elementwise clip would make both coordinates equal."""
    hyper = Hyper(max_grad_norm=0.1)
    zeros = jnp.zeros(2)
    _, state, _ = improve.adam_step(
        hyper, zeros, improve.init_optimiser(zeros), jnp.array([1.0, 20.0])
    )
    mu = np.asarray(state.mu)
    assert mu[1] / mu[0] == pytest.approx(20.0)
    assert np.linalg.norm(mu / 0.1) == pytest.approx(0.1)


def test_an_infinite_norm_bound_is_no_clipping_bit_for_bit() -> None:
    gradients = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32) * 100
    params = plain = jnp.ones(50)
    state = improve.init_optimiser(params)
    adam = optax.scale_by_adam(eps=1e-5)
    plain_state = adam.init(plain)
    for gradient in gradients:
        params, state, _ = improve.adam_step(Hyper(max_grad_norm=math.inf), params, state, gradient)
        update, plain_state = adam.update(jnp.asarray(gradient), plain_state)
        plain = plain - 3e-4 * update
    np.testing.assert_array_equal(params, plain)


def test_a_zero_gradient_moves_nothing() -> None:
    zeros, ones = jnp.zeros(3), jnp.ones(3)
    for bound in (0.5, math.inf):
        hyper = Hyper(max_grad_norm=bound)
        params, _, norm = improve.adam_step(hyper, ones, improve.init_optimiser(ones), zeros)
        np.testing.assert_array_equal(params, 1.0)
        assert float(norm) == 0.0
