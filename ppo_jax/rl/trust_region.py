"""The largest step that a quadratic model of a divergence allows, without use of policies.

All functions work on flat vectors [P]. A *product* is a function v -> F v with a symmetric positive
semi-definite matrix F that is never formed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.rl.types import PyTree

Product = Callable[[Array], Array]
dot = partial(jnp.dot, precision="highest")  # a GPU or TPU must not round its factors


def conjugate_gradient(
    product: Product, target: Array, num_iterations: int, tolerance: float = 1e-10
) -> tuple[Array, Array]:
    """Solve F x = target in at most `num_iterations` steps from 0 (Hestenes and Stiefel 1952).

    The number of iterations is fixed. x stops changing once the squared residual is below
    `tolerance` times the initial one, separately for each member of a `vmap`.

    Args:
        product: v -> F v. target: [P].

    Returns:
        x, and F x as a sum of the products that were taken anyway.
    """
    floor = tolerance * dot(target, target)

    def step(carry: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
        x, image_of_x, residual, direction, square = carry
        image = product(direction)
        curvature = dot(direction, image)
        is_open = (square > floor) & (curvature > 0.0)
        length = jnp.where(is_open, square / jnp.where(is_open, curvature, 1.0), 0.0)
        x = x + length * direction
        image_of_x = image_of_x + length * image
        residual = residual - length * image
        square_new = dot(residual, residual)
        turn = jnp.where(is_open, square_new / jnp.where(square > 0.0, square, 1.0), 0.0)
        direction = jnp.where(is_open, residual + turn * direction, direction)
        square = jnp.where(is_open, square_new, square)
        return (x, image_of_x, residual, direction, square), None

    zero = jnp.zeros_like(target)
    start = (zero, zero, target, target, dot(target, target))
    (x, image_of_x, *_), _ = jax.lax.scan(step, start, length=num_iterations)
    return x, image_of_x


def gauss_newton_product(
    outer: Callable[[PyTree], Array], inner: Callable[[Array], PyTree], at: Array
) -> Product:
    """v -> J' H J v with J the Jacobian of `inner` at `at`, and H the Hessian of `outer` there.

    If `outer` has no slope at inner(at), this is the whole Hessian of outer(inner(x)) (Martens
    2020, section 8.1). For the mean KL[pi_old || pi_theta] at theta_old it is the Fisher matrix. It
    takes five matrix products per layer; the whole Hessian takes nine.
    """
    point, push = jax.linearize(inner, at)
    pull = jax.linear_transpose(push, at)

    def product(v: Array) -> Array:
        slope = jax.jvp(jax.grad(outer), (point,), (push(v),))[1]
        return pull(slope)[0]

    return product


def natural_step(
    product: Product, gradient: Array, radius: Array | float, num_iterations: int
) -> Array:
    """The step s along F^-1 g with (1/2) s' F s = radius  (Schulman et al. 2015, appendix C).

    s = sqrt(2 radius / (x' F x)) x, x = F^-1 g. It is 0 if the gradient is.

    Args:
        product: v -> F v. gradient: [P], of the function to be *increased*. radius: the bound
            delta.
    """
    direction, image = conjugate_gradient(product, gradient, num_iterations)
    square = dot(direction, image)
    is_usable = square > 0.0
    length = jnp.sqrt(2.0 * radius / jnp.where(is_usable, square, 1.0))
    return jnp.where(is_usable, length, 0.0) * direction


class Search(NamedTuple):
    """Result of a line search."""

    params: Array  # [P], the start if nothing was accepted
    fraction: Array  # [], of the full step; 0 if nothing was accepted
    gain: Array  # [], of the objective
    divergence: Array  # []


def backtrack(
    measure: Callable[[Array], tuple[Array, Array]],
    start: Array,
    full_step: Array,
    radius: Array | float,
    shrink: float = 0.8,
    num_trials: int = 10,
) -> Search:
    """Find the first start + shrink^k full_step, k = 0, 1, ..., that gains and stays in the radius.

    Args:
        measure: params [P] -> (gain over the start, divergence from it), scalars.
        radius: the bound delta on the divergence.
        shrink, num_trials: sb3-contrib's defaults; Schulman's code shrinks by 0.5.
    """

    def is_searching(loop: tuple[Array, Search, Array]) -> Array:
        trial, _, is_found = loop
        return (trial < num_trials) & ~is_found

    def attempt(loop: tuple[Array, Search, Array]) -> tuple[Array, Search, Array]:
        trial, last, _ = loop
        fraction = shrink ** trial.astype(start.dtype)
        params = start + fraction * full_step
        gain, divergence = measure(params)
        is_good = (gain > 0.0) & (divergence <= radius)  # False for NaN
        found = Search(params, fraction, gain, divergence)
        kept = jax.tree.map(lambda new, old: jnp.where(is_good, new, old), found, last)
        return trial + 1, kept, is_good

    zero = jnp.zeros((), start.dtype)
    nothing = Search(start, zero, zero, zero)
    first = (jnp.zeros((), jnp.int32), nothing, jnp.zeros((), bool))
    return jax.lax.while_loop(is_searching, attempt, first)[1]
