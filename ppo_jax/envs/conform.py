"""A suite's own reset and step as an `Environment`, and a time limit for suites without one.

`--env.NAME` sets the numbers of an adapter's `params`. A suite fixes more when it makes an
environment, such as sizes and physics; a factory of the user's own sets that.

An adapter bears the name of its suite's package, so it imports that by `import_module`: a type
checker without the package would take the adapter for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.config.errors import InputError
from ppo_jax.config.values import short
from ppo_jax.envs import leaves
from ppo_jax.envs import params as parameters
from ppo_jax.envs.actions import example_action
from ppo_jax.envs.interface import ActionSpace, Environment
from ppo_jax.envs.suites.gymnax.spaces import strong

# The settings that `make` takes beside an id, each with the value it has or an example; called
# when a parameter is refused
Fixed: TypeAlias = Callable[[], Mapping[str, Any]]
_KEPT = (jnp.dtype(jnp.bool_), jnp.dtype(jnp.uint8))


def conform(
    name: str,
    reset: Callable[[Any, Any], tuple[Any, Any]],
    step: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any, Any, Any, Any]],
    *,
    params: Any,
    action_space: ActionSpace,
    max_episode_steps: int | Callable[[Any], int | None] | None,
    fixed: Fixed = dict,
    integers: tuple[tuple[str, int, int], ...] = (),
    **declared: Any,
) -> Environment:
    """An `Environment` of a suite's functions, which may return any dtype and weak types.

    Observations become float32, unless they are bool or uint8, or one of several leaves that holds
    few whole numbers, which is int32 and not normalised; rewards float32 []; flags bool [],
    never both set: termination wins. States have the same dtypes after reset and transition, so
    that a loop compiles once.

    Args:
        name: `suite/id`.
        reset: (key, params) -> (observation, state).
        step: (key, state, action, params) -> (observation, state, reward, terminated, truncated,
            info). It never resets.
        params: what `--env.NAME` may set: only numbers that take effect.
        fixed: -> the settings that the suite fixes when it makes an environment, by name.
        integers: leaves that hold whole numbers, as in `Environment`.
        declared: `render`, `metrics`, `evaluation_mode` and `is_heavy`, as in `Environment`.

    Raises:
        InputError: from `override`, for a number that the suite fixes, or no step of an episode.
    """
    params = parameters.as_numbers(params, name)
    reset, step = _ranked(reset), _ranked(step)
    dtypes = _state_dtypes(reset, step, params, action_space)

    shown, _ = jax.eval_shape(reset, jax.eval_shape(jax.random.key, 0), params)
    store = partial(_stored, leaves.few_valued(integers, leaves.named(shown)))

    def start(key: Array, params: Any) -> tuple[Any, Any]:
        observation, state = reset(key, params)
        return store(observation), jax.tree.map(strong, state, dtypes)

    def transition(key: Array, state: Any, action: Any, params: Any) -> tuple:
        observation, state, reward, terminated, truncated, info = step(key, state, action, params)
        terminated = strong(terminated, jnp.bool_).reshape(())
        return (
            store(observation),
            jax.tree.map(strong, state, dtypes),
            strong(reward, jnp.float32).reshape(()),
            terminated,
            strong(truncated, jnp.bool_).reshape(()) & ~terminated,
            info,
        )

    def override(params: Any, values: Mapping[str, Any]) -> Any:
        refuse_fixed(name, fixed, values)
        changed = parameters.override(params, values)
        if callable(max_episode_steps):
            parameters.require_steps(changed, max_episode_steps)
        return changed

    first, _ = jax.eval_shape(start, jax.eval_shape(jax.random.key, 0), params)
    return Environment(
        name=name,
        reset=start,
        transition=transition,
        default_params=params,
        observation=first,
        action_space=action_space,
        max_episode_steps=max_episode_steps,
        override=override,
        integers=integers,
        **declared,
    )


class LimitParams(NamedTuple):
    """The one parameter of an environment whose suite fixes everything else."""

    max_steps_in_episode: Any


class Timed(NamedTuple):
    """A state and its age."""

    state: Any
    time: Array  # [], int32, transitions since the reset
    sums: Any = ()  # name -> [], the episode's metrics so far


def with_time_limit(environment: Environment, steps: int, fixed: Fixed = dict) -> Environment:
    """`environment`, truncated after `steps` transitions unless it terminates then.

    The limit is the parameter `max_steps_in_episode`, which may be traced. Metrics of a step
    become their sums over an episode.

    Args:
        environment: without a time limit and without parameters.
        fixed: as in `conform`.
    """
    assert environment.default_params == ()
    render, names = environment.render, leaves.metric_names(environment)

    def override(params: LimitParams, values: Mapping[str, Any]) -> LimitParams:
        refuse_fixed(environment.name, fixed, values)
        changed = parameters.override(params, values)
        parameters.require_steps(changed, parameters.time_limit)
        return changed

    def reset(key: Array, params: LimitParams) -> tuple[Any, Timed]:
        observation, state = environment.reset(key, ())
        sums = {name: jnp.zeros(()) for name in names} or ()
        return observation, Timed(state, jnp.zeros((), jnp.int32), sums)

    def transition(key: Array, timed: Timed, action: Any, params: LimitParams) -> tuple:
        observation, state, reward, terminated, _, info = environment.transition(
            key, timed.state, action, ()
        )
        time = timed.time + 1
        truncated = (time >= params.max_steps_in_episode) & ~terminated
        more = environment.metrics(info) if environment.metrics else {}
        sums = {name: timed.sums[name] + more[name] for name in names} or ()
        info = {"metrics": sums} if names else info
        return observation, Timed(state, time, sums), reward, terminated, truncated, info

    return environment._replace(
        reset=reset,
        transition=transition,
        default_params=parameters.as_numbers(LimitParams(steps)),
        max_episode_steps=parameters.time_limit,
        override=override,
        metrics=(lambda info: info["metrics"]) if names else None,
        render=render and (lambda timed, params: render(timed.state, ())),
    )


def _ranked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, in which vectors may meet matrices: suites lean on it."""

    def ranked(*given: Any) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return function(*given)

    return ranked


def _stored(whole: Mapping[str, Any], observation: Any) -> Any:
    """An observation in the dtypes that `conform` states; `whole` are leaves of whole numbers."""

    def cast(name: str, leaf: Any) -> Array:
        dtype = jnp.result_type(leaf)
        if name in whole and name != leaves.WHOLE and dtype not in _KEPT:
            return strong(leaf, jnp.int32)
        return strong(leaf, dtype if dtype in _KEPT else jnp.float32)

    cast_leaves = [cast(name, leaf) for name, leaf in leaves.named(observation).items()]
    return jax.tree.unflatten(jax.tree.structure(observation), cast_leaves)


def _state_dtypes(reset: Callable, step: Callable, params: Any, space: Any) -> Any:
    """Dtypes wide enough for the states of reset and step."""
    key = jax.eval_shape(jax.random.key, 0)
    _, state = jax.eval_shape(reset, key, params)
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, state)
    action = example_action(space)
    for _ in range(2):  # if reset returns 0 and step 0.5, both must be float
        example = jax.tree.map(lambda x, dtype: jax.ShapeDtypeStruct(x.shape, dtype), state, dtypes)
        after = jax.eval_shape(step, key, example, action, params)[1]
        dtypes = jax.tree.map(wider, dtypes, after)
    return dtypes


def wider(dtype: Any, leaf: Any) -> Any:
    """The dtype that holds values of `dtype` and of a leaf."""
    return dtype if dtype == leaf.dtype else jnp.promote_types(dtype, leaf.dtype)


def arguments(*functions: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of functions that have a default, with it."""
    return {
        name: argument.default
        for function in functions
        for name, argument in inspect.signature(function).parameters.items()
        if argument.default is not inspect.Parameter.empty
    }


def refuse_fixed(name: str, fixed: Fixed, values: Mapping[str, Any]) -> None:
    """Refuse a setting that the suite fixes.

    Args:
        name: `suite/id`.
        values: the parameters that a user sets.

    Raises:
        InputError: the sentence has the call of `make` for a factory.
    """
    settings = fixed() if values else {}
    for place, value in parameters.flat_names(values).items():
        if place not in settings:
            continue
        suite, _, own = name.partition("/")
        raise InputError(
            f"env.{place}={short(value)} cannot be set: {suite} fixes it when {name} is made; name "
            f"a factory module:function that returns ppo_jax.envs.suites.{suite}.make({own!r}, "
            f"{_argument(place, settings[place], value)})."
        )


def _argument(place: str, default: Any, value: Any) -> str:
    """One argument of a call that works: the value if it is of the right kind, else an example."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    word = place.rpartition(".")[2]  # stands for an object, such as a function
    example = repr(default) if _is_plain(default) else word
    shown = short(value) if _fits(value, default) else example
    return f"{place}={shown}" if place.isidentifier() else f"**{{{place!r}: {shown}}}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return bool(value) and all(map(_is_plain, value))
    return type(value) in (bool, int, float, str)


def _fits(value: Any, default: Any) -> bool:
    """Check for a value of the same kind, and of the same length if it is a list."""
    if isinstance(default, tuple | list):
        is_row = isinstance(value, tuple | list) and len(value) == len(default)
        return is_row and all(map(_fits, value, default))
    if type(default) is float:
        return type(value) in (int, float)
    return _is_plain(default) and type(value) is type(default)
