"""Work on some rows: fresh rows for those that are masked, and values of those alone."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppo_jax.kernels import backend, select

FRESH = 1000.0
NUM_ROWS = 64


def draw(key):
    """A row of two leaves: the mark of a fresh row, and its name."""
    return {"mark": jnp.float32(FRESH), "name": jax.random.uniform(key, (1,))}


def old_rows(num_rows):
    return {"mark": jnp.full(num_rows, -1.0), "name": jnp.full((num_rows, 1), -1.0)}


def refilled(mask, key=0, form="cpu", t=0, num_steps=3):
    """The rows after `refill` of step t, in one form."""
    mask = jnp.asarray(mask)

    def run(mask, key):
        xs, refill = select.make_refill(key, num_steps, mask.shape[0])
        x = jax.tree.map(lambda leaf: leaf[t], xs)
        return refill(x, t, mask, draw, old_rows(mask.shape[0]))

    with backend.use(form):
        return jax.device_get(jax.jit(run)(mask, jax.random.key(key)))


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
@pytest.mark.parametrize("num_masked", [0, 1, 7, 8, 9, 63, 64])
def test_whatever_is_masked_gets_a_row_of_its_own_and_nothing_else_does(num_masked, form):
    """A CPU has pools of 8 for 64 rows: 9 masked rows need a second pool."""
    mask = np.zeros(NUM_ROWS, bool)
    mask[np.random.default_rng(num_masked).permutation(NUM_ROWS)[:num_masked]] = True
    rows = refilled(mask, form=form)
    np.testing.assert_array_equal(rows["mark"], np.where(mask, FRESH, -1.0))
    assert (rows["name"][~mask] == -1.0).all()
    assert len(set(rows["name"][mask, 0])) == num_masked
    assert ((rows["name"][mask] >= 0.0) & (rows["name"][mask] < 1.0)).all()


@pytest.mark.parametrize("form", ["plain", "cpu"])
def test_the_ith_fresh_row_of_a_step_draws_from_the_key_of_its_number(form):
    mask = np.random.default_rng(0).random(NUM_ROWS) < 0.4
    for t in (0, 2):
        rows = refilled(mask, key=5, form=form, t=t)
        for i, row in enumerate(np.flatnonzero(mask)):
            key = jax.random.fold_in(jax.random.key(5), t * NUM_ROWS + i)
            assert rows["name"][row, 0] == draw(key)["name"][0]


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_rows_of_different_steps_are_different_draws(form):
    names = [refilled(np.ones(8, bool), form=form, t=t)["name"][:, 0] for t in range(3)]
    assert len(set(np.concatenate(names))) == 24


@pytest.mark.parametrize("form", ["cpu", "gpu"])
def test_fresh_rows_have_the_distribution_of_the_draw(form):
    """2,048 names follow the uniform law, without correlation of neighbours or pools."""
    name = refilled(np.ones(2048, bool), key=1, form=form)["name"][:, 0]
    assert stats.kstest(name, "uniform").pvalue > 1e-3
    for lag in (1, 2048 // 8):
        # independent: the correlation of n pairs has standard error 1 / sqrt(n)
        correlation = np.corrcoef(name[:-lag], name[lag:])[0, 1]
        assert abs(correlation) < 4 / math.sqrt(2048 - lag)
    assert len(set(name)) > 2048 - 5  # float32 uniforms collide about 0.25 times


def test_fewer_than_eight_rows_still_get_rows_of_their_own():
    assert len(set(refilled(np.ones(3, bool))["name"][:, 0])) == 3


def test_rows_are_chosen_one_by_one_whatever_the_leaves_shapes():
    mask = jnp.array([True, False, True])
    yes, no = (
        {"a": jnp.ones((3, 2, 2)), "b": jnp.ones(3)},
        {"a": jnp.zeros((3, 2, 2)), "b": jnp.zeros(3)},
    )
    found = select.where_rows(mask, yes, no)
    np.testing.assert_array_equal(found["a"][:, 1, 0], [1.0, 0.0, 1.0])
    np.testing.assert_array_equal(found["b"], [1.0, 0.0, 1.0])


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
@pytest.mark.parametrize("num_masked", [0, 1, 2, 16, 17, 34, 35])
def test_values_of_the_masked_rows_are_those_of_valuing_every_row(num_masked, form):
    """35 rows; on a CPU they are valued in packs of 16."""
    rng = np.random.default_rng(num_masked)
    rows = (jnp.asarray(rng.normal(size=(35, 2)), jnp.float32), jnp.arange(35.0))
    mask = np.zeros(35, bool)
    mask[rng.permutation(35)[:num_masked]] = True
    sizes = []

    def function(rows):
        sizes.append(rows[1].shape[0])
        return jnp.sin(rows[0][:, 0]) + rows[1]

    with backend.use(form):
        values = jax.jit(lambda r, m: select.map_where(function, r, m, 5))(rows, jnp.asarray(mask))
    assert set(sizes) == {16 if form == "cpu" else 35}
    np.testing.assert_allclose(values, np.where(mask, function(rows), 0.0), atol=1e-6)
