"""Previous action, previous reward and a start flag as leaves of the observation.

A transition makes them, and a reset clears them, so the rollout, an evaluation and a video see the
same. The last observation of an episode has the action and the reward that led to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.errors import InputError
from ppo_jax.envs.actions import box_of, dials_of, take_apart
from ppo_jax.envs.interface import (
    ActionSpace,
    Environment,
    ObservationSpace,
    Raw,
    refuse_host,
)
from ppo_jax.envs.leaves import WHOLE

LEAVES = {"action": "previous_action", "reward": "previous_reward", "start": "episode_start"}


def with_previous(environment: Environment, inputs: str) -> Environment:
    """The environment whose observations have these inputs as well.

    Args:
        inputs: a word of `config.PREVIOUS_INPUTS`, such as "action+reward".

    Raises:
        InputError: its observation has a leaf of that name already.
    """
    if inputs == "none":
        return environment
    refuse_host(environment, f"previous_inputs={inputs!r} cannot be added", "leave it at none")
    words = inputs.split("+")
    space = environment.action_space
    kinds = {"action": _seen_action(space), "reward": jnp.zeros(()), "start": jnp.zeros((), bool)}
    blank = {LEAVES[word]: jnp.zeros_like(kinds[word]) for word in words}
    for name in blank:
        if name in _by_name(environment.observation):
            raise InputError(
                f"previous_inputs={inputs!r} adds the leaf {name!r} to the observation of "
                f"{environment.name}, which has one of that name; leave --previous-inputs out."
            )

    def joined(observation: Any, more: dict[str, Any]) -> dict[str, Any]:
        return {**_by_name(observation), **{name: more[name] for name in blank}}

    def reset(key: Array, params: Any) -> tuple[Any, Any]:
        observation, state = environment.reset(key, params)
        return joined(observation, {**blank, LEAVES["start"]: jnp.ones((), bool)}), state

    def transition(key: Array, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        observation, state, reward, *rest = environment.transition(key, state, action, params)
        more = {
            LEAVES["action"]: _seen_action(space, action),
            LEAVES["reward"]: jnp.asarray(reward, kinds["reward"].dtype),
            LEAVES["start"]: jnp.zeros((), bool),
        }
        return joined(observation, more), state, reward, *rest

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), blank)
    return environment._replace(
        reset=reset,
        transition=transition,
        observation=joined(environment.observation, shapes),
        raw=_described(environment, shapes),
        integers=tuple(
            (_new_name(environment, name), *ends) for name, *ends in environment.integers
        ),
    )


def _by_name(observation: Any) -> Mapping[str, Any]:
    """A dict or named tuple as a dict; anything else is its only leaf."""
    if hasattr(observation, "_asdict"):
        return observation._asdict()
    return observation if isinstance(observation, Mapping) else {WHOLE: observation}


def _described(environment: Environment, more: Mapping[str, Any]) -> Raw | None:
    """The environment's own words, with the new leaves beside its own."""
    if environment.raw is None:
        return None
    raw, is_tuple = environment.raw, _is_tuple(environment)
    space = raw.observation_space
    if not isinstance(space, dict):
        space = {WHOLE: space}
    space = {_new_name(environment, name): each for name, each in space.items()}
    added = {
        name: ObservationSpace(leaf.shape, leaf.dtype.name, -math.inf, math.inf, False)
        for name, leaf in more.items()
    }

    def reset(key: Array, params: Any) -> Any:
        observation = raw.reset(key, params)
        return {WHOLE: observation} if is_tuple else observation

    def transition(key: Array, state: Any, action: Any, params: Any) -> tuple[Any, Any, Any]:
        observation, *ends = raw.transition(key, state, action, params)
        return ({WHOLE: observation} if is_tuple else observation, *ends)

    return raw._replace(observation_space={**space, **added}, reset=reset, transition=transition)


def _new_name(environment: Environment, name: str) -> str:
    """The name of a leaf when others stand beside it: an array or a dict keeps the names."""
    return f"{WHOLE}.{name}" if _is_tuple(environment) else name


def _is_tuple(environment: Environment) -> bool:
    """Check for an observation that is a tuple of leaves without names."""
    seen = environment.observation
    return isinstance(seen, tuple | list) and not hasattr(seen, "_asdict")


def _seen_action(space: ActionSpace, action: Any = None) -> Array:
    """An action as a network sees it: flags of its dials and real numbers; 0 without an action."""
    dials, box = dials_of(space), box_of(space)
    counts, reals = (None, None) if action is None else take_apart(space, action)
    counts = [-1] * len(dials) if counts is None else counts
    seen = [jnp.arange(n) == counts[i] for i, n in enumerate(dials)]
    if box is not None:
        numbers = jnp.zeros(math.prod(box.shape)) if reals is None else reals
        seen.append(numbers.astype(jnp.result_type(float)))
    return jnp.concatenate(seen) if len(seen) > 1 else seen[0]
