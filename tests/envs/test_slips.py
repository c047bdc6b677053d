"""Each slip of somebody who writes a first environment gets a sentence that names it."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from ppo_jax.config.errors import InputError
from ppo_jax.envs import leaves, registration


class Sound(environment.Environment):
    """Five steps on a line; every slip below changes one thing."""

    @property
    def default_params(self) -> Any:
        return environment.EnvParams(max_steps_in_episode=5)

    def reset_env(self, key: Any, params: Any) -> Any:
        return jnp.ones(1), environment.EnvState(time=0)

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        state = environment.EnvState(time=state.time + 1)
        return jnp.ones(1), state, action * 1.0, jnp.array(False), {}

    def action_space(self, params: Any) -> Any:
        return spaces.Discrete(2)

    def observation_space(self, params: Any) -> Any:
        return spaces.Box(0.0, 1.0, (1,))


def changed(**methods: Any) -> Any:
    return type("Slip", (Sound,), methods)()


@struct.dataclass
class Rows(environment.EnvState):
    xs: Any


@dataclasses.dataclass
class Plain:
    time: int


@struct.dataclass
class Sized(environment.EnvParams):
    n: int = 3


def remembers(self: Any, key: Any, params: Any) -> Any:
    self.last = jax.random.uniform(key)
    return jnp.ones(1), environment.EnvState(time=0)


def sums_a_list(self: Any, key: Any, state: Any, action: Any, params: Any) -> Any:
    return jnp.ones(1), Rows(time=state.time + 1, xs=state.xs + 1), 0.0, jnp.array(False), {}


def makes_an_array(self: Any, key: Any, state: Any, action: Any, params: Any) -> Any:
    return jnp.ones(1), Rows(time=state.time + 1, xs=jnp.array(state.xs)), 0.0, jnp.array(False), {}


def steps(*values: Any) -> Any:
    def step_env(self: Any, key: Any, state: Any, action: Any, params: Any) -> Any:
        whole = list(Sound.step_env(self, key, state, action, params))
        return (*whole[: 5 - len(values)], *values) if len(values) < 5 else values

    return step_env


def step_with(place: int, value: Any) -> Any:
    def step_env(self: Any, key: Any, state: Any, action: Any, params: Any) -> Any:
        whole = list(Sound.step_env(self, key, state, action, params))
        whole[place] = value(state, params) if callable(value) else value
        return tuple(whole)

    return step_env


UNIT = spaces.Box(0.0, 1.0, (1,))
ONE = lambda self, key, params: (jnp.ones(1), environment.EnvState(time=0))  # noqa: E731

SLIPS: list[tuple[str, dict[str, Any]]] = [
    # What is returned.
    (
        "Slip.reset_env returns 3 values and must return 2: (observation, state)",
        {"reset_env": lambda self, key, params: (jnp.ones(1), environment.EnvState(time=0), {})},
    ),
    (
        "Slip.reset_env returns one array and must return 2",
        {"reset_env": lambda self, key, params: np.ones(1) * jnp.float32(1)},
    ),
    (
        "step_env returns 4 values and must return 5",
        {"step_env": lambda self, *given: Sound.step_env(self, *given)[:4]},
    ),
    ("of shape (1,) from reset_env and missing", {"step_env": step_with(0, {"x": 1.0})}),
    ("returns a tree with the leaves 0, 1", {
        "reset_env": lambda s, k, p: ((1.0, 2.0), environment.EnvState(time=0)),
        "step_env": step_with(0, (1.0, 2.0)),
    }),
    ("a reward of NoneType", {"step_env": step_with(2, None)}),
    ("a reward of complex64; return one real number", {"step_env": step_with(2, jnp.complex64(1))}),
    ("a terminated of key<fry>", {"step_env": step_with(3, lambda *_: jax.random.key(0))}),
    ("an observation of object", {
        "reset_env": lambda self, k, p: (np.array([None]), environment.EnvState(time=0))
    }),
    ("a reward of shape (3,)", {"step_env": step_with(2, jnp.ones(3))}),
    ("a terminated of shape (2,)", {"step_env": step_with(3, np.zeros(2, bool))}),
    ("a truncated of shape (2,)", {"is_truncated": lambda self, state, params: jnp.zeros(2)}),
    ("info['why'] is a text", {"step_env": step_with(4, {"why": "over"})}),
    ("info['env'] is of type type", {"step_env": step_with(4, {"env": Sound})}),
    ("reset_env returns an observation of shape (1,) and step_env", {
        "step_env": step_with(0, jnp.ones(2))
    }),
    # The state.
    (
        "state, a dict, has no field `time`",
        {
            "reset_env": lambda self, key, params: (jnp.ones(1), {"t": 0}),
            "step_env": lambda self, key, state, action, params: (
                *(jnp.ones(1), {"t": state["t"] + 1}, 0.0, jnp.array(False), {}),
            ),
        },
    ),
    (
        "state.xs is a Python list, which jax takes for separate numbers",
        {
            "reset_env": lambda self, key, params: (jnp.ones(1), Rows(time=0, xs=[1, 2])),
            "step_env": sums_a_list,
        },
    ),
    (
        "make them equal (state.xs is a Python list: make it one array)",
        {
            "reset_env": lambda self, key, params: (jnp.ones(1), Rows(time=0, xs=[1, 2])),
            "step_env": makes_an_array,
        },
    ),
    (
        "reset_env: state is of type Plain, and jax carries numbers only: write "
        "@flax.struct.dataclass above the class Plain",
        {"reset_env": lambda self, key, params: (jnp.ones(1), Plain(0))},
    ),
    (
        "state.xs is a text",
        {"reset_env": lambda self, key, params: (jnp.ones(1), Rows(time=0, xs="start"))},
    ),
    ("keeps self.last from one call to the next", {"reset_env": remembers}),
    # The parameters.
    ("default_params is a method", {"default_params": lambda self: environment.EnvParams()}),
    ("default_params fails with ZeroDivisionError", {
        "default_params": property(lambda self: 1 / 0)
    }),
    (
        "@flax.struct.dataclass above the class Plain",
        {"default_params": property(lambda self: Plain(1))},
    ),
    (
        "parameter object, a dict, has no field `max_steps_in_episode`",
        {"default_params": property(lambda self: {"speed": 1.0})},
    ),
    (
        "env.max_steps_in_episode=nan must be a number of steps",
        {"default_params": property(lambda self: environment.EnvParams(np.nan))},
    ),
    (
        "a parameter that is a size must be static, flax.struct.field(pytree_node=False)",
        {
            "default_params": property(lambda self: Sized()),
            "reset_env": lambda self, key, params: (jnp.zeros(params.n), Plain(0)),
        },
    ),
    ("env.max_steps_in_episode=None must be a number of steps, or inf for no limit", {
        "default_params": property(lambda self: environment.EnvParams(None))
    }),
    ("The time limit is 0 steps: an episode needs at least 1", {
        "default_params": property(lambda self: environment.EnvParams(0))
    }),
    # Within the functions.
    (
        "takes its key apart as if it were two numbers",
        {"reset_env": lambda self, key, params: (jnp.float32(key[1])[None], Plain(0))},
    ),
    ("an `if`, `while`, `and`, `or` or `not`", {
        "step_env": step_with(2, lambda state, params: 1.0 if state.time > 3 else 0.0)
    }),
    ("a function of NumPy is given an array of jax", {
        "step_env": step_with(2, lambda state, params: np.sin(state.time))
    }),
    ("a size, a range or an index of Python's", {
        "step_env": step_with(2, lambda state, params: [0.0, 1.0][state.time])
    }),
    ("float(), int(), bool() and .item() take a number out", {
        "step_env": step_with(2, lambda state, params: float(state.time))
    }),
    ("float(), int(), bool() and .item() take a number out", {
        "step_env": step_with(2, lambda state, params: state.time.item())
    }),
    ("(SystemExit: 3)", {"step_env": lambda self, *given: sys.exit(3)}),
    ("Slip.reset_env takes (params, key) and is given (key, params)", {
        "reset_env": lambda self, params, key: Sound.reset_env(self, key, params)
    }),
    ("Slip.action_mask takes () and is given (state, params): write action_mask(self", {
        "action_mask": lambda self: jnp.ones(2, bool)
    }),
    ("Slip has no step_env of its own: write step_env(self, key, state, action, params)", {
        "step_env": environment.Environment.step_env
    }),
    ("Slip has no observation_space of its own", {
        "observation_space": environment.Environment.observation_space
    }),
    ("metrics(info) fails with KeyError", {"metrics": lambda self, info: {"a": info["b"]}}),
    ("return a dict of one number a name", {"metrics": lambda self, info: "fast"}),
    ("A batch of Slip cannot be traced by jax (NotImplementedError: vmap is only supported for", {
        "step_env": step_with(2, lambda state, params: jax.pure_callback(
            lambda time: np.float32(0), jax.ShapeDtypeStruct((), jnp.float32), state.time
        ))
    }),
    ("a mask cannot be an index", {
        "step_env": step_with(2, lambda state, params: jnp.ones(2)[jnp.arange(2) > state.time])
    }),
    ("reset_env takes (key) and is given (key, params)", {"reset_env": lambda self, key: None}),
    # The spaces.
    ("is gymnasium's own Box", {
        "observation_space": lambda self, params: gymnasium.spaces.Box(0.0, 1.0, (1,))
    }),
    ("action_space is a property, and gymnax calls it", {
        "action_space": property(lambda self: spaces.Discrete(2))
    }),
    ("Slip.action_space takes () and is given (params)", {"action_space": lambda self: None}),
    ("action_space(params) fails with TypeError", {"action_space": lambda self, params: 1 + ""}),
    ("has no action: declare a Discrete space of 1 or more", {
        "action_space": lambda self, params: spaces.Discrete(0)
    }),
    ("whose n=2.5 is no whole number: give one", {
        "action_space": lambda self, params: spaces.Discrete(2.5)
    }),
    ("declares Discrete(1000000000), and a network needs a number for each value", {
        "action_space": lambda self, params: spaces.Discrete(10**9)
    }),
    ("declares Discrete(1000000000), and a network needs a number for each value", {
        "observation_space": lambda self, params: spaces.Discrete(10**9),
        "reset_env": lambda self, k, p: (jnp.int32(1), environment.EnvState(time=0)),
        "step_env": step_with(0, jnp.int32(1)),
    }),
    ("actions of shape (0,), which hold no number", {
        "action_space": lambda self, params: spaces.Box(0.0, 1.0, (0,))
    }),
    ("action bounds of shape (3,) for actions of shape (2,)", {
        "action_space": lambda self, params: spaces.Box(np.zeros(3), 1.0, (2,))
    }),
    ("[2, 1] at [1], whose lower bound lies above", {
        "action_space": lambda self, params: spaces.Box(np.array([0, 2]), 1.0, (2,))
    }),
    ("[inf, inf] at [0], whose bounds are the same infinity", {
        "action_space": lambda self, params: spaces.Box(np.inf, np.inf, (1,))
    }),
    ("declares an empty observation", {
        "observation_space": lambda self, params: spaces.Dict({}),
        "reset_env": lambda self, k, p: ({}, environment.EnvState(time=0)),
        "step_env": step_with(0, {}),
    }),
    ("has two leaves of the name 'a.b': rename one", {
        "observation_space": lambda self, params: spaces.Dict(
            {"a": spaces.Dict({"b": UNIT}), "a.b": UNIT}
        ),
        "reset_env": lambda self, k, p: (
            *({"a": {"b": jnp.ones(1)}, "a.b": jnp.ones(1)}, environment.EnvState(time=0)),
        ),
        "step_env": step_with(0, {"a": {"b": jnp.ones(1)}, "a.b": jnp.ones(1)}),
    }),
    ("observations of complex64", {
        "reset_env": lambda self, key, params: (
            *(jnp.ones(1, jnp.complex64), environment.EnvState(time=0)),
        ),
        "step_env": step_with(0, jnp.ones(1, jnp.complex64)),
    }),
    ("declares the observations Discrete(3) and returns float32 of shape ()", {
        "observation_space": lambda self, params: spaces.Discrete(3),
        "reset_env": lambda self, k, p: (jnp.float32(1), environment.EnvState(time=0)),
        "step_env": step_with(0, jnp.float32(1)),
    }),
]  # fmt: skip


@pytest.mark.parametrize("words, methods", SLIPS, ids=[words[:40] for words, _ in SLIPS])
def test_a_slip_is_named_in_one_sentence(words: str, methods: dict[str, Any]) -> None:
    with pytest.raises(InputError) as refused:
        registration.make(changed(**methods))
    sentence = str(refused.value)
    assert words in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "made, words",
    [
        (lambda: None, "returns nothing: return an environment"),
        (lambda: Sound, "returns the class Sound: return an environment, an instance"),
        (lambda: (Sound(), None, 1), "is a tuple of 3: give an environment, or the pair"),
        (lambda: sys.exit(3), "could not be made (SystemExit: 3)"),
    ],
)
def test_a_factory_that_returns_something_else_is_named(made: Any, words: str) -> None:
    with pytest.raises(InputError) as refused:
        registration.make(made)
    assert words in str(refused.value)


def test_a_leaf_may_be_named_with_dots_alone() -> None:
    dots = {"..": jnp.ones(1), "a/b": jnp.ones(1)}
    made = registration.make(
        changed(
            observation_space=lambda self, params: spaces.Dict({"..": UNIT, "a/b": UNIT}),
            reset_env=lambda self, k, p: (dots, environment.EnvState(time=0)),
            step_env=step_with(0, dots),
        )
    )
    assert sorted(made.observation_shape) == ["..", "a/b"]


def test_a_list_of_the_right_values_is_as_good_as_a_tuple() -> None:
    made = registration.make(
        changed(step_env=lambda self, *given: list(Sound.step_env(self, *given)))
    )
    assert made.observation_shape == (1,)


def test_metrics_may_be_constants_where_info_is_empty() -> None:
    made = registration.make(changed(metrics=lambda self, info: {"ones": 1.0}))
    found = leaves.own_metrics(made, {}, 3)
    assert isinstance(found, dict)
    assert found["ones"].tolist() == [1.0, 1.0, 1.0]


def test_without_a_slip_it_is_made() -> None:
    assert registration.make(changed()).observation_shape == (1,)


def test_an_environment_of_gymnasium_is_told_what_it_is() -> None:
    class Loop(gymnasium.Env):
        pass

    with pytest.raises(InputError, match="an environment of gymnasium, which steps in Python"):
        registration.make(Loop())


def test_a_state_of_its_own_needs_no_field_if_it_says_itself_when_it_is_truncated() -> None:
    own = changed(
        reset_env=lambda self, key, params: (jnp.ones(1), {"t": 0}),
        step_env=lambda self, key, state, action, params: (
            *(jnp.ones(1), {"t": state["t"] + 1}, 0.0, jnp.array(False), {}),
        ),
        is_truncated=lambda self, state, params: state["t"] >= 3,
    )
    assert registration.make(own).observation_shape == (1,)
