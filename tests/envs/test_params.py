"""The door of environment parameters: a value arrives exactly, or is refused in one sentence."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import Layer, file_layer, resolve
from ppo_jax.config.values import env_value
from ppo_jax.envs import params as parameters
from ppo_jax.envs.interface import Discrete, Environment
from ppo_jax.training import schedules


@struct.dataclass
class Air:
    drag: float = 0.5
    is_thin: bool = False


class Pair(NamedTuple):
    first: Any = 1
    second: Any = 2


@struct.dataclass
class Params:
    """One field of each kind."""

    count: int = 5
    speed: float = 0.5
    flag: bool = True
    wind: Any = struct.field(default_factory=lambda: np.zeros(2, np.float32))
    grid: Any = struct.field(default_factory=lambda: jnp.zeros((2, 2), jnp.int32))
    ends: tuple = (0.0, 1)
    byte: Any = np.uint8(7)
    half: Any = struct.field(default_factory=lambda: jnp.bfloat16(1.0))
    air: Air = struct.field(default_factory=Air)
    pair: Pair = Pair()
    table: Any = struct.field(default_factory=lambda: {"left": 1.0})
    size: int = struct.field(pytree_node=False, default=3)
    mode: str = struct.field(pytree_node=False, default="easy")
    key: Any = struct.field(default_factory=lambda: jax.random.key(0))
    nothing: Any = None


PARAMS = parameters.as_numbers(Params())
ENVIRONMENT = Environment(
    name="typed",
    reset=lambda key, params: (jnp.ones(1), jnp.int32(0)),
    transition=lambda key, state, action, params: (
        *(jnp.ones(1), state + 1, params.speed, state > 3, jnp.bool_(False), {}),
    ),
    default_params=PARAMS,
    observation_shape=(1,),
    observation_dtype="float32",
    action_space=Discrete(2),
    max_episode_steps=None,
    override=parameters.override,
)


def arrived(name: str, value: Any) -> Any:
    """The parameters that reach the environment from a run's numbers and from Python alone."""
    config, hyper = Config(env=ENVIRONMENT), Hyper(env={name: value})
    arrays = schedules.as_arrays(config, hyper)

    def inside(env: dict) -> Any:
        return parameters.value_of(parameters.override(PARAMS, env), name)

    traced = jax.jit(inside)(arrays.env)  # as in a compiled run
    plain = inside(hyper.env)
    for way in (traced, arrays.env[name]):
        assert jax.tree.map(same_type, way, plain)
        jax.tree.map(np.testing.assert_array_equal, way, plain)
    return plain


def same_type(a: Any, b: Any) -> bool:
    assert (np.shape(a), a.dtype) == (np.shape(b), b.dtype)
    return True


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("count", 7, np.int32(7)),
        ("count", 7.0, np.int32(7)),
        ("count", "1e3", np.int32(1000)),
        ("count", 2**31 - 1, np.int32(2**31 - 1)),
        ("count", 16777217.0, np.int32(16777217)),  # float32 has no such number
        ("count", np.uint64(8), np.int32(8)),
        ("count", jnp.int8(-3), np.int32(-3)),
        ("speed", 2, np.float32(2)),
        ("speed", 3_000_000_000, np.float32(3e9)),  # beyond int32
        ("speed", 2**70, np.float32(2.0**70)),
        ("speed", "0.25", np.float32(0.25)),
        ("speed", np.float64(0.1), np.float32(0.1)),
        ("speed", jnp.bfloat16(1.5), np.float32(1.5)),
        ("speed", "inf", np.float32(np.inf)),
        ("flag", "false", np.bool_(False)),
        ("flag", True, np.bool_(True)),
        ("flag", 0, np.bool_(False)),
        ("flag", np.bool_(False), np.bool_(False)),
        ("wind", "1,2.5", np.float32([1, 2.5])),
        ("wind", [1, np.float64(2.5)], np.float32([1, 2.5])),
        ("wind", jnp.array([1, 2]), np.float32([1, 2])),
        ("grid", "[[1,2],[3,4]]", np.int32([[1, 2], [3, 4]])),
        ("grid", np.full((2, 2), 9.0), np.full((2, 2), 9, np.int32)),
        ("ends", [0.5, 3], (np.float32(0.5), np.int32(3))),
        ("byte", 255, np.uint8(255)),
        ("half", 0.5, jnp.bfloat16(0.5)),
        ("air.drag", 1, np.float32(1)),
        ("air.is_thin", "true", np.bool_(True)),
        ("pair.second", 4, np.int32(4)),
        ("table.left", 3, np.float32(3)),
    ],
)
def test_a_value_arrives_as_the_parameters_own_dtype_and_shape(
    name: str, value: Any, expected: Any
) -> None:
    found = arrived(name, value)
    jax.tree.map(same_type, found, expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jax.tree.structure(found) == jax.tree.structure(expected)


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("count", 0.5, "must be a whole number"),
        ("count", 2**31, "from -2147483648 to 2147483647: it is int32"),
        ("count", 2.0**31, "from -2147483648 to 2147483647"),
        ("count", -(2**40), "it is int32"),
        ("count", np.uint32(2**32 - 1), "it is int32"),
        ("count", 1e40, "it is int32"),
        ("count", np.inf, "must be a whole number"),
        ("count", True, "must be a number, such as 5"),
        ("count", "true", "must be a number, such as 5"),
        ("count", np.bool_(True), "must be a number"),
        ("count", [5], r"has shape \(1,\)"),
        ("count", [10**5000], "it is int32|thousands"),
        ("speed", 1e40, "no number that float32 can hold"),
        ("speed", 10**400, "no number that float32 can hold"),
        ("speed", 1e-50, "no number that float32 can hold"),
        ("speed", "true", "must be a number, such as 0.5"),
        ("speed", True, "must be a number, such as 0.5"),
        ("speed", np.nan, "must be a number"),
        ("speed", 1 + 2j, "must be a number"),
        ("speed", "fast", "must be a number, true, false or a list"),
        ("speed", None, "must be a number"),
        ("speed", Schedule(1.0, 2.0), "must be a number"),
        ("flag", 2, "must be true or false"),
        ("flag", 0.5, "must be true or false"),
        ("wind", 1.0, r"has shape \(\)"),
        ("wind", "1,2,3", r"has shape \(3,\)"),
        ("wind", [[1.0], [2.0, 3.0]], "must be a number"),
        ("wind", [1.0, True], "must be a number"),
        ("grid", [[1, 2], [3, 0.5]], "must be a whole number"),
        ("ends", [1.0], "has shape"),
        ("ends", 1.0, "has shape"),
        ("ends", [1.0, 0.5], r"env.ends\[1\].* must be a whole number"),
        ("byte", 256, "from 0 to 255: it is uint8"),
        ("byte", -1, "from 0 to 255"),
        ("air", 1.0, "is a group of parameters: set env.air.drag, env.air.is_thin"),
        ("air.drg", 1.0, "it has air.drag, air.is_thin. Nearest: drag"),
        ("speed.x", 1.0, "is no parameter of this environment: it has none"),
        ("size", 4, "size is static"),
        ("size", "4", "size is static"),
        ("mode", 1, "mode is static"),
        ("key", 3, "no real number"),
        ("nothing", 3, "its default None has no type"),
        ("spead", 1.0, "Nearest: speed"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_one_sentence(
    name: str, value: Any, words: str
) -> None:
    for way in (
        lambda: parameters.override(PARAMS, {name: value}),
        lambda: schedules.as_arrays(Config(env=ENVIRONMENT), Hyper(env={name: value})),
    ):
        with pytest.raises(InputError, match=words) as refused:
            way()
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 400


def test_only_fields_that_can_be_set_are_offered() -> None:
    with pytest.raises(InputError) as refused:
        parameters.override(PARAMS, {"mood": 1}, rigid=("count", "half"))
    assert str(refused.value) == (
        "'mood' is no parameter of this environment: it has speed, flag, wind, grid, ends, byte, "
        "air, pair, table."
    )
    empty = parameters.as_numbers({"angles": (None, None)})
    with pytest.raises(InputError, match=r"it has none.$"):
        parameters.override(empty, {"mood": 1})


def test_flag_file_and_python_give_the_same_number() -> None:
    """Also nested, where a file has a table and a flag a dot."""
    flag = Layer("flag", {}, {"count": "16777217", "air.drag": "3", "wind": "[1,2]"})
    table = {"count": 16777217, "air": {"drag": 3}, "wind": [1, 2]}
    ways = [resolve([flag]).hyper, resolve([file_layer("a.toml", {"hyper": {"env": table}})]).hyper]
    ways.append(Hyper(env=table))
    found = [schedules.as_arrays(Config(env=ENVIRONMENT), way).env for way in ways]
    for each in found:
        assert each["count"] == 16777217
        assert [leaf.dtype for leaf in each.values()] == [leaf.dtype for leaf in found[0].values()]
        jax.tree.map(np.testing.assert_array_equal, each, found[0])


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("count", jnp.float32(2.5), "is given as float32 where the environment has int32"),
        ("byte", jnp.int32(300), "is given as int32 where the environment has uint8"),
        ("flag", jnp.int32(1), "is given as int32 where the environment has bool"),
        ("wind", jnp.float32(1.0), "has shape"),
        ("size", jnp.int32(4), "size is static"),
    ],
)
def test_a_traced_value_of_a_type_that_cannot_fit_is_refused(
    name: str, value: Any, words: str
) -> None:
    def use(x: Any) -> Any:
        return parameters.value_of(parameters.override(PARAMS, {name: x}), name)

    with pytest.raises(InputError, match=words):
        jax.jit(use)(value)
    with pytest.raises(InputError, match=words):
        jax.vmap(use)(value[None])


def test_traced_whole_numbers_may_set_a_real_parameter() -> None:
    def speed(x: Any) -> Any:
        return parameters.override(PARAMS, {"speed": x}).speed

    found = jax.vmap(speed)(jnp.arange(3))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    "default, words",
    [
        ("easy", "mode='easy', which is a text"),
        (2**31, "mode=2147483648, which int32 cannot hold"),
        (10**30, "cannot hold"),
        (len, "of type builtin_function_or_method"),
        (np.array(["a"]), "an array of dtype <U1 and no number"),
    ],
)
def test_a_default_that_is_no_number_is_refused(default: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parameters.as_numbers({"mode": default}, "Maze")


def test_defaults_get_a_strong_dtype_of_their_own() -> None:
    found = parameters.as_numbers(
        {"a": 3, "b": 0.5, "c": True, "d": np.zeros(2), "e": jnp.asarray(2.0), "f": np.inf}
    )
    assert {name: leaf.dtype.name for name, leaf in found.items()} == {
        **{"a": "int32", "b": "float32", "c": "bool", "d": "float32", "e": "float32"},
        "f": "float32",
    }
    assert not found["e"].weak_type


@pytest.mark.parametrize(
    "limit, steps", [(10, 10), (10.0, 10), (9.5, 10), (np.inf, None), (jnp.int32(3), 3)]
)
def test_a_time_limit_follows_its_parameter(limit: Any, steps: int | None) -> None:
    class Limited(NamedTuple):
        max_steps_in_episode: Any

    assert parameters.time_limit(Limited(limit)) == steps
    assert parameters.time_limit(()) is None


def test_an_array_can_be_indexed_by_what_is_traced() -> None:
    """The defaults, and values that are known while the program is traced."""
    for params in (PARAMS, parameters.override(PARAMS, {"wind": [3.0, 4.0]})):
        found = jax.jit(lambda i, params=params: params.wind[i])(1)
        assert float(found) == params.wind[1]


ANY_NUMBER = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=6),
    st.none(),
    st.integers(-(2**63), 2**64 - 1).map(lambda x: np.array(x)[()]),
    st.floats(width=16).map(np.float16),
)
ANY_VALUE = st.recursive(ANY_NUMBER, lambda parts: st.lists(parts, max_size=3), max_leaves=6)


@given(name=st.sampled_from(["count", "speed", "flag", "wind", "ends", "byte"]), value=ANY_VALUE)
@settings(max_examples=400, deadline=None)
def test_any_value_arrives_exactly_or_is_refused(name: str, value: Any) -> None:
    default = parameters.value_of(PARAMS, name)
    try:
        found = parameters.value_of(parameters.override(PARAMS, {name: value}), name)
    except InputError:
        return
    assert jax.tree.structure(found) == jax.tree.structure(default)
    jax.tree.map(same_type, found, default)
    given_numbers = np.ravel(env_value("x", value)).astype(object)
    for leaf, number in zip(np.ravel(np.array(found, object)), given_numbers, strict=True):
        exact = np.float32(number) if isinstance(leaf, float | np.floating) else number
        assert leaf == exact
