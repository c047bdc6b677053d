"""Evaluation: whole episodes, counted exactly, cut at the limit, through the normaliser."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import network_of

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import Box, Discrete, Environment
from ppo_jax.models.policy import Policy
from ppo_jax.models.policy_head import make_family
from ppo_jax.rl.distributions import Categorical, Gaussian, StateDependentNoise
from ppo_jax.rl.types import Moments
from ppo_jax.training.evaluation import Contest, act, draw_step, episodes

CONFIG = Config(num_envs=4, rollout_length=8)


class State(NamedTuple):
    time: Any
    length: Any


def countdown(shortest=1, longest=12, is_truncated=False, space=None, pay=1.0) -> Environment:
    """Episodes of a length drawn at reset; shows it; step k pays `pay` (k + 100 action)."""

    def reset(key, params):
        length = jax.random.randint(key, (), shortest, longest + 1)
        return length.astype(jnp.float32)[None], State(jnp.zeros((), jnp.int32), length)

    def transition(key, state, action, params):
        time = state.time + 1
        ended = time == state.length  # and continues afterwards, like any environment
        reward = pay * (time + 100.0 * jnp.sum(action))
        return (
            state.length.astype(jnp.float32)[None],
            state._replace(time=time),
            jnp.asarray(reward, jnp.float32),
            ended & (not is_truncated),
            ended & is_truncated,
            {},
        )

    return Environment(
        name="countdown",
        reset=reset,
        transition=transition,
        default_params=(),
        observation_shape=(1,),
        observation_dtype="float32",
        action_space=space or Discrete(2),
        max_episode_steps=None,
        override=lambda params, values: params,
    )


def policy_of(logits, seen=None) -> Policy:
    """A policy with `logits(normalised observation) -> [..., 2]`."""
    network = network_of(lambda params, x: Categorical(logits(x)), lambda params, x: x[..., 0])
    return Policy(network, make_family("categorical", Discrete(2), 1), {}, seen)


def always(action, odds=50.0):
    """Logits that choose one action for every observation."""
    return lambda x: jnp.zeros((*x.shape[:-1], 2)).at[..., action].set(odds)


def evaluate(environment, policy, n=64, max_steps=100, is_deterministic=True, seed=0):
    contest = Contest(n, max_steps, is_deterministic)
    play = jax.jit(lambda key: episodes(CONFIG, environment, (), policy, contest, key))
    return jax.device_get(play(jax.random.key(seed)))


@pytest.mark.parametrize("is_truncated", [False, True])
def test_every_environment_plays_exactly_one_episode_and_its_return_is_exact(is_truncated):
    """Short episodes end early and are neither played again nor counted on."""
    result = evaluate(countdown(is_truncated=is_truncated), policy_of(always(0)))
    length = result.length.astype(int)
    assert result.finished.all()
    assert set(length) == set(range(1, 13))  # 64 draws of 12 lengths
    np.testing.assert_array_equal(result.episode_return, length * (length + 1) / 2)
    assert result.episode_return.shape == (64,)


def test_lengths_are_those_of_the_start_distribution_and_not_of_what_ends_first():
    """Uniform on 1 .. 12: mean 6.5, standard deviation 3.45."""
    length = evaluate(countdown(), policy_of(always(0)), n=4096).length
    assert length.mean() == pytest.approx(6.5, abs=4 * 3.45 / 64)


def test_an_episode_beyond_the_bound_is_cut_counted_as_it_stands_and_reported():
    result = evaluate(countdown(), policy_of(always(0)), max_steps=5)
    whole = evaluate(countdown(), policy_of(always(0)))
    np.testing.assert_array_equal(result.finished, whole.length <= 5)
    assert 0 < result.finished.sum() < 64
    np.testing.assert_array_equal(result.length, np.minimum(whole.length, 5))
    length = result.length.astype(int)
    np.testing.assert_array_equal(result.episode_return, length * (length + 1) / 2)


@pytest.mark.parametrize(
    "ends, changes, stalls",
    [
        ({"is_truncated": True, "pay": 0.0}, {}, True),  # it shows its length at every step
        ({"is_truncated": True, "pay": 0.0}, {"is_deterministic": False}, False),
        ({"is_truncated": True, "pay": 1.0}, {}, False),
        ({"is_truncated": False, "pay": 0.0}, {}, False),
        ({"is_truncated": False, "pay": 0.0}, {"max_steps": 1}, None),  # if it was cut
    ],
)
def test_an_episode_stalls_if_its_last_step_changes_pays_and_ends_nothing(ends, changes, stalls):
    result = evaluate(countdown(**ends), policy_of(always(0)), n=16, **changes)
    expected = ~result.finished if stalls is None else np.full(16, stalls)
    np.testing.assert_array_equal(result.stalled, expected)


def test_an_environment_that_never_ends_costs_no_more_than_the_bound():
    result = evaluate(countdown(10**6, 10**6), policy_of(always(0)), n=3, max_steps=7)
    assert not result.finished.any()
    assert (result.length == 7).all()
    assert (result.episode_return == 28.0).all()


def test_deterministic_play_takes_the_mode_and_sampled_play_the_distribution():
    """Odds 3:1 for action 1, which pays 100: 100 or 75 a step."""
    environment = countdown(10, 10)
    policy = policy_of(always(1, np.log(3.0)))
    sure = evaluate(environment, policy, n=512)
    assert (sure.episode_return == 1000.0 + 55.0).all()
    drawn = evaluate(environment, policy, n=512, is_deterministic=False)
    taken = (drawn.episode_return - 55.0) / 100.0
    # 512 binomials (10, 0.75): mean 7.5, variance 1.875
    assert taken.mean() == pytest.approx(7.5, abs=4 * (1.875 / 512) ** 0.5)
    assert taken.var() == pytest.approx(1.875, rel=0.35)
    again = evaluate(environment, policy, n=512, is_deterministic=False)
    np.testing.assert_array_equal(again.episode_return, drawn.episode_return)
    other = evaluate(environment, policy, n=512, is_deterministic=False, seed=1)
    assert (other.episode_return != drawn.episode_return).any()


def test_actions_of_different_steps_are_independent():
    """With one draw for all steps an episode would be all 0 or all 1."""
    result = evaluate(
        countdown(10, 10), policy_of(lambda x: jnp.zeros((*x.shape[:-1], 2))), 64, 100, False
    )
    taken = (result.episode_return - 55.0) / 100.0
    assert ((taken > 0) & (taken < 10)).mean() > 0.9


def test_the_policy_sees_through_the_normaliser_that_it_is_given():
    """It takes action 1 if it sees more than 0; lengths are 1 .. 12, their given mean is 6.5."""
    policy = policy_of(lambda x: jnp.concatenate([jnp.zeros_like(x), x], axis=-1))
    seen = Moments(jnp.float32(100.0), jnp.array([6.5]), jnp.array([1200.0]))
    result = evaluate(countdown(), policy._replace(moments=seen))
    length = result.length.astype(int)
    expected = length * (length + 1) / 2 + np.where(length > 6.5, 100.0 * length, 0.0)
    np.testing.assert_array_equal(result.episode_return, expected)
    # Without it, or with fresh moments, every length is more than 0.
    zero = jax.tree.map(jnp.zeros_like, seen)
    for wrong in (None, zero):
        result = evaluate(countdown(), policy._replace(moments=wrong))
        np.testing.assert_array_equal(
            result.episode_return, length * (length + 1) / 2 + 100.0 * length
        )


BOX = Box((1,), np.float32([-0.5]), np.float32([0.25]))


def gaussian_policy(name, mean) -> Policy:
    family = make_family(name, BOX, 1)

    def act(params, x):
        centre = jnp.full((*x.shape[:-1], 1), mean)
        if name == "gsde":
            noise = StateDependentNoise(
                centre, centre * 0, jnp.ones_like(centre), jnp.zeros((1, 1))
            )
            return noise
        return Gaussian(centre, jnp.zeros_like(centre))

    return Policy(network_of(act, lambda params, x: x[..., 0]), family, {}, None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gaussian", 0.25), ("gsde", 0.25), ("tanh-gaussian", -0.5 + 0.375 * (1 + np.tanh(3.0)))],
)
def test_the_environment_is_given_the_clipped_or_squashed_mode(name, expected):
    _, action = act(gaussian_policy(name, 3.0), (), jnp.zeros((5, 1)), (), None)
    np.testing.assert_allclose(action, np.full((5, 1), expected), atol=1e-6)
    result = evaluate(countdown(4, 4, space=BOX), gaussian_policy(name, 3.0), n=5)
    np.testing.assert_allclose(result.episode_return, 10.0 + 400.0 * expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("every", "draws_at"),
    [(-1, [0, 8, 16]), (3, [0, 3, 6, 8, 11, 14, 16, 19]), (8, [0, 8, 16]), (12, [0, 8, 16])],
)
def test_an_evaluation_draws_noise_where_rollouts_of_8_steps_would(every, draws_at):
    config = dataclasses.replace(CONFIG, gsde_resample_steps=every)
    key, policy = jax.random.key(0), gaussian_policy("gsde", 0.0)
    due = jax.vmap(lambda t: draw_step(config, policy, 1, False, key, t)[1])(jnp.arange(20))
    assert np.flatnonzero(due).tolist() == draws_at
    assert not draw_step(config, policy, 1, True, key, jnp.zeros((), int))[1]  # deterministic


def test_sampled_gsde_play_holds_its_noise_as_in_training():
    """8 steps a rollout: one draw for steps 0 .. 7, another for 8 .. 15."""
    environment = countdown(16, 16, space=Box((1,), np.float32([-100]), np.float32([100])))
    policy = gaussian_policy("gsde", 0.0)
    policy = policy._replace(family=make_family("gsde", environment.action_space, 1))
    sums = {}
    for steps in (1, 8, 16):
        result = evaluate(environment, policy, 2048, steps, is_deterministic=False)
        sums[steps] = (result.episode_return - steps * (steps + 1) / 2) / 100.0
    np.testing.assert_allclose(sums[8], 8.0 * sums[1], atol=1e-3)
    # N(0, 1) held for 8 steps, twice: variance 64 + 64, and 256 if it were never drawn again
    assert sums[16].var() == pytest.approx(128.0, rel=0.2)
