"""A user's own drift: refusals, and training with it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drifts import clip_drift
from objective_cases import SMALL, train

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.kernels.backend import Backend, current
from ppo_jax.models.agent import assemble
from ppo_jax.models.drift import check_drift
from ppo_jax.training.objectives import SURROGATES, Terms, find_surrogate


def square(ratio: jax.Array, advantage: jax.Array) -> jax.Array:
    return jnp.square(ratio - 1.0)


@pytest.mark.parametrize(
    ("drift", "sentence"),
    [
        (lambda r, a: -square(r, a), r"is -\d.* at ratio 20, .*but a drift is never negative"),
        # Negative for bad actions alone.
        (lambda r, a: a * square(r, a), r"is -1.08e\+03 at ratio 20, advantage -3.*negative"),
        (lambda r, a: jnp.full_like(r, jnp.nan), "never negative"),
        (lambda r, a: square(r, a) + 0.1, "is not 0 at ratio 1"),
        (lambda r, a: jax.nn.relu(r - 1.0), "has a slope at ratio 1"),
        (lambda r, a: jnp.abs(r - 1.0) * jnp.abs(a), "has a slope at ratio 1"),
        (lambda r, a: jnp.mean(square(r, a)), r"returns shape \(\).*one number per sample"),
        (lambda r, a: square(r, a)[:, None], r"returns shape \(2025, 1\).*one number per sample"),
        # Half of L^DPO's: the gain without the term that removes its slope, beyond ratio 1 only.
        (lambda r, a: jax.nn.relu((r - 1.0) * a), "has a slope at ratio 1"),
    ],
)
def test_what_is_no_drift_is_refused_with_a_sentence(drift: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_drift(drift, "mine:drift")


def clip_as_drift(ratio: jax.Array, advantage: jax.Array) -> jax.Array:
    return clip_drift(ratio, advantage, 0.2)


def test_the_clip_given_as_ones_own_drift_trains_as_objective_clip_does() -> None:
    """Without a target, neither has factors other than 1."""
    hyper = Hyper(learning_rate=np.array([0.01, 0.05], np.float32))
    expected, rows = train(Config(**SMALL), hyper)
    found, _ = train(Config(**SMALL, objective="drift", drift=clip_as_drift), hyper)
    assert rows["clip_fraction"].max() > 0.1
    for leaf, other in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params)):
        # The plain form sums a minibatch in an order that XLA chooses for each of the two losses.
        atol = 1e-5 if current() is Backend.PLAIN else 1e-6
        np.testing.assert_allclose(leaf, other, atol=atol)
    for state in (found, expected):
        np.testing.assert_array_equal(np.stack(state.adapted), 1.0)


@pytest.mark.usefixtures("double")
def test_a_drift_may_be_given_by_name() -> None:
    named = Config(objective="drift", drift=f"{__name__}:clip_as_drift")
    ratio, advantage = jnp.array([0.5, 1.1, 3.0]), jnp.array([-1.0, 2.0, 3.0])
    zero = jnp.zeros(3)
    terms = Terms(zero, ratio, advantage, zero, zero)
    hyper = Hyper()
    np.testing.assert_allclose(
        find_surrogate(named)(terms, hyper), SURROGATES["clip"](terms, hyper), atol=1e-12
    )


def test_what_is_no_drift_is_refused_before_anything_is_trained() -> None:
    config = Config(**SMALL, objective="drift", drift=lambda r, a: a * square(r, a))
    with pytest.raises(InputError, match="never negative"):
        assemble(config)
