"""The adapter of Brax beside its own functions."""

from __future__ import annotations

import os
from pathlib import Path

import beside
import jax
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.envs import leaves, registration
from ppo_jax.envs.interface import time_limit
from ppo_jax.envs.suite_table import SUITES

os.environ.setdefault("MUJOCO_GL", "egl")  # before MuJoCo is imported
pytest.importorskip("brax", reason="pip install -e '.[brax]'")
NAME = "brax/inverted_pendulum"


@pytest.fixture(scope="module")
def environment():
    return registration.make(NAME)


def test_the_table_has_the_ids_that_the_suite_registers():
    from brax import envs

    assert sorted(SUITES["brax"].ids) == sorted(envs._envs)


def test_what_a_factory_sets_is_refused_with_its_call(environment):
    from ppo_jax.envs.suites import brax as adapter

    params = environment.default_params
    for name, value in {"backend": "spring", "n_frames": 4, "debug": True}.items():
        call = rf"brax.make\('inverted_pendulum', {name}={value!r}\)"
        with pytest.raises(InputError, match=call):
            environment.override(params, {name: value})
        adapter.make("inverted_pendulum", **{name: value})
    for name in ("sys", "kwargs", "action_repeat", "episode_length"):
        with pytest.raises(InputError, match=r"is no parameter.* it has max_steps_in_episode.$"):
            environment.override(params, {name: 4})
    fast = registration.make("brax/fast")  # it takes any name and has no physics
    with pytest.raises(InputError, match="'backend' is no parameter"):
        fast.override(fast.default_params, {"backend": "spring"})
    with pytest.raises(InputError, match=r"make\('fast', asymmetric_obs=False\)"):
        fast.override(fast.default_params, {"asymmetric_obs": 1})


def test_random_play_is_the_suites_own(environment):
    from brax import envs

    env = envs.get_environment("inverted_pendulum")

    def reset(key):
        state = env.reset(key)
        return state.obs, state

    def step(key, state, action):
        state = env.step(state, action)
        return state.obs, state, state.reward, state.done > 0, False

    _, ours, own = beside.play(environment, reset, step)
    beside.require_equal(ours, own, rtol=1e-4)
    assert own.terminated.any()


def test_types_are_steady_and_actions_lie_within_one(environment):
    beside.require_steady_types(environment)
    beside.require_fresh_keys(environment)
    space = environment.action_space
    assert (space.low.tolist(), space.high.tolist()) == ([-1.0], [1.0])


def test_the_limit_is_exact_and_the_last_observation_true():
    environment = registration.make("brax/fast")  # never terminates; pays its position
    assert time_limit(environment, environment.default_params) == 1000
    params = environment.override(environment.default_params, {"max_steps_in_episode": 6})
    assert beside.ages_at_the_cut(environment, params, np.ones(1, np.float32), 6) == [6]
    observation, state = environment.reset(jax.random.key(0), params)
    for _ in range(6):
        observation, state, reward, *_ = environment.transition(
            jax.random.key(0), state, np.ones(1, np.float32), params
        )
    speed = 0.02 * np.arange(1, 7)  # by 0.02 a step; the position follows with a step of 0.02
    np.testing.assert_allclose(observation, [0.02 * speed.sum(), speed[-1]], rtol=1e-5)
    np.testing.assert_allclose(reward, observation[0])


@pytest.mark.usefixtures("kept_programs")
def test_the_command_line_trains_stops_and_exports_it(tmp_path: Path, capsys):
    summary = beside.trained("brax/fast", tmp_path, capsys, "--env.max_steps_in_episode", "20")
    assert summary["episode_length_mean"] == 20
    beside.require_stops_and_exports(registration.make("brax/fast"), tmp_path)


def test_a_state_is_drawn_where_opengl_is(environment):
    params = environment.default_params
    _, state = jax.jit(environment.reset)(jax.random.key(0), params)
    try:
        picture = environment.render(state, params)
    except InputError as error:
        assert "install libegl1 and set MUJOCO_GL=egl" in str(error)  # noqa: PT017
        pytest.skip(str(error))
    assert (picture.dtype, picture.shape) == (np.uint8, (240, 320, 3))
    assert picture.max() > 50
    assert registration.make("brax/fast").render is None


def test_metrics_are_the_parts_of_the_reward():
    # A time limit sums them over an episode: tests/envs/test_conform.py
    assert leaves.metric_names(registration.make("brax/reacher")) == ["reward_ctrl", "reward_dist"]
