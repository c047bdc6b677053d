"""Environment parameters: a pytree of numbers of fixed dtypes, changed by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ppo_jax.config.errors import InputError, nearest


def as_numbers(params: Any) -> Any:
    """Give every Python number among the leaves a dtype of its own.

    A Python number is weakly typed: replaced by an array it would cost one more compilation.
    """

    def number(leaf: Any) -> Any:
        if isinstance(leaf, (bool, int, float, np.generic)):
            array = np.asarray(leaf)
            return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))[()]
        return leaf

    return jax.tree.map(number, params)


def override(params: Any, values: Mapping[str, Any]) -> Any:
    """`params` with the fields named in `values` replaced, dtypes and shapes kept.

    Values may be traced or arrays on a `vmap` axis.

    Raises:
        InputError: an unknown name, no number, a fraction for a whole number, or another shape.
    """
    if not values:
        return params
    names = _field_names(params)
    for name in values:
        if name not in names:
            known = f"it has {', '.join(names)}." if names else "it has none."
            raise InputError(
                f"{name!r} is no parameter of this environment: {known}{nearest(name, names)}"
            )
    new = {name: _like(name, getattr(params, name), value) for name, value in values.items()}
    return params._replace(**new) if hasattr(params, "_replace") else params.replace(**new)


def _field_names(params: Any) -> tuple[str, ...]:
    if hasattr(params, "_fields"):
        return tuple(params._fields)
    return tuple(f.name for f in dataclasses.fields(params)) if _is_struct(params) else ()


def _is_struct(params: Any) -> bool:
    return dataclasses.is_dataclass(params) and hasattr(params, "replace")


def _like(name: str, default: Any, value: Any) -> Any:
    """`value` in the dtype and shape of `default`."""
    template = jnp.asarray(default)
    if isinstance(value, Tracer):
        return jnp.broadcast_to(value, template.shape).astype(template.dtype)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"env.{name}={value!r} must be a number, such as {default}.") from None
    if np.isnan(array).any():
        raise InputError(f"env.{name}={value!r} must be a number, such as {default}.")
    if array.shape != template.shape:
        raise InputError(
            f"env.{name}={value!r} has shape {array.shape}, the environment's default {default} "
            f"has shape {template.shape}: give as many numbers."
        )
    if jnp.issubdtype(template.dtype, jnp.floating):
        return array.astype(template.dtype)[()]
    low, high = (0, 1) if template.dtype == jnp.bool_ else _bounds(template.dtype)
    if (array != np.round(array)).any() or (array < low).any() or (array > high).any():
        kind = "true or false (1 or 0)" if template.dtype == jnp.bool_ else "a whole number"
        raise InputError(f"env.{name}={value!r} must be {kind}, such as {default}.")
    return array.astype(template.dtype)[()]


def _bounds(dtype: Any) -> tuple[int, int]:
    info = jnp.iinfo(dtype)
    return int(info.min), int(info.max)
