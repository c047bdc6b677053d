"""Actions of gymnax's API as ours: dials and real numbers, their bounds, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.config.errors import InputError
from ppo_jax.envs import bounds as bounds_of
from ppo_jax.envs.actions import count_form, own_action, real_form, take_apart
from ppo_jax.envs.interface import ActionSpace, Box, Discrete, MultiDiscrete, Product
from ppo_jax.envs.suites.gymnax import spaces

MAX_CHOICES = 65_536  # for one number of an integer Box; each is an output of the network


class Actions(NamedTuple):
    """An action space, its bounds, and the environment's own form of its actions."""

    space: ActionSpace  # under the default parameters
    receive: Callable[[Any], Any]  # an action of `space` -> the environment's own
    form: dict[str, Any]  # the same as data, see `actions.own_action`
    bounds: Callable[[Any], tuple[Any, Any]] | None  # params -> (low, high), if they depend on them
    rigid: tuple[str, ...]  # parameters on which the space depends in a way that cannot be followed


class _Parts(NamedTuple):
    """Dials and real numbers of a space's leaves."""

    dials: list[int]
    low: list[np.ndarray]  # bounds of the real numbers, flat, box by box
    high: list[np.ndarray]


def actions(env: Any, params: Any, label: str) -> Actions:
    """The action space of a gymnax-API object.

    A Discrete and a real Box stay alone. All else becomes dials side by side, real numbers side by
    side, or both, in the order of jax: sorted keys.

    Raises:
        InputError: a space that cannot be trained on, or one with broken bounds.
    """
    space = spaces.declared(env.action_space, params, f"{label}.action_space")
    parts = _Parts([], [], [])
    form = _form(space, parts, label)
    moves, rigid = spaces.dependence(env.action_space, params)
    bounds = _bounds(env, form, label) if moves else None
    if form["kind"] == "count" and form["shape"] == [] and isinstance(space, _library().Discrete):
        first = form["start"][0]
        return Actions(
            Discrete(parts.dials[0]),
            lambda action: jnp.asarray(action, jnp.int32) + first,
            form,
            None,
            rigid,
        )
    if form["kind"] == "real":
        inner, dtype = tuple(form["shape"]), form["dtype"]
        shape = inner or (1,)
        own = Box(shape, *(end[0].reshape(shape) for end in parts[1:]))
        return Actions(
            own, lambda action: jnp.asarray(action, dtype).reshape(inner), form, bounds, rigid
        )
    own = _space(parts)

    def receive(action: Any) -> Any:
        return own_action(form, *take_apart(own, action))

    return Actions(own, receive, form, bounds, rigid)


def _library() -> Any:
    return spaces.library()


def _space(parts: _Parts) -> ActionSpace:
    """The space of all dials and all real numbers."""
    dials = MultiDiscrete(tuple(parts.dials))
    if not parts.low:
        return dials
    low, high = np.concatenate(parts.low), np.concatenate(parts.high)
    box = Box(low.shape, low, high)
    return Product((dials, box)) if parts.dials else box


def _form(space: Any, parts: _Parts, label: str) -> dict[str, Any]:
    """The form of a space's own actions; adds their dials and real numbers to `parts`."""
    inner = spaces.children(space)
    if inner is None:
        return _leaf(space, parts, label)
    if not inner:
        raise InputError(f"{label} has the action space {space}, which is empty: leave it out.")
    if isinstance(space, _library().Tuple):
        return {"kind": "tuple", "parts": [_form(part, parts, label) for part in inner.values()]}
    found = {name: _form(inner[name], parts, label) for name in sorted(inner)}
    return {"kind": "dict", "parts": {name: found[name] for name in inner}}


def _leaf(space: Any, parts: _Parts, label: str) -> dict[str, Any]:
    gymnax = _library()
    if isinstance(space, gymnax.Discrete):
        count, first = spaces.count_of(space, label), int(getattr(space, "start", 0))
        if count < 1:
            raise InputError(f"{label} has no action: declare a Discrete space of 1 or more.")
        parts.dials.append(count)
        return count_form(len(parts.dials) - 1, (), "int32", [first])
    if not isinstance(space, gymnax.Box):
        raise InputError(
            f"{label} has the action space {space}: only Discrete, Box, and a Tuple or Dict of "
            "them can be trained; declare one of these."
        )
    shape = spaces.shape_of(space)
    if math.prod(shape) == 0:
        raise InputError(f"{label} has actions of shape {shape}, which hold no number: declare 1.")
    if spaces.is_real(space):
        flat = (math.prod(shape),)
        low, high = spaces.limits(space, shape or (1,), label)
        bounds_of.require_sound(low, high, label)
        first = sum(map(len, parts.low))
        parts.low.append(np.asarray(low).reshape(flat))
        parts.high.append(np.asarray(high).reshape(flat))
        return real_form(first, shape, jax.dtypes.canonicalize_dtype(space.dtype).name)
    return _counted(space, shape, parts, label)


def _counted(space: Any, shape: tuple[int, ...], parts: _Parts, label: str) -> dict[str, Any]:
    """A Box of whole numbers or flags: a dial for each number, from its low to its high."""
    if not (jnp.issubdtype(space.dtype, jnp.integer) or jnp.issubdtype(space.dtype, jnp.bool_)):
        raise InputError(
            f"{label} has the action space {space} of {np.dtype(space.dtype).name}: declare real "
            "or whole numbers."
        )
    low, high = (
        np.broadcast_to(np.asarray(end, np.float64), shape).ravel()
        for end in (space.low, space.high)
    )
    counts = high - low + 1.0
    if not (np.isfinite(counts) & (counts >= 1) & (counts <= MAX_CHOICES)).all():
        raise InputError(
            f"{label} has the action space {space}, whose whole numbers are too many to count: "
            f"declare a low and a high with 1 to {MAX_CHOICES} numbers between them."
        )
    first = len(parts.dials)
    parts.dials.extend(int(count) for count in counts)
    dtype = jax.dtypes.canonicalize_dtype(space.dtype).name
    return count_form(first, shape, dtype, [int(end) for end in low])


def _bounds(env: Any, form: dict[str, Any], label: str) -> Callable[[Any], tuple[Any, Any]]:
    """The bounds of all real numbers as a function of the parameters."""
    is_alone = form["kind"] == "real"

    def bounds(params: Any) -> tuple[Any, Any]:
        # Parameters that are not traced give constants, also within a trace.
        known = nullcontext() if spaces.is_traced(params) else jax.ensure_compile_time_eval()
        with jax.numpy_rank_promotion("allow"), known:
            pairs = list(_ends(env.action_space(params), label))
            if is_alone:
                return pairs[0]
            np_or_jnp = jnp if any(isinstance(end, Array) for pair in pairs for end in pair) else np
            low, high = (
                np_or_jnp.concatenate([np_or_jnp.ravel(e) for e in x]) for x in zip(*pairs)
            )
            return low, high

    return bounds


def _ends(space: Any, label: str) -> Iterator[tuple[Any, Any]]:
    """Lower and upper bounds of each Box of real numbers."""
    for _, leaf in spaces.leaves_of(space):
        if spaces.is_real(leaf):
            yield spaces.limits(leaf, spaces.shape_of(leaf) or (1,), label)
