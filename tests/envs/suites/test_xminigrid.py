"""The adapter of XLand-MiniGrid beside its own functions."""

from __future__ import annotations

from pathlib import Path

import beside
import jax
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.envs import leaves, registration
from ppo_jax.envs.interface import time_limit
from ppo_jax.envs.suite_table import SUITES

xminigrid = pytest.importorskip("xminigrid", reason="pip install -e '.[xminigrid]'")

NAME = "xminigrid/MiniGrid-EmptyRandom-5x5"
TURN = 1


@pytest.fixture(scope="module")
def environment():
    return registration.make(NAME)


def test_the_table_has_the_ids_that_the_suite_registers():
    assert sorted(SUITES["xminigrid"].ids) == sorted(xminigrid.registered_environments())


def test_random_play_is_the_suites_own(environment):
    env, params = xminigrid.make("MiniGrid-EmptyRandom-5x5")

    def reset(key):
        timestep = env.reset(params, key)
        return timestep.observation, timestep

    def step(key, timestep, action):
        timestep = env.step(params, timestep, action)
        goal = timestep.reward > 0
        return timestep.observation, timestep, timestep.reward, goal, timestep.last() & ~goal

    _, ours, own = beside.play(environment, reset, step)
    beside.require_equal(ours, own)
    assert ours.observation.dtype == np.uint8
    assert ours.terminated.any()
    assert ours.truncated.any()


def test_types_are_steady_and_the_limit_is_exact(environment):
    beside.require_steady_types(environment)
    beside.require_fresh_keys(environment)
    assert leaves.categories(environment) == {"observation": (0, 13)}  # tiles, more than colours
    params = environment.override(environment.default_params, {"max_steps": 7})
    assert time_limit(environment, params) == 7
    assert time_limit(environment, environment.default_params) == 4 * 5 * 5
    assert beside.ages_at_the_cut(environment, params, TURN, 7) == [7]
    with pytest.raises(InputError, match="an episode needs at least 1"):  # its reward would be inf
        environment.override(environment.default_params, {"max_steps": 0})


def test_a_size_is_refused_and_a_factory_may_set_it(environment):
    with pytest.raises(
        InputError, match=r"xminigrid.make\('MiniGrid-EmptyRandom-5x5', view_size=3"
    ):
        environment.override(environment.default_params, {"view_size": 3})
    from ppo_jax.envs.suites import xminigrid as adapter

    with pytest.raises(InputError, match=r"'ruleset' is no parameter.* it has max_steps.$"):
        environment.override(environment.default_params, {"ruleset": 3})
    smaller = adapter.make("MiniGrid-EmptyRandom-5x5", view_size=3)
    assert smaller.observation_shape == (3, 3, 2)


@pytest.mark.usefixtures("kept_programs")
def test_the_command_line_trains_stops_and_exports_it_and_a_state_is_drawn(
    environment, tmp_path: Path, capsys
):
    summary = beside.trained(NAME, tmp_path, capsys, "--env.max_steps", "20")
    assert summary["episode_length_mean"] <= 20
    assert summary["policy_mode"] == "sampled"
    beside.require_stops_and_exports(environment, tmp_path)
    _, state = environment.reset(jax.random.key(0), environment.default_params)
    picture = environment.render(state, environment.default_params)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
