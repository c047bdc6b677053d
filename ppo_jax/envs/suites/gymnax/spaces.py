"""Spaces that an environment of gymnax's API declares, and the parameters they depend on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from ppo_jax.config.errors import RAISED, InputError
from ppo_jax.envs import params as parameters
from ppo_jax.envs.suites.gymnax import names as gymnax_names

MOST_VALUES = 2**24  # a row of them has 64 MiB
_LARGEST = float(np.finfo(np.float32).max)  # a bound of this size stands for infinity


def library() -> ModuleType:
    """gymnax's module of spaces."""
    gymnax_names.import_gymnax()
    return importlib.import_module("gymnax.environments.spaces")


def declared(method: Callable[[Any], Any], params: Any, name: str) -> Any:
    """The space that a method declares, or a sentence with what is wrong with it."""
    try:
        with jax.numpy_rank_promotion("allow"):
            space = method(params)
            leaves = list(leaves_of(space))
    except RAISED as error:
        raise InputError(
            f"{name}(params) fails with {type(error).__name__}: {_first_line(error)}; it takes the "
            "parameters and returns a space."
        ) from error
    for _, leaf in leaves:
        home = type(leaf).__module__.partition(".")[0]
        if home in ("gymnasium", "gym"):
            raise InputError(
                f"{name} is {home}'s own {leaf}: write gymnax.environments.spaces."
                f"{type(leaf).__name__} in its place."
            )
    return space


def children(space: Any) -> Mapping[str, Any] | None:
    """The spaces within a Dict by name, or within a Tuple by place; None for any other space."""
    spaces = library()
    if isinstance(space, spaces.Dict):
        return {str(name): inner for name, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return {str(place): inner for place, inner in enumerate(space.spaces)}
    return None


def leaves_of(space: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The spaces within nested Dicts and Tuples by name, in the order of jax: sorted keys."""
    inner = children(space)
    if inner is None:
        yield name, space
        return
    is_dict = isinstance(space, library().Dict)
    for key in sorted(inner) if is_dict else inner:
        yield from leaves_of(inner[key], f"{name}.{key}" if name else key)


def strong(value: Any, dtype: Any) -> Array:
    """`value` as an array of exactly `dtype`; extended dtypes (random keys) stay."""
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    return jax.lax.convert_element_type(value, jnp.dtype(dtype))


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def count_of(space: Any, label: str) -> int:
    """The number of values of a Discrete space, or a sentence."""
    try:
        count = int(space.n)
        if count != space.n:
            raise ValueError(space.n)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{label} declares {space!r}, whose n={space.n!r} is no whole number: give one."
        ) from error
    if count > MOST_VALUES:
        raise InputError(
            f"{label} declares Discrete({count}), and a network needs a number for each value, at "
            f"most {MOST_VALUES:,}: declare several smaller spaces, or a Box."
        )
    return count


def shape_of(space: Any) -> tuple[int, ...]:
    """The shape of a Box."""
    return tuple(int(size) for size in np.atleast_1d(space.shape)) if np.size(space.shape) else ()


def limits(space: Any, shape: tuple[int, ...], label: str) -> tuple[Any, Any]:
    """Lower and upper bounds of a Box, [*shape] float32: of NumPy where they are no tracers."""
    found = []
    for limit in (space.low, space.high):
        np_or_jnp = jnp if isinstance(limit, Tracer) else np
        try:
            with np.errstate(over="ignore"):  # the largest float64 stands for infinity, too
                limit = np_or_jnp.broadcast_to(np_or_jnp.asarray(limit, np.float32), shape)
        except ValueError:
            raise InputError(
                f"{label} declares action bounds of shape {np.shape(limit)} for actions of shape "
                f"{shape}: make them one number or of the same shape."
            ) from None
        limit = np_or_jnp.where(limit >= _LARGEST, np.float32(np.inf), limit)
        found.append(np_or_jnp.where(limit <= -_LARGEST, np.float32(-np.inf), limit))
    return found[0], found[1]


def dependence(method: Callable[[Any], Any], params: Any) -> tuple[bool, tuple[str, ...]]:
    """Find the parameters on which a space depends.

    Returns:
        True if the bounds of a real Box depend on any; and the parameters that the space cannot
        follow, as they shape it or are used as Python numbers.
    """

    def traced(names: tuple[str, ...]) -> tuple[bool, bool]:
        """Trace the space: (a bound moves, it can be followed)."""
        moving: list[bool] = []

        def look(values: list[Any]) -> int:
            changed = params
            for name, value in zip(names, values, strict=True):
                changed = parameters.with_field(changed, name, value)
            spaces = [space for _, space in leaves_of(method(changed))]
            if any(is_traced(_shaping(space)) for space in spaces):
                raise TypeError("the space's shape is traced")
            moving.append(any(is_traced(_ends(space)) for space in spaces))
            return 0

        lifted = [
            jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], parameters.value_of(params, name))
            for name in names
        ]
        try:
            with jax.numpy_rank_promotion("allow"):
                jax.vmap(look, axis_size=1)(lifted)
        except RAISED:
            return False, False
        return moving[-1], True

    names = parameters.settable(params)
    moves, can_follow = traced(names)
    if can_follow or not names:
        return moves, ()
    rigid = tuple(name for name in names if not traced((name,))[1])
    return traced(tuple(name for name in names if name not in rigid))[0], rigid


def is_real(space: Any) -> bool:
    """Check for a Box of real numbers."""
    return isinstance(space, library().Box) and jnp.issubdtype(space.dtype, jnp.floating)


def _ends(space: Any) -> list[Any]:
    """The bounds of a space that may follow the parameters."""
    return [space.low, space.high] if is_real(space) else []


def _shaping(space: Any) -> list[Any]:
    """The numbers of a space that shape the policy."""
    names = ("n", "start", "shape") if is_real(space) else ("n", "start", "shape", "low", "high")
    return [getattr(space, name, None) for name in names]


def is_traced(value: Any) -> bool:
    """Look for tracers among the leaves of a pytree."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
