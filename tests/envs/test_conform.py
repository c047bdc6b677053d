"""The casts of adapters and the shared time limit, on an environment known by heart."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import beside
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.envs import params as parameters
from ppo_jax.envs.actions import example_action
from ppo_jax.envs.conform import conform, with_time_limit
from ppo_jax.envs.interface import Box, Discrete, Environment, time_limit

FALL = 1
PAGE = Path(__file__).parents[2] / "docs" / "environments.md"


def ladder() -> Environment:
    """Climb for ever, or fall: action 1 terminates. Shows the height, and pays it."""

    def step(key, height, action, params):
        height = height + 1
        return height, height, 1.0 * height, action == FALL, False, {"steps": 1}

    return conform(
        "test/ladder",
        lambda key, params: (0, 0),
        step,
        params=(),
        action_space=Discrete(2),
        max_episode_steps=None,
        metrics=lambda info: info,
    )


@pytest.fixture(scope="module")
def environment() -> Environment:
    return with_time_limit(ladder(), 5)


def test_it_cuts_at_the_limit_and_shows_the_state_there(environment):
    params, key = environment.default_params, jax.random.key(0)
    assert beside.ages_at_the_cut(environment, params, 0, 5) == [5]
    _, state = environment.reset(key, params)
    for height in range(1, 6):
        observation, state, reward, terminated, truncated, info = environment.transition(
            key, state, 0, params
        )
        assert (observation, reward, truncated) == (height, height, height == 5)
        assert environment.metrics(info) == {"steps": height}  # summed over the episode
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


@pytest.mark.parametrize("limit", [0, -3])
def test_an_episode_without_a_step_is_refused(environment, limit):
    with pytest.raises(InputError, match=f"time limit is {limit} steps: an episode needs at least"):
        environment.override(environment.default_params, {"max_steps_in_episode": limit})


def test_types_are_steady(environment):
    beside.require_steady_types(environment)
    assert environment.observation_dtype == "float32"
    assert math.prod(environment.observation_shape) == 1


# The adapters of docs/environments.md -------------------------------------------------------------


class Suite(NamedTuple):
    """A step as a suite returns it, under all the names that the four shapes read."""

    obs: Any
    time: Any
    discount: Any = 1.0

    reward = property(lambda self: 1.0 * self.time)
    done = property(lambda self: 1.0 * (self.time == 4))  # as Brax: termination alone
    metrics = property(lambda self: {})
    observation = property(lambda self: self.obs)
    step_type = property(lambda self: jnp.where(self.time == 4, 2, 1 * (self.time == 6)))

    def last(self):
        return (self.time == 4) | (self.time == 6)


class Params(NamedTuple):
    max_timesteps: Any = 6

    def replace(self, **values: Any) -> Any:
        return self._replace(**values)


class Fake:
    """Terminates after 4 steps, unless they began at 4; then its limit of 6 cuts it."""

    action_size, num_actions, default_params = 1, 2, Params()
    first = 0

    def _at(self, time: Any) -> Suite:
        return Suite(jnp.float32(time), jnp.int32(time), 1.0 * (time != 4))

    def reset(self, key: Any) -> Any:
        start = self._at(jnp.int32(self.first))
        return (start, start) if self.is_pair else start

    def step(self, state: Any, action: Any) -> Any:
        after = self._at(state.time + 1)
        return (after, after) if self.is_pair else after

    def reset_env(self, key: Any, params: Any) -> Any:
        return jnp.float32(self.first), Tick(jnp.int32(self.first))

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        time = state.timestep + 1
        is_over = (time == 4) | (time >= params.max_timesteps)
        return jnp.float32(time), Tick(time), 1.0 * time, is_over, {}


class Tick(NamedTuple):
    timestep: Any


@pytest.mark.parametrize("shape", ["brax_like", "tuple_like", "discount_like", "kind_like"])
def test_an_adapter_of_the_documents_tells_ends_apart(shape: str) -> None:
    names = {"np": np, "conform": conform, "with_time_limit": with_time_limit, "Box": Box}
    names |= {"Discrete": Discrete, "parameters": parameters}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        if f"def {shape}" in block:
            exec(block, names)
    for first, ends in ((0, (4, True, False)), (4, (6, False, True))):
        fake = type("Now", (Fake,), {"first": first, "is_pair": shape == "discount_like"})()
        environment = names[shape](fake)
        params = environment.default_params
        if shape == "brax_like":  # its limit counts steps
            params = environment.override(params, {"max_steps_in_episode": 6 - first})
        _, state = environment.reset(jax.random.key(0), params)
        for time in range(first + 1, ends[0] + 1):
            observation, state, reward, *flags, _ = environment.transition(
                jax.random.key(0), state, example(environment), params
            )
            assert (observation, reward) == (time, time)
            assert any(map(bool, flags)) == (time == ends[0])
        assert tuple(map(bool, flags)) == ends[1:]


def example(environment: Environment) -> Any:
    shapes = example_action(environment.action_space)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
