"""The layers' product against JAX's, with derivatives; rows that are stored as columns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import jit

from ppo_jax.kernels import backend
from ppo_jax.kernels.matmul import (
    FEW_COLUMNS,
    LAST_BY_FIRST,
    affine,
    convolution,
    dot_general,
    from_columns,
    tanh,
    to_columns,
)

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
    """The purpose of the rule: no remaining product contracts the rows of both its factors."""
    shapes = ((ROWS, 5), (5, MANY), (ROWS, MANY))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def contracted(f):
        with backend.use("cpu"):
            text = jax.jit(jax.grad(f, 1)).lower(*shapes).as_text()
        return "contracting_dims = [0] x [0]" in text

    assert contracted(plain)
    assert not contracted(ours)


# Layers of an accelerator -------------------------------------------------------------------------


def network(params, x, form):
    """Layers of few inputs, of many of both, and of few outputs, behind a convolution."""
    with backend.use(form):
        kernel, bias, *rest = params
        x = tanh(convolution(x, kernel, bias))[:, 0, 0]
        for kernel, bias in zip(rest[::2], rest[1::2], strict=True):
            x = tanh(affine(x, kernel, bias))
        return x


@pytest.fixture(scope="module")
def layers():
    shapes = [(2, 2, 1, 3), (3,), (3, MANY), (MANY,), (MANY, MANY), (MANY,), (MANY, 2), (2,)]
    rng = np.random.default_rng(1)
    params = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    return params, rng.normal(size=(ROWS, 2, 2, 1)).astype(np.float32)


def test_derivatives_of_an_accelerators_layers_are_those_of_the_plain_ones(layers):
    """Forward, backward, and the product J' J v of a natural gradient; a kernel may be frozen."""
    params, x = layers

    def derivatives(form):
        def of(params):
            return network(params, x, form)

        def fisher(params, v):
            _, push = jax.linearize(of, params)
            return jax.linear_transpose(push, params)(push(v))[0]

        frozen = [jax.lax.stop_gradient(leaf) if i % 2 else leaf for i, leaf in enumerate(params)]
        by_rows = jax.grad(lambda x: jnp.sum(network(params, x, form) ** 2))
        members = jax.vmap(lambda v: fisher(params, v))([jnp.stack([v, 2.0 * v]) for v in params])
        return jax.jvp(of, (params,), (frozen,))[1], members, by_rows(x)

    found, expected = (jax.jit(lambda form=form: derivatives(form))() for form in ("gpu", "plain"))
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(b).max()))


def test_an_accelerator_writes_patches_of_booleans_as_booleans_and_calls_no_convolution(layers):
    x = jax.ShapeDtypeStruct((ROWS, 2, 2, 1), jnp.bool_)
    text = jax.jit(lambda x: network(layers[0], x, "gpu")).lower(x).as_text()
    assert "stablehlo.convolution" not in text
    assert f"tensor<{ROWS}x1x1x5xi1>" in text


# Columns ------------------------------------------------------------------------------------------


@pytest.fixture(params=[1, 2, 7], ids="{} columns".format)
def rows(request):
    return jax.random.normal(jax.random.key(0), (ROWS, request.param))


def there_and_back(x):
    return from_columns(to_columns(x))


def test_columns_are_the_transpose(rows):
    np.testing.assert_array_equal(jit(to_columns)(rows), rows.T)


def test_there_and_back_every_number_is_in_its_place(rows):
    np.testing.assert_array_equal(jit(there_and_back)(rows), rows)


def test_columns_of_members_side_by_side_are_their_own(rows):
    members = jnp.stack([rows, -rows, 3.0 * rows])
    np.testing.assert_array_equal(jit(jax.vmap(there_and_back))(members), members)


def test_a_gradient_comes_back_through_columns_the_same_way(rows):
    weights = jnp.arange(rows.size, dtype=rows.dtype).reshape(rows.shape)
    gradient = jit(jax.grad(lambda x: jnp.sum(weights * there_and_back(x))))(rows)
    np.testing.assert_array_equal(gradient, weights)


def test_a_program_for_any_number_of_rows_can_be_stored():
    rows = jax.export.symbolic_shape("rows")[0]
    shape = jax.ShapeDtypeStruct((3, rows), jnp.float32)
    exported = jax.export.export(jax.jit(from_columns))(shape)
    stored = jax.export.deserialize(exported.serialize())
    x = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(stored.call(x), x.T)
