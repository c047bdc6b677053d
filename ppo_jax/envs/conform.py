"""A suite's own reset and step as an `Environment`, and a time limit for suites without one.

An adapter bears the name of its suite's package, so it imports that by `import_module`: a type
checker without the package would take the adapter for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.errors import InputError
from ppo_jax.config.values import short
from ppo_jax.envs import leaves
from ppo_jax.envs import params as parameters
from ppo_jax.envs.actions import example_action
from ppo_jax.envs.interface import ActionSpace, Environment
from ppo_jax.envs.suites.gymnax.spaces import strong

_KEPT = (jnp.dtype(jnp.bool_), jnp.dtype(jnp.uint8))


def conform(
    name: str,
    reset: Callable[[Any, Any], tuple[Any, Any]],
    step: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any, Any, Any, Any]],
    *,
    params: Any,
    action_space: ActionSpace,
    max_episode_steps: int | Callable[[Any], int | None] | None,
    fixed: tuple[str, ...] = (),
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
        fixed: names of numbers that the suite fixes when it makes an environment.
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
        for place, value in parameters.flat_names(values).items():
            if place in fixed:
                raise _is_fixed(name, place, value)
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


def with_time_limit(environment: Environment, steps: int) -> Environment:
    """`environment`, truncated after `steps` transitions unless it terminates then.

    The limit is the parameter `max_steps_in_episode`, which may be traced. Metrics of a step
    become their sums over an episode.

    Args:
        environment: without a time limit and without parameters.
    """
    assert environment.default_params == ()
    render, names = environment.render, leaves.metric_names(environment)

    def override(params: LimitParams, values: Mapping[str, Any]) -> LimitParams:
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
        dtypes = jax.tree.map(_wider, dtypes, after)
    return dtypes


def _wider(dtype: Any, leaf: Any) -> Any:
    return dtype if dtype == leaf.dtype else jnp.promote_types(dtype, leaf.dtype)


def _is_fixed(name: str, place: str, value: Any) -> InputError:
    suite, _, own = name.partition("/")
    return InputError(
        f"env.{place}={short(value)} cannot be set: {suite} fixes it when {name} is made; name a "
        f"factory module:function that returns ppo_jax.envs.suites.{suite}.make({own!r}, "
        f"{place}={short(value)})."
    )
