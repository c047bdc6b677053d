"""A rollout made into a batch: its order, its advantages, its targets."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import SWING, toy_rollout

from ppo_jax.config.config import Hyper
from ppo_jax.kernels.collectives import ALONE
from ppo_jax.rl import moments
from ppo_jax.rl.types import EpisodeStats
from ppo_jax.training import batch as batches
from ppo_jax.training import trainer

EPISODES = EpisodeStats(num_episodes=2.0, return_sum=7.5, length_sum=40.0)


def slow_gae(steps, gamma, lam):
    """Sums of (gamma lambda)^k delta_{t+k} to the episode's end. [T, B] float64"""
    ended = np.asarray(steps.terminated | steps.truncated)
    delta = np.float64(steps.reward) + gamma * np.float64(steps.value_next) - steps.value
    advantage = np.zeros((5, 3))
    for b in range(3):
        for t in range(5):
            for k in range(5 - t):
                advantage[t, b] += (gamma * lam) ** k * delta[t + k, b]
                if ended[t + k, b]:
                    break
    return advantage


def test_the_batch_is_time_major_and_holds_advantages_and_targets():
    config = dataclasses.replace(SWING, normalize_advantages="none")
    steps = toy_rollout()
    hyper = Hyper(gamma=0.9, gae_lambda=0.8)
    batch, tally = batches.make_batch(config, hyper, steps, steps.reward, EPISODES, ALONE)
    marks = (10.0 * np.arange(5)[:, None] + np.arange(3)).reshape(-1)
    np.testing.assert_array_equal(batch.window.observation[:, 0], marks)
    np.testing.assert_array_equal(batch.action[:, 0], marks)
    np.testing.assert_array_equal(batch.distribution_old[0][:, 0], marks)
    np.testing.assert_array_equal(batch.log_prob_old, np.asarray(steps.log_prob).reshape(-1))
    np.testing.assert_array_equal(batch.value_old, np.asarray(steps.value).reshape(-1))
    advantage = slow_gae(steps, 0.9, 0.8)
    target = advantage + np.asarray(steps.value)
    np.testing.assert_allclose(batch.advantage, advantage.reshape(-1), atol=1e-5)
    np.testing.assert_allclose(batch.value_target, target.reshape(-1), atol=1e-5)
    found = batches.batch_metrics(ALONE.gather(tally))
    explained = 1.0 - advantage.var() / target.var()
    assert found["explained_variance"] == pytest.approx(explained, abs=1e-5)
    names = ("num_episodes", "episode_return_sum", "episode_length_sum")
    assert [found[name] for name in names] == [2.0, 7.5, 40.0]


def test_targets_that_do_not_vary_have_no_variance_to_explain():
    steps = toy_rollout()
    config = dataclasses.replace(SWING, normalize_advantages="none")
    reward = jnp.full_like(steps.reward, 3.1)
    _, tally = batches.make_batch(config, Hyper(gamma=0.0), steps, reward, EPISODES, ALONE)
    assert np.isnan(batches.batch_metrics(ALONE.gather(tally))["explained_variance"])


def test_advantages_are_standardised_over_the_batch_where_that_is_asked_for():
    steps = toy_rollout()
    advantage = slow_gae(steps, 0.99, 0.95).reshape(-1)
    for name, expected in (
        ("batch", (advantage - advantage.mean()) / advantage.std()),
        ("minibatch", advantage),  # standardised later, minibatch by minibatch
    ):
        config = dataclasses.replace(SWING, normalize_advantages=name)
        batch, _ = batches.make_batch(config, Hyper(), steps, steps.reward, EPISODES, ALONE)
        np.testing.assert_allclose(batch.advantage, expected, atol=1e-4)


def test_a_bad_transition_has_no_weight_and_cuts_the_credit_before_it():
    """The one before it bootstraps from the value of the state between them, as at a time limit."""
    config = dataclasses.replace(SWING, normalize_advantages="none")
    clean = toy_rollout()
    steps = clean._replace(is_bad=jnp.zeros((5, 3), bool).at[2, 1].set(True))
    hyper = Hyper(gamma=0.9, gae_lambda=0.8)
    batch, tally = batches.make_batch(config, hyper, steps, steps.reward, EPISODES, ALONE)
    cut = clean._replace(truncated=clean.truncated.at[1, 1].set(True))
    expected = slow_gae(cut, 0.9, 0.8)
    expected[2, 1] = 0.0
    np.testing.assert_allclose(batch.advantage.reshape(5, 3), expected, atol=1e-5)
    np.testing.assert_allclose(
        batch.value_target.reshape(5, 3), expected + np.asarray(steps.value), atol=1e-5
    )
    weight = np.full((5, 3), 15 / 14)
    weight[2, 1] = 0.0
    np.testing.assert_allclose(batch.weight.reshape(5, 3), weight, rtol=1e-6)
    found = batches.batch_metrics(ALONE.gather(tally))
    assert found["dropped_fraction"] == pytest.approx(1 / 15)
    kept = np.delete(expected.reshape(-1), 7)
    targets = np.delete((expected + np.asarray(steps.value)).reshape(-1), 7)
    explained = 1.0 - kept.var() / targets.var()
    assert found["explained_variance"] == pytest.approx(explained, abs=1e-5)
    config = dataclasses.replace(config, normalize_advantages="batch")
    batch, _ = batches.make_batch(config, hyper, steps, steps.reward, EPISODES, ALONE)
    np.testing.assert_allclose(
        np.delete(batch.advantage, 7), (kept - kept.mean()) / kept.std(), atol=1e-4
    )


def test_devices_count_by_their_transitions_that_were_not_left_out():
    """One device keeps 15 transitions, the other 5."""
    config = dataclasses.replace(SWING, normalize_advantages="none")
    residuals, targets, tallies = [], [], []
    for seed, num_kept in ((0, 5), (1, 1)):
        is_bad = jnp.zeros((5, 3), bool).at[num_kept:].set(True)
        steps = toy_rollout(seed)._replace(is_bad=is_bad)
        batch, tally = batches.make_batch(config, Hyper(), steps, steps.reward, EPISODES, ALONE)
        rows = slice(3 * num_kept)
        residuals.append(np.asarray(batch.value_target - batch.value_old)[rows])
        targets.append(np.asarray(batch.value_target)[rows])
        tallies.append(tally)
    found = batches.batch_metrics(jax.tree.map(lambda *parts: jnp.stack(parts), *tallies))
    explained = 1.0 - np.concatenate(residuals).var() / np.concatenate(targets).var()
    assert found["explained_variance"] == pytest.approx(explained, abs=1e-5)
    assert found["dropped_fraction"] == pytest.approx((0 + 12 / 15) / 2)


def test_the_scale_of_rewards_is_not_of_transitions_that_are_left_out():
    """Returns 1, 2, -, 4 of discount 1: the third reward is unknown, and counts as 0 after it."""
    shape = (4, 1)
    steps = toy_rollout()._replace(
        reward=jnp.array([[1.0], [1.0], [0.0], [2.0]]),
        terminated=jnp.zeros(shape, bool),
        truncated=jnp.zeros(shape, bool),
        is_bad=jnp.zeros(shape, bool).at[2].set(True),
    )
    small = dataclasses.replace(SWING, num_envs=1)
    state = trainer.init(small, Hyper(), jax.random.key(0))
    reward, carried, found = batches.scale_rewards(SWING, Hyper(gamma=1.0), state, steps, ALONE)
    returns = np.array([1.0, 2.0, 4.0])
    assert (found.count, found.mean) == (3, pytest.approx(returns.mean()))
    np.testing.assert_allclose(reward, steps.reward / returns.std(), rtol=1e-6)
    assert carried.tolist() == [4.0]
    steps = steps._replace(is_bad=jnp.ones(shape, bool))
    _, _, found = batches.scale_rewards(SWING, Hyper(gamma=1.0), state, steps, ALONE)
    jax.tree.map(np.testing.assert_array_equal, found, moments.init())
