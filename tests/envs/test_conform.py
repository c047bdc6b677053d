"""The casts of adapters and the shared time limit, on an environment known by heart."""

from __future__ import annotations

import math

import beside
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.envs.conform import conform, with_time_limit
from ppo_jax.envs.interface import Discrete, Environment, time_limit

FALL = 1


def ladder() -> Environment:
    """Climb for ever, or fall: action 1 terminates. Shows the height, and pays it."""

    def step(key, height, action, params):
        height = height + 1
        return height, height, 1.0 * height, action == FALL, False, {}

    return conform(
        "test/ladder",
        lambda key, params: (0, 0),
        step,
        params=(),
        action_space=Discrete(2),
        max_episode_steps=None,
    )


@pytest.fixture(scope="module")
def environment() -> Environment:
    return with_time_limit(ladder(), 5)


def test_it_cuts_at_the_limit_and_shows_the_state_there(environment):
    params, key = environment.default_params, jax.random.key(0)
    assert beside.ages_at_the_cut(environment, params, 0, 5) == [5]
    _, state = environment.reset(key, params)
    for height in range(1, 6):
        observation, state, reward, terminated, truncated, _ = environment.transition(
            key, state, 0, params
        )
        assert (observation, reward, truncated) == (height, height, height == 5)
        assert not terminated
    # A last step that terminates is no truncation.
    _, _, _, terminated, truncated, _ = environment.transition(
        key, state._replace(time=jnp.int32(4)), FALL, params
    )
    assert (bool(terminated), bool(truncated)) == (True, False)


def test_the_limit_is_a_parameter_that_may_lie_on_a_vmap_axis(environment):
    assert time_limit(environment, environment.default_params) == 5
    params = environment.override(environment.default_params, {"max_steps_in_episode": 3})
    assert time_limit(environment, params) == 3
    assert beside.ages_at_the_cut(environment, params, 0, 4) == [3, 4]

    def is_cut(limit):
        limits = environment.override(environment.default_params, {"max_steps_in_episode": limit})
        _, state = environment.reset(jax.random.key(0), limits)
        return environment.transition(jax.random.key(0), state, 0, limits)[4]

    np.testing.assert_array_equal(jax.vmap(is_cut)(jnp.array([1, 2])), [True, False])


def test_types_are_steady(environment):
    beside.require_steady_types(environment)
    assert environment.observation_dtype == "float32"
    assert math.prod(environment.observation_shape) == 1
