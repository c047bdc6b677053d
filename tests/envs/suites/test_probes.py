"""Every probe's documented answer, recomputed by playing it by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration
from ppo_jax.envs.interface import Box, MultiDiscrete
from ppo_jax.envs.suites.probes import PROBES

GAMMA = 0.9


def episode(probe, seed, action=None):
    """One episode under the best action: (observations, rewards, last terminated, truncated)."""
    environment = probe.environment
    params = environment.default_params
    key = jax.random.key(seed)
    observation, state = environment.reset(key, params)
    observations, rewards = [np.asarray(observation)], []
    for step in range(20):
        choice = action
        if choice is None:
            space = environment.action_space
            size = np.zeros(len(space.ns)) if isinstance(space, MultiDiscrete) else np.zeros(1)
            choice = size if isinstance(space, Box | MultiDiscrete) else 0
            if probe.best_action is not None:
                choice = probe.best_action(observation)
        observation, state, reward, terminated, truncated, _ = environment.transition(
            jax.random.fold_in(key, step), state, jnp.asarray(choice), params
        )
        observations.append(np.asarray(observation))
        rewards.append(float(reward))
        if terminated or truncated:
            return observations, rewards, bool(terminated), bool(truncated)
    raise AssertionError("no end within 20 steps")


@pytest.mark.parametrize("name", [name for name in PROBES if name != "time-limit"])
def test_the_value_of_every_observation_is_the_discounted_sum_that_follows_it(name):
    probe = PROBES[name]
    returns = []
    for seed in range(8):
        observations, rewards, terminated, truncated = episode(probe, seed)
        assert terminated
        assert not truncated
        for t in range(len(rewards)):
            discounted = sum(GAMMA**k * reward for k, reward in enumerate(rewards[t:]))
            # float32 rewards
            assert probe.value(observations[t], GAMMA) == pytest.approx(discounted, abs=1e-6)
        returns.append(sum(rewards))
    if probe.best_action is not None:
        assert returns == pytest.approx([probe.best_return] * 8)


def test_the_time_limit_probe_truncates_after_five_steps_and_never_terminates():
    probe = PROBES["time-limit"]
    observations, rewards, terminated, truncated = episode(probe, 0)
    assert rewards == [1.0] * 5
    assert truncated
    assert not terminated
    assert all((observation == 0).all() for observation in observations)
    assert probe.value(observations[0], 0.99) == pytest.approx(100.0)
    assert probe.best_return == 5.0


def test_the_time_limit_can_be_overridden():
    environment = PROBES["time-limit"].environment
    params = environment.override(environment.default_params, {"max_steps_in_episode": 2})
    _, state = environment.reset(jax.random.key(0), params)
    flags = []
    for _ in range(2):
        _, state, _, terminated, truncated, _ = environment.transition(
            jax.random.key(1), state, 0, params
        )
        flags.append((bool(terminated), bool(truncated)))
    assert flags == [(False, False), (False, True)]


@pytest.mark.parametrize(
    ("name", "observation", "action", "reward"),
    [
        ("constant-value", [0.0], 0, 1.0),
        ("observation-value", [-1.0], 0, -1.0),
        ("two-step-discount", [1.0], 0, 1.0),
        ("action-choice", [0.0], 0, -1.0),
        ("action-choice", [0.0], 1, 1.0),
        ("action-choice-continuous", [0.0], [-0.5], -1.0),
        ("action-choice-multi-discrete", [0.0], [1, 1], 1.0),
        ("action-choice-multi-discrete", [0.0], [0, 1], 0.0),
        ("action-observation", [-1.0], 1, -1.0),
        ("action-observation", [-1.0], 0, 1.0),
        ("action-observation-continuous", [-1.0], [0.5], -1.0),
        ("reward-lag", [1.0, 0.0], 0, 0.0),
        ("reward-lag", [1.0, -1.0], 0, -1.0),
    ],
)
def test_rewards_are_those_of_the_description(name, observation, action, reward):
    environment = PROBES[name].environment
    _, state = environment.reset(jax.random.key(0), environment.default_params)
    state = state._replace(observation=jnp.array(observation))
    result = environment.transition(
        jax.random.key(0), state, jnp.asarray(action), environment.default_params
    )
    assert float(result[2]) == reward


def test_the_grid_lights_one_cell_and_only_its_channel_pays():
    probe = PROBES["action-observation-grid"]
    environment = probe.environment
    channels = set()
    for seed in range(16):
        grid, state = environment.reset(jax.random.key(seed), environment.default_params)
        assert grid.shape == (4, 4, 2)
        assert grid.dtype == jnp.bool_
        assert int(grid.sum()) == 1
        best = probe.best_action(grid)
        channels.add(best)
        assert bool(grid[..., best].any())
        rewards = [
            float(environment.transition(jax.random.key(0), state, action, ())[2])
            for action in (best, 1 - best)
        ]
        assert rewards == [1.0, -1.0]
    assert channels == {0, 1}


def test_random_signs_are_balanced_and_the_lag_distractor_differs_from_the_paid_sign():
    environment = PROBES["reward-lag"].environment
    keys = jax.random.split(jax.random.key(0), 1000)
    observation, state = jax.vmap(environment.reset, (0, None))(keys, ())
    later = jax.vmap(environment.transition, (0, 0, None, None))(
        jax.random.split(jax.random.key(1), 1000), state, 0, ()
    )[0]
    assert (later[:, 1] == observation[:, 0]).all()
    # 1000 fair signs: mean within 4 standard errors of 0, and of their product too
    assert abs(float(observation[:, 0].mean())) < 4 / 1000**0.5
    assert abs(float((later[:, 0] * later[:, 1]).mean())) < 4 / 1000**0.5


def test_probes_are_made_by_name_and_a_mistyped_one_is_refused_with_the_nearest():
    assert registration.make("probe:reward-lag") is PROBES["reward-lag"].environment
    with pytest.raises(InputError, match="reward-lag"):
        registration.make("probe:rewardlag")
