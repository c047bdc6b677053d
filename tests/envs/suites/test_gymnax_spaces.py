"""Spaces of gymnax: bounds that follow parameters, and parameters that they cannot follow."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration
from ppo_jax.envs.interface import Discrete
from ppo_jax.envs.suites.gymnax.names import GYMNAX_NAMES, NEEDS_DOWNLOAD, construct


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 3
    low: float = -1.0
    high: float = 2.0
    wide: float = 5.0
    count: int = 2
    speed: float = 1.0


class Pushed(environment.Environment):
    """Two numbers whose bounds are parameters; the space is set from outside."""

    def __init__(self, action: Any = None, observation: Any = None) -> None:
        self.action = action or (lambda p: spaces.Box(p.low, p.high, (2,)))
        self.observation = observation or (lambda p: spaces.Box(0.0, 1.0, (1,)))

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: Any, params: Any) -> Any:
        return self._seen(), environment.EnvState(time=0)

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        state = environment.EnvState(time=state.time + 1)
        return self._seen(), state, jnp.sum(action) * 1.0, jnp.array(False), {}

    def _seen(self) -> Any:
        is_number = isinstance(self.observation(Params()), spaces.Discrete)
        return jnp.int32(1) if is_number else jnp.ones(1)

    def action_space(self, params: Any) -> Any:
        return self.action(params)

    def observation_space(self, params: Any) -> Any:
        return self.observation(params)


def changed(made: Any, **values: Any) -> Any:
    return made.override(made.default_params, values)


def test_bounds_follow_their_parameters_alone_or_traced() -> None:
    made = registration.make(Pushed())
    bounds = made.action_bounds
    assert bounds is not None
    np.testing.assert_array_equal(bounds(made.default_params), [[-1.0, -1.0], [2.0, 2.0]])
    low, high = bounds(changed(made, low=-4))
    assert isinstance(low, np.ndarray)
    np.testing.assert_array_equal((low, high), [[-4.0, -4.0], [2.0, 2.0]])
    ends = jax.vmap(lambda x: bounds(changed(made, high=x))[1])(jnp.array([3.0, 7.0]))
    np.testing.assert_array_equal(ends, [[3.0, 3.0], [7.0, 7.0]])


def test_a_bound_without_end_stays_without_one_when_traced() -> None:
    largest = jnp.finfo(jnp.float32).max
    made = registration.make(Pushed(lambda p: spaces.Box(p.low, largest, (1,))))
    assert made.action_bounds is not None
    assert made.action_space.high[0] == np.inf
    bounds = made.action_bounds
    low, high = jax.jit(lambda x: bounds(changed(made, low=x)))(0.5)
    assert (float(low[0]), float(high[0])) == (0.5, np.inf)


@pytest.mark.parametrize(
    "space",
    [
        lambda p: spaces.Box(-1.0, 1.0, (2,)),
        lambda p: spaces.Box(-jnp.ones(2), 2.0 * jnp.ones(2), (2,)),
        lambda p: spaces.Discrete(3),
    ],
)
def test_bounds_that_no_parameter_moves_are_none(space: Any) -> None:
    assert registration.make(Pushed(space)).action_bounds is None


def test_bounds_of_gymnaxs_own_environments_move_where_they_should() -> None:
    moving = set()
    for name in GYMNAX_NAMES:
        if name in NEEDS_DOWNLOAD or "MinAtar" in name:
            continue
        if registration.make(construct(name)).action_bounds is not None:
            moving.add(name)
    assert moving == {"Pendulum-v1", "MountainCarContinuous-v0", "PointRobot-misc"}


@pytest.mark.parametrize(
    "name, values, ends",
    [
        ("Pendulum-v1", {"max_torque": 3}, (-3, 3)),
        ("MountainCarContinuous-v0", {"min_action": -0.5, "max_action": 2}, (-0.5, 2)),
        ("PointRobot-misc", {"max_force": 0.25}, (-0.25, 0.25)),
    ],
)
def test_bounds_of_gymnaxs_own_parameters(name: str, values: dict, ends: Any) -> None:
    made = registration.make(name)
    assert made.action_bounds is not None
    low, high = made.action_bounds(changed(made, **values))
    np.testing.assert_allclose(low, np.full_like(low, ends[0]))
    np.testing.assert_allclose(high, np.full_like(high, ends[1]))


def test_a_bound_made_with_python_numbers_cannot_follow_and_the_others_do() -> None:
    made = registration.make(Pushed(lambda p: spaces.Box(-float(p.wide), p.high, (1,))))
    with pytest.raises(InputError, match=r"env\.wide cannot be set: the spaces of Pushed use it"):
        changed(made, wide=6.0)
    with pytest.raises(InputError, match=r"env\.wide cannot be set"):
        jax.jit(lambda x: changed(made, wide=x))(6.0)
    assert made.action_bounds is not None
    low, high = made.action_bounds(changed(made, high=4.0, speed=2.0))
    assert (low[0], high[0]) == (-5.0, 4.0)


@pytest.mark.parametrize(
    "given",
    [
        {"action": lambda p: spaces.Discrete(int(p.count))},
        {"action": lambda p: spaces.Discrete(p.count)},
        {"observation": lambda p: spaces.Discrete(p.count)},
        {"action": lambda p: spaces.Box(-1.0, 1.0, (int(p.count),))},
    ],
)
def test_a_parameter_that_shapes_the_policy_cannot_be_set(given: dict) -> None:
    made = registration.make(Pushed(**given))
    with pytest.raises(InputError, match=r"env\.count cannot be set: the spaces of Pushed use it"):
        changed(made, count=3)
    assert changed(made, speed=3).speed == 3.0


@pytest.mark.parametrize(
    "values, words",
    [
        ({"low": 3.0}, "lies above the upper one"),
        ({"high": np.inf}, "a bound that is finite by default must stay so"),
    ],
)
def test_parameters_that_break_the_bounds_are_refused(values: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        changed(registration.make(Pushed()), **values)


class From(spaces.Discrete):
    def __init__(self, count: int, start: int) -> None:
        super().__init__(count)
        self.start = start


def test_numbers_that_start_elsewhere_keep_their_meaning() -> None:
    """Observations 1..3 and actions 5..6, ours from 0 on."""
    made = registration.make(Pushed(lambda p: From(2, 5), lambda p: From(3, 1)))
    assert made.action_space == Discrete(2)
    observation, state = made.reset(jax.random.key(0), made.default_params)
    np.testing.assert_array_equal(observation, [1.0, 0.0, 0.0])
    reward = made.transition(jax.random.key(0), state, jnp.int32(1), made.default_params)[2]
    assert float(reward) == 6.0


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 0.0), (0.0, np.inf), (-1e300, 1e300)])
def test_no_bound_makes_numpy_warn(low: float, high: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        space = registration.make(Pushed(lambda p: spaces.Box(low, high, (1,)))).action_space
    ends = [np.clip(end, -3.5e38, 3.5e38) for end in (low, high)]
    ends = [np.inf * np.sign(end) if abs(end) > 3.4e38 else end for end in ends]
    assert [space.low[0], space.high[0]] == ends


def test_a_double_action_space_does_not_make_jax_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = registration.make(Pushed(lambda p: spaces.Box(-1.0, 1.0, (1,), np.float64)))
        _, state = made.reset(jax.random.key(0), made.default_params)
        made.transition(jax.random.key(0), state, jnp.ones(1), made.default_params)
