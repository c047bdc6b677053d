"""The layers' product against jax's own, with derivatives of first and second order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.kernels.matmul import FEW_COLUMNS, LAST_BY_FIRST, dot_general

ROWS = 96


MANY = FEW_COLUMNS + 1


@pytest.fixture(scope="module", params=[1, 2, FEW_COLUMNS, MANY], ids="{} outputs".format)
def given(request):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((ROWS, 5), (5, request.param), (ROWS, request.param))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def ours(x, kernel, weights):
    return jnp.sum(weights * jnp.tanh(dot_general(x, kernel, LAST_BY_FIRST)))


def plain(x, kernel, weights):
    return jnp.sum(weights * jnp.tanh(jnp.matmul(x, kernel)))


def test_the_product_is_that_of_matmul(given):
    x, kernel, _ = given
    found = dot_general(x, kernel, LAST_BY_FIRST)
    np.testing.assert_allclose(found, jnp.matmul(x, kernel), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("argument", [0, 1])
def test_its_gradients_are_those_of_matmul(given, argument):
    found, expected = (jax.jit(jax.grad(f, argument))(*given) for f in (ours, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_hessian_vector_product_is_that_of_matmul(given):
    x, kernel, weights = given
    direction = jnp.ones_like(kernel)

    def hessian_product(f):
        gradient = jax.grad(lambda k: f(x, k, weights))
        return jax.jit(lambda: jax.jvp(gradient, (kernel,), (direction,))[1])()

    np.testing.assert_allclose(hessian_product(ours), hessian_product(plain), rtol=1e-4, atol=1e-4)


def test_members_side_by_side_have_their_own_gradients(given):
    x, kernel, weights = given
    kernels = jnp.stack([kernel, 2.0 * kernel, -kernel])
    each = jax.jit(jax.vmap(jax.grad(ours, 1), (None, 0, None)))(x, kernels, weights)
    for found, own in zip(each, kernels, strict=True):
        expected = jax.grad(plain, 1)(x, own, weights)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_kernel_transposes_the_rows_first():
    """What it is there for: no product that is left contracts the rows of both its factors."""
    shapes = ((ROWS, 5), (5, MANY), (ROWS, MANY))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def contracted(f):
        text = jax.jit(jax.grad(f, 1)).lower(*shapes).as_text()
        return "contracting_dims = [0] x [0]" in text

    assert contracted(plain)
    assert not contracted(ours)
