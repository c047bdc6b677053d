"""The adapter of navix beside its own functions."""

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

navix = pytest.importorskip("navix", reason="pip install -e '.[navix]', Python >= 3.12")
NAME = "navix/Navix-Empty-Random-5x5-v0"
TURN = 0


@pytest.fixture(scope="module")
def environment():
    return registration.make(NAME)


def test_the_table_has_the_ids_that_the_suite_registers():
    assert sorted(SUITES["navix"].ids) == sorted(navix.registry())


def test_random_play_is_the_suites_own(environment):
    env = navix.make("Navix-Empty-Random-5x5-v0", disable_autoreset=True)

    def reset(key):
        timestep = env.reset(key)
        return timestep.observation, timestep

    def step(key, timestep, action):
        timestep = env.step(timestep, action)
        ends = (timestep.step_type == 2, timestep.step_type == 1)
        return timestep.observation, timestep, timestep.reward, *ends

    _, ours, own = beside.play(environment, reset, step)
    beside.require_equal(ours, own)
    assert ours.observation.dtype == np.uint8
    assert ours.terminated.any()
    assert ours.truncated.any()


def test_types_are_steady_and_the_limit_is_exact_and_fixed(environment):
    beside.require_steady_types(environment)
    beside.require_fresh_keys(environment)
    assert leaves.categories(environment) == {"observation": (0, 11)}
    assert time_limit(environment, ()) == 4 * 5 * 5
    assert beside.ages_at_the_cut(environment, (), TURN, 100) == [100]
    with pytest.raises(InputError, match=r"navix.make\('Navix-Empty-Random-5x5-v0', max_steps=9\)"):
        environment.override((), {"max_steps": 9})
    with pytest.raises(InputError, match=r"navix.make\('Navix-Empty-Random-5x5-v0', gamma=0.9\)"):
        environment.override((), {"gamma": 0.9})
    for name in ("height", "random_start", "disable_autoreset"):  # its id sets them, or the adapter
        with pytest.raises(InputError, match=f"'{name}' is no parameter"):
            environment.override((), {name: 9})


@pytest.mark.usefixtures("kept_programs")
def test_the_command_line_trains_stops_and_exports_it(environment, tmp_path: Path, capsys):
    assert beside.trained(NAME, tmp_path, capsys)["episode_length_mean"] <= 100
    beside.require_stops_and_exports(environment, tmp_path)


def test_a_state_is_drawn(environment):
    _, state = environment.reset(jax.random.key(0), ())
    picture = environment.render(state, ())
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3  # walls, floor, agent, goal
    assert environment.evaluation_mode == "sampled"
