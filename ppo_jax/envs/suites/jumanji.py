"""Jumanji: games and combinatorial problems, most of them with masked actions.

Observations are dicts, with the mask as the leaf `action_mask`. The discount of jumanji's TimeStep
tells termination (0) from truncation. Time limits are fixed when an environment is made, and
jumanji itself counts them as termination nearly everywhere.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config.errors import InputError
from ppo_jax.envs.conform import arguments, conform
from ppo_jax.envs.interface import ACTION_MASK, Box, Discrete, Environment, MultiDiscrete

suite: Any = import_module("jumanji")

_DOWNLOADS = ("Sokoban-v0",)  # when they are made
# Whole numbers whose bounds jumanji does not declare: the exponents of 2048's tiles, at most 2^17
_UNDECLARED = {"Game2048-v1": (("board", 0, 17),)}


class MaskParams(NamedTuple):
    """The one parameter of an environment with masked actions."""

    masked: Any  # bool; False allows every action, to see what the mask is worth


def make(name: str, rewards: str = "one", **settings: Any) -> Environment:
    """The environment `name` of jumanji.

    Args:
        rewards: "sum" adds the rewards of several agents; "one" refuses them.
        settings: of its constructor, such as `time_limit=100`.

    Raises:
        InputError: it has several agents with rewards of their own, or would download its levels.
    """
    if name in _DOWNLOADS and "generator" not in settings:
        raise InputError(
            f"jumanji/{name} downloads its levels when it is made: name a factory module:function "
            f"that returns ppo_jax.envs.suites.jumanji.make({name!r}, generator=...)."
        )
    env = suite.make(name, **settings)
    if env.reward_spec.shape and rewards != "sum":
        raise InputError(
            f"jumanji/{name} has {env.reward_spec.shape[0]} agents with a reward each, and one "
            "policy has one: name a factory module:function that returns "
            f"ppo_jax.envs.suites.jumanji.make({name!r}, rewards='sum'), or choose another one."
        )
    mask = getattr(jax.eval_shape(env.reset, jax.random.key(0))[1].observation, ACTION_MASK, None)
    space, receive = _actions(env.action_spec, None if mask is None else mask.shape)

    def reset(key: Any, params: Any) -> tuple:
        state, timestep = env.reset(key)
        return _observation(timestep, params), state

    def step(key: Any, state: Any, action: Any, params: Any) -> tuple:
        state, timestep = env.step(state, receive(action))
        last, final = timestep.last(), jnp.all(timestep.discount == 0)
        reward = jnp.sum(timestep.reward) if rewards == "sum" else timestep.reward
        seen = _observation(timestep, params)
        return seen, state, reward, last & final, last & ~final, timestep.extras

    return conform(
        f"jumanji/{name}",
        reset,
        step,
        params=() if mask is None else MaskParams(True),
        action_space=space,
        max_episode_steps=getattr(env, "time_limit", None),
        fixed=lambda: arguments(make, type(env.unwrapped).__init__),
        integers=_integers(name, env),
        render=lambda state, params: _picture(env, state),
    )


def _picture(env: Any, state: Any) -> np.ndarray:
    """The figure of the suite's own viewer, drawn without a display."""
    pyplot = import_module("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    viewer = env.unwrapped._viewer
    pictures: list[np.ndarray] = []  # `render` does not return them everywhere
    viewer.figure_size = (4.0, 4.0)
    viewer._display = lambda figure: pictures.append(viewer._display_rgb_array(figure))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its figures ask to be shown
        env.render(state)
    picture = pictures[-1][..., :3].copy()
    viewer.close()
    return picture


def _actions(spec: Any, mask: tuple[int, ...] | None) -> tuple[Any, Callable[[Any], Any]]:
    """The action space, and the way from one of its actions to jumanji's own.

    Several dials whose mask is joint, such as (4, 10) for a rotation and a column, become one
    discrete action; a mask of each dial leaves them apart.
    """
    if not jnp.issubdtype(spec.dtype, jnp.integer):
        low, high = (np.broadcast_to(end, spec.shape) for end in (spec.minimum, spec.maximum))
        return Box(spec.shape, np.float32(low), np.float32(high)), lambda action: action
    low = np.broadcast_to(spec.minimum, spec.shape)
    sizes = np.broadcast_to(spec.maximum, spec.shape) - low + 1
    ns = tuple(int(n) for n in sizes.ravel())
    is_joint = mask == ns
    if mask and not is_joint:  # [dials, n]; MultiCVRP declares one number more than its mask has
        ns = (mask[-1],) * len(ns)

    def receive(action: Any) -> Any:
        dials = jnp.stack(jnp.unravel_index(action, ns)) if is_joint else jnp.asarray(action)
        return (dials.reshape(spec.shape) + low).astype(spec.dtype)

    space = Discrete(math.prod(ns)) if is_joint or not spec.shape else MultiDiscrete(ns)
    return space, receive


def _observation(timestep: Any, params: Any) -> dict[str, Any]:
    found = _as_dict(timestep.observation)
    if ACTION_MASK in found:
        mask = jnp.asarray(found[ACTION_MASK], jnp.bool_).reshape(-1)
        found[ACTION_MASK] = mask | ~jnp.asarray(params.masked)
    return found


def _as_dict(value: Any) -> Any:
    """Tuples and dataclasses with names as dicts, also within one another."""
    if hasattr(value, "_asdict"):
        fields = value._asdict()
    elif dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    else:
        return value
    return {name: _as_dict(each) for name, each in fields.items()}


def _integers(name: str, env: Any) -> tuple[tuple[str, int, int], ...]:
    """The leaves of whole numbers with the bounds that jumanji declares."""
    found = []
    for leaf, spec in _specs(env.observation_spec):
        if isinstance(spec, suite.specs.BoundedArray) and jnp.issubdtype(spec.dtype, jnp.integer):
            found.append((leaf, int(np.min(spec.minimum)), int(np.max(spec.maximum))))
    return (*found, *_UNDECLARED.get(name, ()))


def _specs(spec: Any, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    """The specifications of the leaves, by their names with dots."""
    inner = getattr(spec, "_specs", None)
    if not inner:
        return [(".".join(path), spec)]
    return [leaf for key, each in inner.items() for leaf in _specs(each, (*path, key))]
