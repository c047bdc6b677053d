"""Environments of gymnax >= 1.0, and users' own ones of the same API, as an `Environment`.

Only `reset_env`, `step_env` and `is_truncated` are used: gymnax's `step` resets by itself, which
costs a reset of every environment at every step and belongs to the rollout here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.config.errors import RAISED, InputError
from ppo_jax.envs import bounds, leaves, render, slips
from ppo_jax.envs import params as parameters
from ppo_jax.envs.actions import box_of, example_action
from ppo_jax.envs.conform import wider
from ppo_jax.envs.interface import ActionSpace, Environment, Raw
from ppo_jax.envs.suites.gymnax import actions as gymnax_actions
from ppo_jax.envs.suites.gymnax import limits, spaces
from ppo_jax.envs.suites.gymnax import names as gymnax_names
from ppo_jax.envs.suites.gymnax import observations as gymnax_observations
from ppo_jax.envs.suites.gymnax.observations import plain, with_mask
from ppo_jax.envs.suites.gymnax.spaces import strong

_ARGUMENTS = {
    "reset_env": ("key", "params"),
    "step_env": ("key", "state", "action", "params"),
    "is_truncated": ("state", "params"),
    "action_space": ("params",),
    "observation_space": ("params",),
}
_METHODS = tuple(_ARGUMENTS)
_ARGUMENTS["action_mask"] = ("state", "params")  # may be missing
_ARGUMENTS[limits.DECLARED] = ("params",)
_STEP = ("observation", "state", "reward", "terminated", "info")


class Traced(NamedTuple):
    """The shapes and dtypes of what an environment returns."""

    observations: tuple[Any, Any]  # from reset_env and step_env, without a mask of `action_mask`
    masks: tuple[Any, Any]  # from the method `action_mask`, None without it
    state_dtypes: Any  # wide enough for the states of both


def make(name: str) -> Environment:
    """The registered gymnax environment `name`.

    Raises:
        InputError: unknown name, or an environment that cannot be constructed here.
    """
    return adapt(*gymnax_names.construct(name), name=name)


def adapt(env: Any, params: Any = None, *, name: str | None = None) -> Environment:
    """An `Environment` of the gymnax-API instance `env`.

    Observations come out as float32, bool or uint8 (whole numbers of a Discrete space one-hot,
    scalars as [1]), leaf by leaf if there are several. A method `action_mask(state, params)` adds
    a leaf of that name. Actions of several spaces are dials and real numbers here. Rewards come
    out as float32 []; flags as bool [], never both set: termination wins. Reset and transition
    return leaves of the same strong types, so that a loop compiles once.

    Raises:
        InputError: `env` is not of this API, or its spaces or shapes cannot be trained on.
    """
    require_api(env)
    own_name = getattr(env, "name", None)
    label = name or (own_name if isinstance(own_name, str) else type(env).__name__)
    limit = limits.limit_of(env, label)
    params = _parameters(env, params, label)
    parameters.require_steps(params, limit)
    actions = gymnax_actions.actions(env, params, label)
    traced = _trace(env, params, actions, label)
    observations = gymnax_observations.observations(env, params, traced.observations, label)
    observation = jax.eval_shape(observations.encode, traced.observations[0])
    space = observations.space
    if traced.masks[0] is not None:
        if isinstance(space, dict) and not isinstance(observation, dict):
            space = {f"{leaves.WHOLE}.{name}": found for name, found in space.items()}
        observation = with_mask(observation, traced.masks[0])
    raw = Raw(space, *_raw_functions(env, actions), actions.form)
    reset, transition = _functions(env, actions, observations, traced.state_dtypes)

    def override(params: Any, values: Mapping[str, Any]) -> Any:
        rigid = (*actions.rigid, *observations.rigid)
        for place in parameters.flat_names(values):
            if place.split(".")[0] in rigid:
                raise _cannot_follow(label, place)
        changed = parameters.override(params, values, rigid)
        parameters.require_steps(changed, limit)
        parameters.require_within(changed, gymnax_names.LIMITS.get(name or "", {}))
        if actions.bounds is not None and not spaces.is_traced(changed):
            _require_bounds(actions, changed, label)
        return changed

    return Environment(
        name=label,
        reset=reset,
        transition=transition,
        default_params=params,
        observation=observation,
        action_space=actions.space,
        max_episode_steps=limit,
        override=override,
        render=render.renderer(env, tuple(getattr(observation, "shape", ()))),
        action_bounds=actions.bounds,
        raw=raw,
        metrics=env.metrics if callable(getattr(type(env), "metrics", None)) else None,
        evaluation_mode=getattr(env, "evaluation_mode", "deterministic"),
        is_heavy=bool(getattr(env, "is_heavy", False)),
    )


def _functions(
    env: Any,
    actions: gymnax_actions.Actions,
    observations: gymnax_observations.Observations,
    state_dtypes: Any,
) -> tuple[Callable, Callable]:
    """Reset and transition as the contract wants them."""

    def encode(observation: Any, state: Any, params: Any) -> Any:
        stored = observations.encode(plain(observation))
        mask = _mask(env, state, params)
        return stored if mask is None else with_mask(stored, jnp.asarray(mask))

    def reset(key: Array, params: Any) -> tuple[Any, Any]:
        with jax.numpy_rank_promotion("allow"):
            observation, state = env.reset_env(key, params)
        return encode(observation, state, params), jax.tree.map(strong, state, state_dtypes)

    def transition(key: Array, state: Any, action: Any, params: Any) -> tuple:
        observation, state, reward, terminated, truncated, info = _advance(
            env, actions, key, state, action, params
        )
        terminated = strong(terminated, jnp.bool_).reshape(())
        truncated = strong(truncated, jnp.bool_).reshape(()) & ~terminated
        return (
            encode(observation, state, params),
            jax.tree.map(strong, state, state_dtypes),
            strong(reward, jnp.float32).reshape(()),
            terminated,
            truncated,
            info,
        )

    return reset, transition


def _raw_functions(env: Any, actions: gymnax_actions.Actions) -> tuple[Callable, Callable]:
    """Reset and transition with observations and flags as the environment has them."""

    def own(observation: Any, state: Any, params: Any) -> Any:
        observation = jax.tree.map(jnp.asarray, plain(observation))
        mask = _mask(env, state, params)
        return observation if mask is None else with_mask(observation, jnp.asarray(mask))

    def reset(key: Array, params: Any) -> Any:
        with jax.numpy_rank_promotion("allow"):
            observation, state = env.reset_env(key, params)
        return own(observation, state, params)

    def transition(key: Array, state: Any, action: Any, params: Any) -> tuple:
        observation, state, _, *flags, _ = _advance(env, actions, key, state, action, params)
        terminated, truncated = (jnp.asarray(flag).reshape(()) for flag in flags)
        return own(observation, state, params), terminated, truncated

    return reset, transition


def _advance(
    env: Any, actions: gymnax_actions.Actions, key: Array, state: Any, action: Any, params: Any
) -> tuple:
    """gymnax's transition with its time limit, without casts."""
    with jax.numpy_rank_promotion("allow"):
        observation, state, reward, terminated, info = env.step_env(
            key, state, actions.receive(action), params
        )
        truncated = limits.is_truncated(env, state, params)
        return observation, state, reward, terminated, truncated, info


def _mask(env: Any, state: Any, params: Any) -> Any | None:
    """The flags of the method `action_mask(state, params)`, None if there is no such method."""
    if not callable(getattr(type(env), "action_mask", None)):
        return None
    with jax.numpy_rank_promotion("allow"):
        return env.action_mask(state, params)


def _parameters(env: Any, params: Any, label: str) -> Any:
    """The default parameters as numbers, or a sentence with what is wrong with them."""
    if params is None:
        try:
            with jax.numpy_rank_promotion("allow"):
                params = env.default_params
        except RAISED as error:
            raise InputError(
                f"{label}.default_params fails with {type(error).__name__}: {error}; it is a "
                "property that returns the parameters."
            ) from error
    if callable(params):
        raise InputError(
            f"{label}.default_params is a method, and gymnax reads it without a call: write "
            "@property above it."
        )
    return parameters.as_numbers(params, label)


def _checked_start(env: Any, label: str, key: Array, params: Any) -> tuple:
    """`env.reset_env` with a sentence for each slip."""
    names, method = ("observation", "state"), f"{label}.reset_env"
    observation, state = slips.require_values(env.reset_env(key, params), names, method)
    _require_arrays(observation, label)
    slips.require_numbers(state, f"{method}: state")
    return plain(observation), state, _checked_mask(env, state, params, label)


def _checked_step(env: Any, label: str, key: Array, state: Any, action: Any, params: Any) -> tuple:
    """`env.step_env` and its time limit with a sentence for each slip."""
    method = f"{label}.step_env"
    values = slips.require_values(env.step_env(key, state, action, params), _STEP, method)
    _require_arrays(values[0], label)
    for word, value in zip(_STEP[1:], values[1:], strict=True):
        slips.require_numbers(value, f"{method}: {word}")
    observation, state, reward, terminated, info = values
    limits.require_readable(env, state, params, label)
    truncated = limits.is_truncated(env, state, params)
    _require_one(reward, "reward", label)
    _require_one(terminated, "terminated", label)
    _require_one(truncated, "truncated", label)
    mask = _checked_mask(env, state, params, label)
    return plain(observation), state, reward, terminated, truncated, info, mask


def _checked_mask(env: Any, state: Any, params: Any, label: str) -> Any | None:
    mask = _mask(env, state, params)
    if mask is not None and not isinstance(mask, slips.NUMBERS):
        raise InputError(
            f"{label}.action_mask returns a {type(mask).__name__}: return one array of flags, "
            "those of several dials side by side."
        )
    return mask


def _trace(env: Any, params: Any, actions: gymnax_actions.Actions, label: str) -> Traced:
    """The shapes of an episode's start and of its steps; refuses what no loop can carry."""

    start, advance = (partial(checked, env, label) for checked in (_checked_start, _checked_step))
    key = jax.eval_shape(jax.random.key, 0)
    first, state, mask = slips.traced(start, key, params, method=f"{label}.reset_env")
    action = jax.eval_shape(actions.receive, example_action(actions.space))
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, state)
    # If reset returns 0 and the transition 0.5, both must be float.
    for _ in range(2):
        example = jax.tree.map(_example, state, dtypes)
        step = slips.traced(
            advance, key, example, action, params, method=f"{label}.step_env", state=state
        )
        slips.require_same_state(state, step[1], label)
        dtypes = jax.tree.map(wider, dtypes, step[1])
    slips.require_no_memory(env, label)
    leaves.require_same_tree(first, step[0], label)
    return Traced((first, step[0]), (mask, step[-1]), dtypes)


def _require_arrays(observation: Any, label: str) -> None:
    """Refuse what is neither an array nor a tree of arrays."""
    for leaf in jax.tree.leaves(plain(observation), is_leaf=lambda node: isinstance(node, list)):
        if not slips.is_number(leaf):
            kind = getattr(leaf, "dtype", f"type {type(leaf).__name__}")
            raise InputError(
                f"{label} returns an observation of {kind}; return one array of numbers, "
                "jnp.array([...]), or a dict or tuple of arrays."
            )


def _require_one(value: Any, word: str, label: str) -> None:
    if not isinstance(value, slips.NUMBERS) or math.prod(jnp.shape(value)) != 1:
        kind = f"shape {jnp.shape(value)}" if hasattr(value, "shape") else type(value).__name__
        raise InputError(f"{label} returns a {word} of {kind}; return one number.")
    dtype = jnp.result_type(value)
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
        raise InputError(f"{label} returns a {word} of {dtype}; return one real number.")


def _cannot_follow(label: str, name: str) -> InputError:
    return InputError(
        f"env.{name} cannot be set: the spaces of {label} use it as a Python number, as their "
        "size or as their number of values, so the policy cannot follow it; write bounds of real "
        "numbers in jax.numpy, declare the widest bounds of whole numbers, or name a factory "
        "module:function that returns the environment and its parameters."
    )


def _require_bounds(actions: gymnax_actions.Actions, params: Any, label: str) -> None:
    """Refuse parameters that break the bounds of actions."""
    assert actions.bounds is not None
    low, high = actions.bounds(params)
    bounds.require_sound(low, high, label)
    box = box_of(actions.space)
    assert box is not None
    for now, before in ((low, box.low), (high, box.high)):
        if (np.isfinite(now) != np.isfinite(before)).any():
            raise InputError(
                f"{label} has the action bounds {low} to {high} under these parameters: a bound "
                "that is finite by default must stay so, and an infinite one infinite."
            )


def require_api(env: Any) -> None:
    """Refuse what is not an environment of gymnax >= 1.0.

    The class is asked, not the object: gymnax's wrappers forward every name they do not know to
    the environment within, so that `reset_env` of a wrapper would silently skip the wrapper.
    """
    kind = type(env)
    outside = {base.__module__.partition(".")[0] for base in kind.__mro__} & {"gymnasium", "gym"}
    if outside and not hasattr(kind, "step_env"):
        raise InputError(
            f"{kind.__name__} is an environment of {outside.pop()}, which steps in Python and "
            "cannot be compiled: write its step in jax.numpy with gymnax's API "
            "(docs/extending.md)."
        )
    for method in _METHODS:
        if isinstance(getattr(kind, method, None), property):
            raise InputError(
                f"{kind.__name__}.{method} is a property, and gymnax calls it: remove @property."
            )
    missing = [method for method in _METHODS if not callable(getattr(kind, method, None))]
    if not missing:
        slips.require_methods(kind, _ARGUMENTS)
        return
    if "reset_env" in missing and callable(getattr(env, "reset_env", None)):
        raise InputError(
            f"{kind.__name__} is a wrapper without {', '.join(missing)} of its own: wrappers of "
            "`step` and `reset` would be skipped here, so pass the environment within it."
        )
    if missing == ["is_truncated"]:
        raise InputError(
            f"{kind.__name__} has no is_truncated: before gymnax 1.0 `done` merged the time limit "
            "with termination, which trains wrong values. Base it on gymnax >= 1.0.1 or define "
            "is_truncated(state, params)."
        )
    raise InputError(
        f"{kind.__name__} is no environment: it lacks {', '.join(missing)} of gymnax >= 1.0. Pass "
        "a gymnax name, an object of that API, or an Environment."
    )


def observation_shape(env: Any, params: Any, label: str) -> Any:
    """The `observation_shape` of `adapt(env)`, without tracing a transition."""
    key = jax.eval_shape(jax.random.key, 0)
    raw, _ = slips.traced(env.reset_env, key, params, method=f"{label}.reset_env")
    raw = plain(raw)
    encode = gymnax_observations.observations(env, params, (raw,), label).encode
    return jax.tree.map(lambda leaf: tuple(leaf.shape), jax.eval_shape(encode, raw))


def action_space(env: Any, params: Any, label: str) -> ActionSpace:
    """The `action_space` of `adapt(env)`."""
    return gymnax_actions.actions(env, params, label).space


def _example(leaf: Any, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, dtype)
