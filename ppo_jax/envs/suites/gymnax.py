"""Environments of gymnax >= 1.0, and users' own ones of the same API, as an `Environment`.

Only `reset_env`, `step_env` and `is_truncated` are used: gymnax's `step` resets by itself, which
costs a reset of every environment at every step and belongs to the rollout here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.config.errors import InputError
from ppo_jax.envs import params as parameters
from ppo_jax.envs import render
from ppo_jax.envs.interface import Box, Discrete, Environment
from ppo_jax.envs.suites import gymnax_names

# These declare float32 observations that only ever hold 0 and 1 (a test plays them to see it).
_BINARY_MODULES = ("gymnax.environments.minatar.", "gymnax.environments.misc.pong")

_METHODS = ("reset_env", "step_env", "is_truncated", "action_space", "observation_space")


def make(name: str) -> Environment:
    """The registered gymnax environment `name`.

    Raises:
        InputError: unknown name, or an environment that cannot be constructed here.
    """
    return adapt(*gymnax_names.construct(name), name=name)


def adapt(env: Any, params: Any = None, *, name: str | None = None) -> Environment:
    """An `Environment` of the gymnax-API instance `env`.

    Observations come out as float32, bool or uint8 (whole numbers of a Discrete space one-hot,
    scalars as [1]); rewards as float32 []; flags as bool [], never both set: termination wins.
    Reset and transition return leaves of the same strong types, so that a loop compiles once.

    Raises:
        InputError: `env` is not of this API, or its spaces or shapes cannot be trained on.
    """
    require_api(env)
    label = name or str(getattr(env, "name", type(env).__name__))
    params = parameters.as_numbers(env.default_params if params is None else params)
    action_space, receive = _action_space(env.action_space(params), label)
    observation_space = env.observation_space(params)
    key = jax.eval_shape(jax.random.key, 0)
    raw_observation, raw_state = _traced(env.reset_env, key, params, method=f"{label}.reset_env")
    action = jax.eval_shape(receive, _example_action(action_space))
    state_dtypes = jax.tree.map(lambda leaf: leaf.dtype, raw_state)

    def advance(key: Array, state: Any, action: Any, params: Any) -> tuple:
        """gymnax's transition, without casts."""
        observation, state, reward, terminated, info = env.step_env(key, state, action, params)
        return observation, state, reward, terminated, env.is_truncated(state, params), info

    # Where reset says 0 and the transition says 0.5, both must be float.
    for _ in range(2):
        example = jax.tree.map(_example, raw_state, state_dtypes)
        step = _traced(advance, key, example, action, params, method=f"{label}.step_env")
        _require_same_structure(raw_state, step[1], label)
        state_dtypes = jax.tree.map(_common_dtype, state_dtypes, step[1])
    _require_shapes(raw_observation, step, label)
    encode = _observation_encoder(env, observation_space, (raw_observation, step[0]), label)
    observation = jax.eval_shape(encode, raw_observation)

    def reset(key: Array, params: Any) -> tuple[Array, Any]:
        with jax.numpy_rank_promotion("allow"):
            observation, state = env.reset_env(key, params)
        return encode(observation), jax.tree.map(_strong, state, state_dtypes)

    def transition(key: Array, state: Any, action: Any, params: Any) -> tuple:
        with jax.numpy_rank_promotion("allow"):
            observation, state, reward, terminated, truncated, info = advance(
                key, state, receive(action), params
            )
        terminated = _strong(terminated, jnp.bool_).reshape(())
        truncated = _strong(truncated, jnp.bool_).reshape(()) & ~terminated
        return (
            encode(observation),
            jax.tree.map(_strong, state, state_dtypes),
            _strong(reward, jnp.float32).reshape(()),
            terminated,
            truncated,
            info,
        )

    limit = getattr(params, "max_steps_in_episode", None)
    return Environment(
        name=label,
        reset=reset,
        transition=transition,
        default_params=params,
        observation_shape=tuple(observation.shape),
        observation_dtype=observation.dtype.name,
        action_space=action_space,
        max_episode_steps=None if limit is None else int(limit),
        override=parameters.override,
        render=render.renderer(env, tuple(observation.shape)),
    )


def require_api(env: Any) -> None:
    """Refuse what is not an environment of gymnax >= 1.0.

    The class is asked, not the object: gymnax's wrappers forward every name they do not know to
    the environment within, so that `reset_env` of a wrapper would silently skip the wrapper.
    """
    kind = type(env)
    missing = [method for method in _METHODS if not callable(getattr(kind, method, None))]
    if not missing:
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


def observation_shape(env: Any, params: Any, label: str) -> tuple[int, ...]:
    """What `adapt(env).observation_shape` would be, without tracing a transition."""
    key = jax.eval_shape(jax.random.key, 0)
    raw, _ = _traced(env.reset_env, key, params, method=f"{label}.reset_env")
    encode = _observation_encoder(env, env.observation_space(params), (raw,), label)
    return tuple(jax.eval_shape(encode, raw).shape)


def action_space(env: Any, params: Any, label: str) -> Discrete | Box:
    """What `adapt(env).action_space` would be."""
    return _action_space(env.action_space(params), label)[0]


def _action_space(space: Any, label: str) -> tuple[Discrete | Box, Callable[[Any], Array]]:
    """Our action space, and what turns an action of it into the environment's."""
    spaces = _spaces()
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n)), lambda action: jnp.asarray(action, jnp.int32)
    if not isinstance(space, spaces.Box) or not jnp.issubdtype(space.dtype, jnp.floating):
        raise InputError(
            f"{label} has the action space {space}: only Discrete and real Box can be trained. "
            "Write an Environment with a MultiDiscrete space, or flatten it to one Box."
        )
    inner = tuple(np.atleast_1d(space.shape).astype(int)) if space.shape != () else ()
    shape = tuple(int(size) for size in inner) or (1,)
    bound = float(np.finfo(np.float32).max)
    low, high = (
        np.where(np.abs(limit) >= bound, np.sign(limit) * np.inf, limit).astype(np.float32)
        for limit in (_broadcast(end, shape, label) for end in (space.low, space.high))
    )
    return Box(shape, low, high), lambda action: jnp.asarray(action, space.dtype).reshape(inner)


def _broadcast(limit: Any, shape: tuple[int, ...], label: str) -> np.ndarray:
    try:
        return np.broadcast_to(np.asarray(limit, np.float64), shape)
    except ValueError:
        raise InputError(
            f"{label} declares action bounds of shape {np.shape(limit)} for actions of shape "
            f"{shape}: make them one number or of the same shape."
        ) from None


def _observation_encoder(
    env: Any, space: Any, examples: tuple[Any, ...], label: str
) -> Callable[[Any], Array]:
    """What turns the environment's observation into the one that is stored.

    `examples` are the observations (or their shapes) of reset and transition.
    """
    spaces = _spaces()
    if isinstance(space, spaces.Discrete):
        count = int(space.n)
        return lambda value: jax.nn.one_hot(jnp.asarray(value).reshape(()), count)
    if not isinstance(space, spaces.Box):
        raise InputError(
            f"{label} has the observation space {space}: only Box and Discrete can be trained. "
            "Return one array, for example by flattening the parts."
        )
    dtypes = {example.dtype for example in examples}
    small = dtypes == {jnp.dtype(jnp.bool_)} or dtypes == {jnp.dtype(jnp.uint8)}
    binary = type(env).__module__.startswith(_BINARY_MODULES)
    dtype = jnp.bool_ if binary else dtypes.pop() if small else jnp.float32
    shape = examples[0].shape or (1,)
    return lambda value: _strong(value, dtype).reshape(shape)


def _spaces() -> ModuleType:
    gymnax_names.import_gymnax()
    return importlib.import_module("gymnax.environments.spaces")


def _strong(value: Any, dtype: Any) -> Array:
    """`value` as an array of exactly `dtype`; extended dtypes (random keys) stay."""
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    return jax.lax.convert_element_type(value, jnp.dtype(dtype))


def _common_dtype(dtype: Any, leaf: Any) -> Any:
    return dtype if dtype == leaf.dtype else jnp.promote_types(dtype, leaf.dtype)


def _example(leaf: Any, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, dtype)


def _example_action(space: Discrete | Box) -> jax.ShapeDtypeStruct:
    if isinstance(space, Discrete):
        return jax.ShapeDtypeStruct((), jnp.int32)
    return jax.ShapeDtypeStruct(space.shape, jnp.result_type(float))


def _traced(function: Callable, *arguments: Any, method: str) -> Any:
    """The shapes that a user's function returns, or a sentence with what it raised."""
    try:
        with jax.numpy_rank_promotion("allow"):
            return jax.eval_shape(function, *arguments)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{method} cannot be traced by jax ({type(error).__name__}: {reason}): it must be "
            "written in jax.numpy, without Python branches on arrays."
        ) from error


def _require_same_structure(reset_state: Any, step_state: Any, label: str) -> None:
    same = jax.tree.structure(reset_state) == jax.tree.structure(step_state)
    shapes = [
        [leaf.shape for leaf in jax.tree.leaves(state)] for state in (reset_state, step_state)
    ]
    if not same or shapes[0] != shapes[1]:
        raise InputError(
            f"{label}: reset_env and step_env return states of different structure or shapes "
            f"({shapes[0]} and {shapes[1]}); make them equal."
        )


def _require_shapes(reset_observation: Any, step: tuple, label: str) -> None:
    observation, _, reward, terminated, truncated, _ = step
    for value in (reset_observation, observation):
        if not hasattr(value, "shape"):
            raise InputError(
                f"{label} returns an observation of type {type(value).__name__}; return one array."
            )
    shapes = tuple(jnp.shape(value) for value in (reset_observation, observation))
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{label}: reset_env returns an observation of shape {shapes[0]} and step_env one of "
            f"shape {shapes[1]}; make them equal."
        )
    for word, value in (("reward", reward), ("terminated", terminated), ("truncated", truncated)):
        if value.size != 1:
            raise InputError(f"{label} returns a {word} of shape {value.shape}; return one number.")
