"""gymnax's spaces as ours: actions and their bounds, observations and how they are stored."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from ppo_jax.config.errors import InputError
from ppo_jax.envs import bounds as bounds_of
from ppo_jax.envs import params as parameters
from ppo_jax.envs.interface import Box, Discrete, ObservationSpace
from ppo_jax.envs.suites import gymnax_names

# These declare float32 observations that only ever hold 0 and 1 (a test plays them to see it).
_BINARY_MODULES = ("gymnax.environments.minatar.", "gymnax.environments.misc.pong")

_LARGEST = float(np.finfo(np.float32).max)  # a bound of this size stands for infinity


class Actions(NamedTuple):
    """An action space and its bounds."""

    space: Discrete | Box  # under the default parameters
    receive: Callable[[Any], Array]  # an action of `space` -> the environment's own
    bounds: Callable[[Any], tuple[Any, Any]] | None  # params -> (low, high), if they depend on them
    rigid: tuple[str, ...]  # parameters on which the space depends in a way that cannot be followed


class Observations(NamedTuple):
    """An observation space and the encoder of its observations."""

    space: ObservationSpace
    encode: Callable[[Any], Array]  # the environment's own observation -> the stored one
    rigid: tuple[str, ...]  # as of `Actions`


def actions(env: Any, params: Any, label: str) -> Actions:
    """The action space of a gymnax-API object.

    Raises:
        InputError: a space that cannot be trained on, or one with broken bounds.
    """
    gymnax = _spaces()
    space = _declared(env.action_space, params, f"{label}.action_space")
    if isinstance(space, gymnax.Discrete):
        count, first = _whole(space, "n", label), int(getattr(space, "start", 0))
        if count < 1:
            raise InputError(f"{label} has no action: declare a Discrete space of 1 or more.")
        _, rigid = _dependence(env.action_space, params, ("n", "start"), ())
        return Actions(
            Discrete(count), lambda action: jnp.asarray(action, jnp.int32) + first, None, rigid
        )
    if not isinstance(space, gymnax.Box) or not jnp.issubdtype(space.dtype, jnp.floating):
        raise InputError(
            f"{label} has the action space {space}: only Discrete and real Box can be trained; "
            "write an Environment with a MultiDiscrete space, or flatten it to one Box."
        )
    inner, dtype = _shape(space), jax.dtypes.canonicalize_dtype(space.dtype)
    shape = inner or (1,)
    if math.prod(shape) == 0:
        raise InputError(f"{label} has actions of shape {shape}, which hold no number: declare 1.")
    low, high = _limits(space, shape, label)
    bounds_of.require_sound(low, high, label)
    moves, rigid = _dependence(env.action_space, params, ("shape",), ("low", "high"))

    def bounds(params: Any) -> tuple[Any, Any]:
        # Parameters that are not traced give constants, also within a trace.
        known = nullcontext() if is_traced(params) else jax.ensure_compile_time_eval()
        with jax.numpy_rank_promotion("allow"), known:
            return _limits(env.action_space(params), shape, label)

    return Actions(
        space=Box(shape, low, high),
        receive=lambda action: jnp.asarray(action, dtype).reshape(inner),
        bounds=bounds if moves else None,
        rigid=rigid,
    )


def observations(env: Any, params: Any, examples: tuple[Any, ...], label: str) -> Observations:
    """The observation space of a gymnax-API object.

    Args:
        examples: the observations (or their shapes) of reset and transition.

    Raises:
        InputError: observations that cannot be trained on, or that are not as declared.
    """
    gymnax = _spaces()
    space = _declared(env.observation_space, params, f"{label}.observation_space")
    shape, dtype = examples[0].shape, examples[0].dtype
    if isinstance(space, gymnax.Discrete):
        return _numbered(env, space, params, examples, label)
    if not isinstance(space, gymnax.Box):
        raise InputError(
            f"{label} has the observation space {space}: only Box and Discrete can be trained; "
            "return one array, for example by flattening the parts."
        )
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
        raise InputError(f"{label} returns observations of {dtype}: return real numbers.")
    if math.prod(shape) == 0:
        raise InputError(
            f"{label} returns observations of shape {shape}, which hold no number: return a "
            "constant, such as jnp.ones(1), if there is nothing to see."
        )
    declared = _shape(space)
    if (declared or (1,)) != (shape or (1,)):
        raise InputError(
            f"{label} declares observations of shape {declared} and returns them of shape {shape}: "
            "make them equal."
        )
    dtypes = {example.dtype for example in examples}
    small = dtypes == {jnp.dtype(jnp.bool_)} or dtypes == {jnp.dtype(jnp.uint8)}
    binary = type(env).__module__.startswith(_BINARY_MODULES)
    kept = jnp.bool_ if binary else dtype if small else jnp.float32
    return Observations(
        ObservationSpace(shape, np.dtype(space.dtype).name, space.low, space.high, False),
        lambda value: strong(value, kept).reshape(shape or (1,)),
        (),
    )


def _numbered(
    env: Any, space: Any, params: Any, examples: tuple[Any, ...], label: str
) -> Observations:
    """Observations of a Discrete space: whole numbers, stored as rows with a 1 at their place."""
    count, first = _whole(space, "n", label), int(getattr(space, "start", 0))
    for example in examples:
        if example.size != 1 or not jnp.issubdtype(example.dtype, jnp.integer):
            raise InputError(
                f"{label} declares the observations Discrete({count}) and returns "
                f"{example.dtype} of shape {example.shape}: return one whole number, or declare "
                "a Box of that shape."
            )
    if count < 1:
        raise InputError(f"{label} declares the observations Discrete({count}): declare 1 or more.")

    def encode(value: Any) -> Array:
        return jax.nn.one_hot(jnp.asarray(value).reshape(()) - first, count)

    _, rigid = _dependence(env.observation_space, params, ("n", "start"), ())
    dtype = np.dtype(getattr(space, "dtype", np.int32)).name
    declared = ObservationSpace(examples[0].shape, dtype, first, first + count - 1, True)
    return Observations(declared, encode, rigid)


def strong(value: Any, dtype: Any) -> Array:
    """`value` as an array of exactly `dtype`; extended dtypes (random keys) stay."""
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    return jax.lax.convert_element_type(value, jnp.dtype(dtype))


def _spaces() -> ModuleType:
    gymnax_names.import_gymnax()
    return importlib.import_module("gymnax.environments.spaces")


def _declared(method: Callable[[Any], Any], params: Any, name: str) -> Any:
    """The space that a method declares, or a sentence with what is wrong with it."""
    try:
        with jax.numpy_rank_promotion("allow"):
            space = method(params)
    except Exception as error:
        raise InputError(
            f"{name}(params) fails with {type(error).__name__}: {_first_line(error)}; it takes the "
            "parameters and returns a space."
        ) from error
    library = type(space).__module__.partition(".")[0]
    if library in ("gymnasium", "gym"):
        raise InputError(
            f"{name} is {library}'s own {space}: write gymnax.environments.spaces."
            f"{type(space).__name__} in its place."
        )
    return space


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _whole(space: Any, field: str, label: str) -> int:
    try:
        return int(getattr(space, field))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{label} declares {space!r}, whose {field} is no number.") from error


def _shape(space: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in np.atleast_1d(space.shape)) if np.size(space.shape) else ()


def _limits(space: Any, shape: tuple[int, ...], label: str) -> tuple[Any, Any]:
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


def _dependence(
    method: Callable[[Any], Any], params: Any, fixed: tuple[str, ...], followed: tuple[str, ...]
) -> tuple[bool, tuple[str, ...]]:
    """Find the parameters on which a space depends.

    Args:
        fixed: attributes of the space that shape the policy.
        followed: attributes that may follow the parameters.

    Returns:
        True if a followed attribute depends on any; and the parameters that the space cannot
        follow, as they shape it or are used as Python numbers.
    """

    def traced(names: tuple[str, ...]) -> tuple[bool, bool]:
        """Trace the space: (a followed attribute moves, it can be followed)."""
        moving: list[bool] = []

        def look(values: list[Any]) -> int:
            changed = params
            for name, value in zip(names, values, strict=True):
                changed = parameters.with_field(changed, name, value)
            space = method(changed)
            if any(is_traced(getattr(space, each, None)) for each in fixed):
                raise TypeError("the space's shape is traced")
            moving.append(any(is_traced(getattr(space, each)) for each in followed))
            return 0

        lifted = [
            jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], parameters.value_of(params, name))
            for name in names
        ]
        try:
            with jax.numpy_rank_promotion("allow"):
                jax.vmap(look, axis_size=1)(lifted)
        except Exception:
            return False, False
        return moving[-1], True

    names = parameters.settable(params)
    moves, can_follow = traced(names)
    if can_follow or not names:
        return moves, ()
    rigid = tuple(name for name in names if not traced((name,))[1])
    return traced(tuple(name for name in names if name not in rigid))[0], rigid


def is_traced(value: Any) -> bool:
    """Look for tracers among the leaves of a pytree."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
