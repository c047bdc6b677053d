"""Optimiser steps: Adam by hand, and every row of the table against optax used by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from numpy_adam import numpy_adam

from ppo_jax.config.config import OPTIMIZERS as NAMES
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.kernels import backend
from ppo_jax.training.optimizer import (
    OPTIMIZERS,
    find_optimizer,
    flatten,
    init_optimizer,
    optimizer_step,
)

ADAM = Config()


def first(hyper: Hyper, params: Any, gradient: Any, config: Config = ADAM) -> tuple:
    """(params, state, norm) after one step from a fresh state."""
    return optimizer_step(config, hyper, params, init_optimizer(config, hyper, params), gradient)


# Adam ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("max_grad_norm", [0.5, 2.0, math.inf])
def test_three_adam_steps_by_hand(max_grad_norm: float) -> None:
    """The gradients' norms are 5, 0.13 and sqrt(2), some clipped and some not."""
    hyper = Hyper(learning_rate=0.1, max_grad_norm=max_grad_norm, adam_epsilon=1e-3)
    gradients = np.array([[3.0, -4.0], [0.12, 0.05], [-1.0, 1.0]])
    params = jnp.array([1.0, -2.0])
    state = init_optimizer(ADAM, hyper, params)
    for gradient in gradients:
        params, state, norm = optimizer_step(ADAM, hyper, params, state, jnp.asarray(gradient))
        assert float(norm) == pytest.approx(np.linalg.norm(gradient), abs=1e-12)
    by_hand = numpy_adam(np.array([1.0, -2.0]), [lambda _, g=g: g for g in gradients], hyper)
    np.testing.assert_allclose(params, by_hand, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_the_first_step_in_numbers() -> None:
    """Gradient (3, -4), norm 5, bound 1: (0.6, -0.8). Adam's first step is g / (|g| + eps).

    With eps = 0.2 and learning rate 1: 0.6 / 0.8 = 0.75 and -0.8 / 1 = -0.8.
    """
    hyper = Hyper(learning_rate=1.0, max_grad_norm=1.0, adam_epsilon=0.2)
    params, _, norm = first(hyper, jnp.zeros(2), jnp.array([3.0, -4.0]))
    np.testing.assert_allclose(params, [-0.75, 0.8], atol=1e-10)
    assert float(norm) == 5.0


@pytest.mark.usefixtures("double")
def test_the_norm_is_clipped_as_a_whole_so_that_directions_stay() -> None:
    """An elementwise clip would make both coordinates equal."""
    _, state, _ = first(
        Hyper(learning_rate=3e-4, max_grad_norm=0.1), jnp.zeros(2), jnp.array([1.0, 20.0])
    )
    mu = np.asarray(state.mu)
    assert mu[1] / mu[0] == pytest.approx(20.0)
    assert np.linalg.norm(mu / 0.1) == pytest.approx(0.1)


def test_an_infinite_norm_bound_is_no_clipping_bit_for_bit() -> None:
    gradients = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32) * 100
    params = plain = jnp.ones(50)
    hyper = Hyper(learning_rate=3e-4, max_grad_norm=math.inf)
    state = init_optimizer(ADAM, hyper, params)
    adam = optax.scale_by_adam(eps=1e-5)
    plain_state = adam.init(plain)
    for gradient in gradients:
        params, state, _ = optimizer_step(ADAM, hyper, params, state, jnp.asarray(gradient))
        update, plain_state = adam.update(jnp.asarray(gradient), plain_state)
        plain = plain - 3e-4 * update
    np.testing.assert_array_equal(params, plain)


def test_a_zero_gradient_moves_nothing() -> None:
    zeros, ones = jnp.zeros(3), jnp.ones(3)
    for bound in (0.5, math.inf):
        params, _, norm = first(Hyper(learning_rate=3e-4, max_grad_norm=bound), ones, zeros)
        np.testing.assert_array_equal(params, 1.0)
        assert float(norm) == 0.0


# The table ----------------------------------------------------------------------------------------

HYPER = Hyper(
    learning_rate=0.03,
    adam_epsilon=1e-3,
    weight_decay=0.2,
    momentum=0.8,
    rmsprop_decay=0.95,
    max_grad_norm=math.inf,
)
BY_OPTAX = {
    "adam": optax.adam(0.03, eps=1e-3),
    "adamw": optax.adamw(0.03, eps=1e-3, weight_decay=0.2),
    "rmsprop": optax.rmsprop(0.03, decay=0.95, eps=1e-3, initial_scale=1.0),
    "rmsprop_torch": optax.rmsprop(0.03, decay=0.95, eps=1e-3, eps_in_sqrt=False),
    "sgd": optax.sgd(0.03, momentum=0.8),
    "muon": optax.contrib.muon(0.03, beta=0.8, weight_decay=0.2),
}


def start() -> dict[str, jax.Array]:
    return {"b": jnp.array([0.5, -0.5, 0.1]), "w": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)}


def gradient_at(params: Any) -> Any:
    """Gradient of a bowl of very different curvatures, so that optimisers differ."""
    flat, restore = ravel_pytree(params)
    return restore(flat * jnp.geomspace(0.01, 10.0, flat.size) + 0.1 * jnp.cos(3.0 * flat))


def walk(config: Config, hyper: Hyper, num_steps: int = 4) -> Any:
    """Parameters as a tree after some steps."""
    params, restore = flatten(config, start())
    state = init_optimizer(config, hyper, start())
    for _ in range(num_steps):
        gradient, _ = flatten(config, gradient_at(restore(params)))
        params, state, _ = optimizer_step(config, hyper, params, state, gradient)
    return restore(params)


@pytest.mark.parametrize(
    "name, mean_square, scale",
    [
        # torch.optim.RMSprop: square_avg from 0, avg = square_avg.sqrt().add_(eps).
        ("rmsprop_torch", 0.0, lambda mean: np.sqrt(mean) + 1e-3),
        # Stable-Baselines3's RMSpropTFLike: square_avg from 1, avg = square_avg.add_(eps).sqrt_().
        ("rmsprop", 1.0, lambda mean: np.sqrt(mean + 1e-3)),
    ],
)
@pytest.mark.usefixtures("double")
def test_rmsprop_is_the_formula_of_its_source_by_hand(
    name: str, mean_square: float, scale: Callable[[Any], Any]
) -> None:
    config = Config(optimizer=name)
    x = np.array([0.5, -2.0, 1e-3])
    params = jnp.asarray(x)
    state = init_optimizer(config, HYPER, params)
    mean = np.full(3, mean_square)
    for step in range(5):
        gradient = np.sin(7.0 * x + step) * [1.0, 30.0, 1e-4]
        mean = 0.95 * mean + 0.05 * gradient**2
        x = x - 0.03 * gradient / scale(mean)
        params, state, _ = optimizer_step(config, HYPER, params, state, jnp.asarray(gradient))
    np.testing.assert_allclose(params, x, rtol=1e-6)


def test_the_table_has_a_row_for_every_name_and_no_other() -> None:
    assert set(OPTIMIZERS) == set(NAMES) == set(BY_OPTAX)


@pytest.mark.parametrize("name", BY_OPTAX)
def test_every_optimiser_takes_the_steps_of_optax_used_by_hand(name: str) -> None:
    expected, state = start(), BY_OPTAX[name].init(start())
    for _ in range(4):
        updates, state = BY_OPTAX[name].update(gradient_at(expected), state, expected)
        expected = optax.apply_updates(expected, updates)
    found = jax.jit(lambda: walk(Config(optimizer=name), HYPER))()
    for key, leaf in expected.items():
        np.testing.assert_allclose(found[key], leaf, rtol=1e-5, atol=1e-6)
    others = [jax.jit(lambda o=o: walk(Config(optimizer=o), HYPER))() for o in NAMES if o != name]
    for other in others:  # the comparison can fail
        assert max(float(jnp.abs(other[k] - found[k]).max()) for k in found) > 1e-3


@pytest.mark.parametrize("name", BY_OPTAX)
def test_every_optimiser_sees_the_gradient_bounded_in_norm(name: str) -> None:
    """A bound of 0.05 is a gradient that was scaled before: the state is the same."""
    config, params = Config(optimizer=name), start()
    flat, _ = flatten(config, params)
    gradient, _ = flatten(config, gradient_at(params))
    norm = float(optax.tree.norm(gradient))
    assert norm > 0.05
    bounded = Hyper(**{**vars(HYPER), "max_grad_norm": 0.05})
    scaled = jax.tree.map(lambda leaf: leaf * (0.05 / norm), gradient)
    found = first(bounded, flat, gradient, config)
    expected = first(HYPER, flat, scaled, config)
    for a, b in zip(jax.tree.leaves(found[:2]), jax.tree.leaves(expected[:2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert float(found[2]) == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("name", BY_OPTAX)
def test_an_update_that_is_not_active_moves_neither_parameters_nor_state(name: str) -> None:
    config = Config(optimizer=name)
    flat, _ = flatten(config, start())
    gradient, _ = flatten(config, gradient_at(start()))
    state = init_optimizer(config, HYPER, start())
    resting = optimizer_step(config, HYPER, flat, state, gradient, jnp.zeros((), bool))
    jax.tree.map(np.testing.assert_array_equal, resting[:2], (flat, state))
    moved = optimizer_step(config, HYPER, flat, state, gradient, jnp.ones((), bool))
    always = optimizer_step(config, HYPER, flat, state, gradient)
    jax.tree.map(np.testing.assert_array_equal, moved, always)
    assert float(optax.tree.norm(optax.tree.sub(moved[0], flat))) > 1e-3


def test_adams_moments_are_updated_in_place_on_a_cpu() -> None:
    """A loop of steps once copied both moments at every step, 4% of a small run's time."""
    params = jnp.ones(4096)

    def step(carry: tuple, x: jax.Array) -> tuple[tuple, jax.Array]:
        params, state, active = carry
        gradient = jnp.tanh(params * x)
        params, state, norm = optimizer_step(ADAM, HYPER, params, state, gradient, active)
        return (params, state, active & (norm < 1e6)), norm

    with backend.use("cpu"):
        carry = (params, init_optimizer(ADAM, HYPER, params), jnp.array(True))
        run = jax.jit(lambda carry, xs: jax.lax.scan(step, carry, xs))
        program = run.lower(carry, jnp.ones(8)).compile().as_text()
    in_loop = [line for line in program.splitlines() if "copy(%get-tuple-element" in line]
    assert [line for line in in_loop if "f32[4096]" in line] == []


@pytest.mark.parametrize("name", BY_OPTAX)
def test_every_number_of_an_optimiser_may_be_a_vmap_axis(name: str) -> None:
    rates, decays = jnp.array([0.01, 0.1]), jnp.array([0.5, 0.0])

    def member(rate: jax.Array, decay: jax.Array) -> Any:
        hyper = Hyper(**{**vars(HYPER), "learning_rate": rate, "weight_decay": decay})
        return walk(Config(optimizer=name), hyper, num_steps=2)

    both = jax.jit(jax.vmap(member))(rates, decays)
    for i in range(2):
        alone = jax.jit(member)(rates[i], decays[i])
        for key in alone:
            np.testing.assert_allclose(both[key][i], alone[key], rtol=1e-4, atol=1e-5)


def test_a_vector_is_for_optimisers_that_treat_each_number_by_itself() -> None:
    for name in NAMES:
        params, restore = flatten(Config(optimizer=name), start())
        is_vector = isinstance(params, jax.Array)
        assert is_vector == (name != "muon")
        jax.tree.map(np.testing.assert_array_equal, restore(params), start())


def test_muon_moves_matrices_by_orthogonal_steps_and_vectors_by_adams() -> None:
    """All singular values of a step are similar, for any gradient.

    Muon's Newton-Schulz iteration leaves them between 0.7 and 1.2.
    """
    hyper = Hyper(learning_rate=1.0, max_grad_norm=math.inf)
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    right, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    matrix = left[:, :4] @ np.diag([5.0, 1.0, 0.5, 0.2]) @ right
    gradient = {"b": jnp.array([3.0, -0.01]), "w": jnp.asarray(matrix, jnp.float32)}
    params = jax.tree.map(jnp.zeros_like, gradient)
    moved, _, _ = first(hyper, params, gradient, Config(optimizer="muon"))
    step = -np.asarray(moved["w"], np.float64)
    values = np.linalg.svd(step, compute_uv=False)
    assert values.min() > 0.65
    assert values.max() < 1.25
    polar = left[:, :4] @ right
    assert np.sum(step * polar) / np.linalg.norm(step) / np.linalg.norm(polar) > 0.98
    # Vectors use Adam in Nesterov's form: signs, times 1 + 0.9 (1 - 0.9) / (1 - 0.9^2).
    np.testing.assert_allclose(moved["b"], [-1.473684, 1.473684], rtol=1e-4)


# A user's own -------------------------------------------------------------------------------------


def own_optimizer(hyper: Hyper) -> optax.GradientTransformation:
    return optax.lion(hyper.learning_rate)


def no_optimizer(hyper: Hyper) -> float:
    return hyper.learning_rate


@pytest.mark.parametrize(
    "own", [own_optimizer, f"{__name__}:own_optimizer"], ids=["object", "name"]
)
def test_ones_own_optimiser_works_on_the_tree_of_parameters(own: Any) -> None:
    expected, lion = start(), optax.lion(0.03)
    state = lion.init(expected)
    for _ in range(4):
        updates, state = lion.update(gradient_at(expected), state, expected)
        expected = optax.apply_updates(expected, updates)
    config = Config(optimizer=own)
    assert not find_optimizer(config).is_elementwise
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), walk(config, HYPER), expected
    )


@pytest.mark.parametrize(
    "wrong", [no_optimizer, f"{__name__}:no_optimizer"], ids=["object", "name"]
)
def test_what_makes_no_optax_transformation_is_refused_with_a_sentence(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"returns float where an optax transformation is needed"):
        init_optimizer(Config(optimizer=wrong), Hyper(learning_rate=3e-4), start())


def test_a_name_that_cannot_be_loaded_is_refused() -> None:
    with pytest.raises(InputError, match="Nearest: own_optimizer"):
        find_optimizer(Config(optimizer=f"{__name__}:own_optimiser"))
