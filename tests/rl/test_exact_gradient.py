"""L^PG and L^IS against the exact policy gradient of an enumerated MDP."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular

from ppo_jax.rl import surrogates
from ppo_jax.rl.advantages import gae


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


class Exact:
    """An MDP, a policy pi_old, all trajectories and their GAE advantages with V = V^pi_old."""

    def __init__(self, seed: int, gae_lambda: float) -> None:
        rng = np.random.default_rng(seed)
        self.mdp = tabular.random_mdp(seed)
        self.logits_old = rng.normal(size=(tabular.STATES, tabular.ACTIONS))
        self.logits_new = self.logits_old + rng.normal(size=self.logits_old.shape)
        self.policy_old = tabular.softmax(self.logits_old)
        self.paths = tabular.enumerate_all(self.mdp, self.policy_old)
        value = np.append(np.asarray(tabular.values(self.mdp, self.policy_old)), 0.0)
        self.advantage, _ = gae(
            self.paths.reward,
            value[self.paths.state],
            np.where(self.paths.terminated, 0.0, value[self.paths.successor]),
            self.paths.terminated,
            self.mdp.gamma,
            gae_lambda,
        )
        discount = self.mdp.gamma ** np.arange(tabular.LAYERS)
        self.weight = self.paths.alive * discount[:, None] * self.paths.probability

    def log_prob(self, logits: jax.Array | np.ndarray) -> jax.Array:
        return jax.nn.log_softmax(logits)[self.paths.state, self.paths.action]

    def pg(self, logits: jax.Array | np.ndarray) -> jax.Array:
        """The expectation of the loss L^PG over all trajectories."""
        losses = surrogates.policy_gradient(self.log_prob(logits), self.advantage)
        return jnp.sum(self.weight * losses)

    def is_(self, logits: jax.Array | np.ndarray) -> jax.Array:
        difference = surrogates.log_ratio(self.log_prob(logits), self.log_prob(self.logits_old))
        losses = surrogates.importance_sampled(jnp.exp(difference), self.advantage)
        return jnp.sum(self.weight * losses)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.6, 1.0])
def test_the_gradient_of_l_pg_is_the_exact_policy_gradient(gae_lambda: float) -> None:
    """nabla J through (I - gamma P)^-1 against L^PG over all trajectories."""
    case = Exact(5, gae_lambda)
    assert case.paths.probability.sum() == pytest.approx(1.0, abs=1e-12)
    exact = jax.grad(lambda logits: tabular.objective(case.mdp, jax.nn.softmax(logits)))
    np.testing.assert_allclose(
        -jax.grad(case.pg)(case.logits_old), exact(case.logits_old), atol=1e-10
    )


def test_l_is_has_the_gradient_of_l_pg_at_the_old_policy_and_another_away_from_it() -> None:
    case = Exact(6, 0.95)
    at_old = jax.grad(case.pg)(case.logits_old)
    np.testing.assert_allclose(jax.grad(case.is_)(case.logits_old), at_old, atol=1e-12)
    away = [np.asarray(jax.grad(loss)(case.logits_new)) for loss in (case.pg, case.is_)]
    assert np.abs(away[0] - away[1]).max() > 1e-2


def test_l_is_away_from_the_old_policy_is_the_surrogate_of_kakade_and_langford() -> None:
    """sum_s d_old(s) sum_a pi_new(a|s) A_old(s, a), with d and A by linear algebra."""
    case = Exact(7, 0.9)
    policy_new = tabular.softmax(case.logits_new)
    expected = tabular.visits(case.mdp, case.policy_old) @ np.sum(
        policy_new * tabular.advantages(case.mdp, case.policy_old), axis=1
    )
    assert -float(case.is_(case.logits_new)) == pytest.approx(expected, abs=1e-10)


def test_the_enumeration_itself_keeps_the_performance_difference_identity() -> None:
    """J(pi') - J(pi) = sum_s d_pi'(s) sum_a pi'(a|s) A_pi(s, a): a check of the oracle itself."""
    case = Exact(8, 0.9)
    policy_new = tabular.softmax(case.logits_new)
    gain = tabular.visits(case.mdp, policy_new) @ np.sum(
        policy_new * tabular.advantages(case.mdp, case.policy_old), axis=1
    )
    old, new = (float(tabular.objective(case.mdp, p)) for p in (case.policy_old, policy_new))
    assert new - old == pytest.approx(gain, abs=1e-10)
