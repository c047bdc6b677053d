"""Environments as pictures."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.envs import registration, render


def test_classic_control_is_drawn_without_pygame():
    for name in ("CartPole-v1", "Pendulum-v1", "MountainCar-v0", "Acrobot-v1"):
        environment = registration.make(name)
        _, state = environment.reset(jax.random.key(0), environment.default_params)
        picture = environment.render(state, environment.default_params)
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert picture.shape[0] % 16 == 0
        assert picture.shape[1] % 16 == 0
    assert "pygame" not in sys.modules


def test_the_drawn_cart_moves_right_with_its_position():
    environment = registration.make("CartPole-v1")
    params = environment.default_params
    _, state = environment.reset(jax.random.key(0), params)

    def cart_column(x):
        picture = environment.render(state.replace(x=jnp.float32(x)), params).astype(int)
        return np.mean(np.nonzero(picture.sum(-1) < 250)[1])  # the cart is the darkest thing

    width = 480
    for x in (-1.0, 0.0, 1.5):
        expected = (x + 1.1 * 2.4) / (2.2 * 2.4) * width
        assert cart_column(x) == pytest.approx(expected, abs=5)


def test_a_grid_is_drawn_with_a_colour_per_channel():
    environment = registration.make("Catch-bsuite")
    _, state = environment.reset(jax.random.key(0), environment.default_params)
    picture = environment.render(state, environment.default_params)
    cell = picture.shape[0] // 10
    lit = picture[cell // 2 :: cell, cell // 2 :: cell].max(-1) > 100
    assert lit.sum() == 2
    assert lit[9, 2]


def test_a_class_that_shows_a_grid_without_a_method_for_it_has_no_picture():
    from gymnax.environments import environment

    base = environment.Environment
    legacy = type("Legacy", (base,), {"get_obs": lambda self, state, params, key: state})
    keyed = type("Keyed", (base,), {"observe": lambda self, key, state, action, params: state})
    for kind, has_picture in ((base, False), (legacy, True), (keyed, True)):
        assert (render.renderer(object.__new__(kind), (5, 5, 2)) is not None) == has_picture
