"""The examples of docs/why-the-ratio.md hold what theory says, and the bounds fit both sources."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.training import objectives

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

sys.path.insert(0, str(BENCHMARKS))  # a script's own folder is where it finds its modules
import bounds  # noqa: E402
import ratio_figures  # noqa: E402

sys.path.remove(str(BENCHMARKS))


def test_the_exact_values_obey_the_lemma_and_the_bound() -> None:
    found = ratio_figures.exact(np.array([1e-4, 0.1, 1.0, 10.0]))
    assert np.all(found.gain > 0.0)
    assert np.all(found.bound <= found.gain)  # Schulman et al. 2015, theorem 1
    assert np.all(found.mean_kl <= found.max_kl)
    # To first order both surrogates are the gain.
    np.testing.assert_allclose(found.ratio[0], found.gain[0], rtol=1e-3)
    np.testing.assert_allclose(found.logarithm[0], found.gain[0], rtol=1e-3)


def test_the_bandits_slopes_are_gradients() -> None:
    def objective(name: str, logit: jax.Array) -> jax.Array:
        r = 2.0 * jax.nn.softmax(jnp.stack([logit, 0.0]))
        advantage = jnp.array([1.0, -1.0])
        band = jnp.clip(r, 1 - ratio_figures.EPSILON, 1 + ratio_figures.EPSILON)
        each = {
            "log": jnp.log(r) * advantage,
            "ratio": r * advantage,
            "clip": jnp.minimum(r * advantage, band * advantage),
        }
        return jnp.mean(each[name])

    for name, slope in ratio_figures.SLOPES.items():
        for logit in (0.0, 0.3, 1.0, 3.0):
            expected = jax.grad(objective, 1)(name, jnp.float32(logit))
            assert slope(float(jax.nn.sigmoid(logit))) == pytest.approx(float(expected), abs=1e-6)


def terms(log_ratio: jax.Array, advantage: float) -> objectives.Terms:
    kl = jnp.square(log_ratio)
    return objectives.Terms(log_ratio - 1.0, jnp.exp(log_ratio), jnp.float32(advantage), kl, kl)


@pytest.mark.parametrize("name", sorted(bounds.LOGARITHMS))
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_bound_acts_on_the_logarithm_where_it_acts_on_the_ratio(
    name: str, advantage: float
) -> None:
    hyper = SimpleNamespace(clip_epsilon=0.2, clip_epsilon_high=0.0, dual_clip=jnp.inf, kl_coef=1.0)

    def slopes(table: dict[str, objectives.Surrogate]) -> np.ndarray:
        slope = jax.vmap(jax.grad(lambda x: table[name](terms(x, advantage), hyper)))
        return np.asarray(slope(jnp.log(jnp.array([0.5, 0.9, 1.0, 1.1, 1.5]))))

    ours, theirs = slopes(bounds.LOGARITHMS), slopes(objectives.SURROGATES)
    np.testing.assert_allclose(ours[2], theirs[2], atol=1e-6)  # at theta_old they are equal
    np.testing.assert_array_equal(ours == 0.0, theirs == 0.0)


def test_the_ratio_has_its_surrogates_again_after_the_logarithm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # other tests need them
    before = dict(objectives.SURROGATES)
    with bounds.source("log"):
        assert objectives.SURROGATES["is"] is bounds.LOGARITHMS["is"]
    assert before == objectives.SURROGATES


def test_the_control_takes_steps_that_are_together_as_long_as_one() -> None:
    _, numbers = bounds.SETTINGS["short-steps"]
    assert numbers["learning_rate"] * bounds.EPOCHS == pytest.approx(bounds.HYPER.learning_rate)
    assert set(bounds.BOUNDS) == set(bounds.SETTINGS) == set(bounds.LABELS)


def test_the_difference_of_two_rows_has_an_interval_and_a_verdict() -> None:
    rows = [
        {"env": "CartPole-v1", "return": {"per_seed": [float(x) for x in scores]}}
        for scores in (range(100, 132), range(110, 142), range(300, 332))
    ]
    assert bounds.compared(rows[0], rows[0])[0].startswith("+0 [")
    assert bounds.compared(rows[0], rows[0])[1] == "equal"
    assert bounds.compared(rows[0], rows[1])[1] == "equal (lower by less than the margin)"
    number, word = bounds.compared(rows[0], rows[2])
    assert number.startswith("-200 [")
    assert word == "worse"
