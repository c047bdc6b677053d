"""Environment parameters: a pytree of numbers of fixed dtypes, changed by name.

Every value passes `override`, whether it comes from a flag, a file, an axis of a sweep or Python:
it arrives as the parameter's own dtype and shape, or it is refused with one sentence.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.values import env_value, short
from ppo_jax.envs.slips import is_number, kind_of, struct_hint

_KEEP_APART = (
    "keep it as an attribute of the environment, or declare the field with "
    "flax.struct.field(pytree_node=False)"
)
_PLAIN = (bool, int, float, np.generic, np.ndarray)


def as_numbers(params: Any, label: str = "it") -> Any:
    """Give every number among the leaves a dtype of its own.

    A Python number is weakly typed: replaced by an array it would cost one more compilation.

    Raises:
        InputError: a leaf is no number, such as a text, or a whole one that int32 cannot hold.
    """

    def number(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array):
            is_weak = getattr(leaf, "weak_type", False)
            return jax.lax.convert_element_type(leaf, leaf.dtype) if is_weak else leaf
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "default_params"
        array = np.asarray(leaf) if isinstance(leaf, _PLAIN) else np.asarray(None)
        if array.dtype == object and isinstance(leaf, int):  # beyond 64 bits
            array = np.asarray(math.inf)
        elif array.dtype != np.bool_ and not jnp.issubdtype(array.dtype, jnp.number):
            raise InputError(
                f"{label} has the parameter {name}={short(leaf)}, which is {kind_of(leaf)} and no "
                f"number: {struct_hint(leaf) or _KEEP_APART}."
            )
        with np.errstate(over="ignore"):
            own = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
        if isinstance(leaf, int) and (own != array or array == math.inf):
            raise InputError(
                f"{label} has the parameter {name}={short(leaf)}, which {own.dtype} cannot hold: "
                "make it smaller, or a float."
            )
        return _indexable(own)

    return jax.tree_util.tree_map_with_path(number, params)


def override(params: Any, values: Mapping[str, Any], rigid: Collection[str] = ()) -> Any:
    """`params` with the fields named in `values` replaced, dtypes and shapes kept.

    A field within a field is named with a dot (`physics.gravity`) or by a mapping. Values may be
    traced or arrays on a `vmap` axis.

    Args:
        rigid: fields that the environment refuses, so that no sentence offers them.

    Raises:
        InputError: an unknown or static name, no number, a value that the parameter's dtype cannot
            hold, or another shape.
    """
    for name, value in flat_names(values).items():
        params = _replaced(params, name.split("."), name, value, rigid)
    return params


def typed(params: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` by dotted name, each as the dtype and shape that it has in `params`.

    Args:
        params: what `override` made of the defaults and `values`. A name that is no field of it
            (an environment may have an `override` of its own) keeps the value's own type.
    """
    found = {}
    for name, value in flat_names(values).items():
        field = value_of(params, name)
        given = np.asarray(value) if field is None else None
        known = jax.tree.map(np.asarray, field)
        found[name] = known if given is None else given.astype(_own_dtype(given.dtype))
    return found


def value_of(params: Any, name: str) -> Any:
    """The parameter of that dotted name, None if there is none."""
    for part in name.split("."):
        if part not in _field_names(params):
            return None
        params = _get(params, part)
    return params


def settable(params: Any) -> tuple[str, ...]:
    """The names of the fields that are numbers, or groups of them, and not static."""
    return tuple(
        name
        for name in _field_names(params)
        if _has_numbers(_get(params, name)) and not _is_static(params, name)
    )


def _has_numbers(value: Any) -> bool:
    """Check for a real number among the leaves; None has none, and a random key is no number."""
    kinds = (jnp.bool_, jnp.integer, jnp.floating)
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(value) if is_number(leaf)]
    return any(jnp.issubdtype(dtype, kind) for dtype in dtypes for kind in kinds)


def flat_names(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings of values as one, with dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat_names(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def time_limit(params: Any, name: str = "max_steps_in_episode") -> int | None:
    """The time limit that a field of `params` holds, None without one or with an infinite one."""
    return as_steps(getattr(params, name, math.inf), f"env.{name}")


def as_steps(given: Any, label: str) -> int | None:
    """A number of steps, None for infinitely many.

    Raises:
        InputError: it is no number; `label` names it.
    """
    try:
        limit = float(np.max(given))
    except (TypeError, ValueError):
        limit = math.nan
    if math.isnan(limit):
        raise InputError(
            f"{label}={np.asarray(given)} must be a number of steps, or inf for no limit."
        )
    return None if limit == math.inf else math.ceil(limit)


def require_steps(params: Any, limit: Any) -> None:
    """Refuse parameters under which an episode has no step, unless they are traced.

    Args:
        limit: params -> the time limit in steps, None for none.

    Raises:
        InputError: the limit is below 1.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(params)):
        return
    steps = limit(params)
    if steps is not None and steps < 1:
        raise InputError(f"The time limit is {steps} steps: an episode needs at least 1.")


def require_within(params: Any, limits: Mapping[str, tuple[int, int | None]]) -> None:
    """Refuse parameters that mean nothing to the environment, unless they are traced.

    Args:
        limits: name -> the lowest and the highest value, None for no highest.

    Raises:
        InputError: the first such parameter.
    """
    for name, (low, high) in limits.items():
        value = value_of(params, name)
        if isinstance(value, Tracer):
            continue
        if np.min(value) < low or (high is not None and np.max(value) > high):
            rule = f"at least {low}" if high is None else f"from {low} to {high}"
            raise InputError(f"env.{name}={_plain(value)} must be {rule}.")


def _replaced(
    params: Any, path: list[str], full: str, value: Any, rigid: Collection[str] = ()
) -> Any:
    head, *rest = path
    if head not in _field_names(params):
        names = [name for name in settable(params) if name not in rigid]
        group = full.removesuffix(".".join(path))
        known = f"it has {', '.join(group + name for name in names)}." if names else "it has none."
        raise InputError(
            f"{full!r} is no parameter of this environment: {known}{nearest(head, names)}"
        )
    if _is_static(params, head):
        raise InputError(
            f"env.{full}={short(value)} cannot be set: {head} is static (pytree_node=False), as it "
            "shapes the program; change its default, or name a factory module:function that "
            "returns the environment and its parameters."
        )
    default = _get(params, head)
    if rest:
        return with_field(params, head, _replaced(default, rest, full, value))
    return with_field(params, head, _like(full, default, value))


def _field_names(params: Any) -> tuple[str, ...]:
    if hasattr(params, "_fields"):
        return tuple(params._fields)
    if isinstance(params, Mapping):
        return tuple(str(name) for name in params)
    is_struct = dataclasses.is_dataclass(params) and not isinstance(params, type)
    return tuple(field.name for field in dataclasses.fields(params)) if is_struct else ()


def _get(params: Any, name: str) -> Any:
    return params[name] if isinstance(params, Mapping) else getattr(params, name)


def with_field(params: Any, name: str, value: Any) -> Any:
    """`params` with one field replaced, whatever the value."""
    if hasattr(params, "_replace"):
        return params._replace(**{name: value})
    if isinstance(params, Mapping):
        return type(params)({**params, name: value})  # pyright: ignore[reportCallIssue]
    return dataclasses.replace(params, **{name: value})


def _is_static(params: Any, name: str) -> bool:
    """Tell a field that is part of the program from a leaf of the pytree."""
    mark = object()
    try:
        return not any(leaf is mark for leaf in jax.tree.leaves(with_field(params, name, mark)))
    except Exception:  # the class checks its fields: it must be asked otherwise
        return False


def _like(name: str, default: Any, value: Any) -> Any:
    """`value` in the dtype and shape of `default`."""
    if _field_names(default):
        inner = ", ".join(f"env.{name}.{field}" for field in _field_names(default))
        raise InputError(f"env.{name}={short(value)} is a group of parameters: set {inner}.")
    if default is None:
        raise InputError(f"env.{name}={short(value)} cannot be set: its default None has no type.")
    if isinstance(value, str):
        value = env_value(f"env.{name}", value)
    if isinstance(default, list | tuple):
        is_row = isinstance(value, list | tuple) or np.ndim(value) > 0
        parts = list(value) if is_row else []
        if len(parts) != len(default):
            raise _other_shape(
                name, value, (len(parts),) if is_row else (), default, (len(default),)
            )
        pairs = zip(default, parts, strict=True)
        return type(default)(_like(f"{name}[{i}]", a, b) for i, (a, b) in enumerate(pairs))
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        value = jnp.asarray(value)
    dtype = _own_dtype(default.dtype if hasattr(default, "dtype") else np.asarray(default).dtype)
    if isinstance(value, Tracer):
        return _traced_like(name, value, np.shape(default), dtype)
    array = _array(f"env.{name}", value, dtype, default)
    if array.shape != np.shape(default):
        raise _other_shape(name, value, array.shape, default, np.shape(default))
    return array


def _other_shape(name: str, value: Any, shape: Any, default: Any, wanted: Any) -> InputError:
    return InputError(
        f"env.{name}={short(value)} has shape {shape}, the environment's default "
        f"{_plain(default)} has shape {wanted}: give as many numbers."
    )


def _own_dtype(dtype: Any) -> Any:
    """The dtype that jax gives to such an array."""
    extended = jnp.issubdtype(dtype, jax.dtypes.extended)
    return dtype if extended else jax.dtypes.canonicalize_dtype(dtype)


def _traced_like(name: str, value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A traced value, whose number is not here to be looked at: its type must fit."""
    both_real = all(jnp.issubdtype(each, jnp.floating) for each in (value.dtype, dtype))
    if not both_real and jnp.promote_types(value.dtype, dtype) != dtype:
        raise InputError(
            f"env.{name} is given as {value.dtype} where the environment has {dtype}, which "
            f"cannot hold every such number: give an array of {dtype}."
        )
    if value.shape != shape:
        raise _other_shape(name, value.dtype, value.shape, "value", shape)
    return jax.lax.convert_element_type(value, dtype)


def _array(name: str, value: Any, dtype: Any, example: Any) -> Any:
    """`value` as an array of `dtype`; refuses what that cannot hold."""
    if jnp.issubdtype(dtype, jax.dtypes.extended) or jnp.issubdtype(dtype, np.complexfloating):
        raise InputError(f"{name}={short(value)} cannot be set: it is {dtype} and no real number.")
    rows = np.asarray(np.asarray(value) if hasattr(value, "dtype") else value, object)
    example = _plain(example)
    numbers = [_number(name, value, each, dtype, example) for each in rows.ravel().tolist()]
    return _indexable(np.array(numbers, dtype).reshape(rows.shape))


def _indexable(array: np.ndarray) -> Any:
    """A NumPy scalar, or an array of jax's: NumPy's own cannot be indexed by what is traced."""
    return array[()] if array.ndim == 0 else jnp.asarray(array)


def _plain(value: Any) -> str:
    """A default for a sentence, in one line."""
    return short(value.tolist() if hasattr(value, "tolist") else value)


def _number(name: str, value: Any, each: Any, dtype: Any, example: str) -> Any:
    """One number of `value` as Python has it, exact or refused."""
    each = each.item() if hasattr(each, "item") and np.ndim(each) == 0 else each
    given = f"{name}={short(value)}"
    is_number = isinstance(each, bool | int | float) and each == each
    if dtype == np.bool_:
        if is_number and each in (0, 1):
            return bool(each)
        raise InputError(f"{given} must be true or false (1 or 0), such as {example}.")
    if not is_number or isinstance(each, bool):
        raise InputError(f"{given} must be a number, such as {example}.")
    if jnp.issubdtype(dtype, jnp.integer):
        if isinstance(each, float) and not each.is_integer():
            raise InputError(f"{given} must be a whole number, such as {example}.")
        low, high = int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
        if low <= each <= high:
            return int(each)
        raise InputError(f"{given} must be a whole number from {low} to {high}: it is {dtype}.")
    low, high = float(jnp.finfo(dtype).tiny), float(jnp.finfo(dtype).max)
    if each in (0, math.inf, -math.inf) or low <= abs(each) <= high:
        return float(each)
    raise InputError(
        f"{given} is no number that {dtype} can hold: its size must lie between {low:.3g} and "
        f"{high:.3g}."
    )
