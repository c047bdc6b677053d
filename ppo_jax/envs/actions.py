"""Action spaces taken apart into dials and real numbers, and actions put together again.

A dial is one choice of n. `own_action` gives an action the form that the environment itself takes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ppo_jax.envs.interface import (
    ActionSpace,
    Box,
    Discrete,
    Environment,
    MultiDiscrete,
    Product,
)


def parts_of(space: ActionSpace) -> tuple[Discrete | MultiDiscrete | Box, ...]:
    """The parts of a space; itself if it is no product."""
    return space.parts if isinstance(space, Product) else (space,)


def dials_of(space: ActionSpace) -> tuple[int, ...]:
    """The number of choices of each dial, of all parts side by side."""
    found: list[int] = []
    for part in parts_of(space):
        if isinstance(part, Discrete):
            found.append(int(part.n))
        elif isinstance(part, MultiDiscrete):
            found += map(int, part.ns)
    return tuple(found)


def box_of(space: ActionSpace) -> Box | None:
    """All real numbers of a space as one box, flat for a product; None without any."""
    boxes = [part for part in parts_of(space) if isinstance(part, Box)]
    if not boxes or not isinstance(space, Product):
        return boxes[0] if boxes else None
    ends = [
        np.concatenate([np.ravel(np.broadcast_to(end, box.shape)) for box, end in pairs])
        for pairs in ([(box, box.low) for box in boxes], [(box, box.high) for box in boxes])
    ]
    return Box(ends[0].shape, *(np.asarray(end, np.float32) for end in ends))


def put_together(space: Product, counts: Any, reals: Any) -> tuple[Any, ...]:
    """Actions of each part, from those of all dials [..., K] and all real numbers [..., A]."""
    found, dial, place = [], 0, 0
    for part in space.parts:
        if isinstance(part, Box):
            size = math.prod(part.shape)
            own = reals[..., place : place + size]
            found.append(own.reshape(own.shape[:-1] + tuple(part.shape)))
            place += size
        elif isinstance(part, Discrete):
            found.append(counts[..., dial])
            dial += 1
        else:
            found.append(counts[..., dial : dial + len(part.ns)])
            dial += len(part.ns)
    return tuple(found)


def take_apart(space: ActionSpace, action: Any) -> tuple[Any, Any]:
    """One action as those of all dials [K] and all real numbers [A]; None for a kind not in it."""
    import jax.numpy as jnp  # late: names of environments are checked without it

    given = action if isinstance(space, Product) else (action,)
    counts, reals = [], []
    for part, own in zip(parts_of(space), given, strict=True):
        (reals if isinstance(part, Box) else counts).append(jnp.ravel(jnp.asarray(own)))
    joined = [jnp.concatenate(each) if each else None for each in (counts, reals)]
    return joined[0], joined[1]


def form_of(space: ActionSpace) -> dict[str, Any]:
    """The form of a space's own actions, as data; see `own_action`."""
    parts, dial, place = [], 0, 0
    for part in parts_of(space):
        if isinstance(part, Box):
            size = math.prod(part.shape)
            parts.append(real_form(place, part.shape, "float32"))
            place += size
        else:
            shape = () if isinstance(part, Discrete) else (len(part.ns),)
            parts.append(count_form(dial, shape, "int32", [0] * math.prod(shape)))
            dial += math.prod(shape)
    return {"kind": "tuple", "parts": parts} if isinstance(space, Product) else parts[0]


def action_form(environment: Environment) -> dict[str, Any]:
    """The form of an environment's own actions."""
    raw = environment.raw
    if raw is None or raw.action_form is None:
        return form_of(environment.action_space)
    return raw.action_form


def counts_and_reals(form: dict[str, Any], action: Any) -> tuple[np.ndarray, np.ndarray]:
    """The way back from `own_action`: dials [n, K] and real numbers [n, A] of actions [n, ...]."""
    columns: dict[str, dict[int, np.ndarray]] = {"count": {}, "real": {}}

    def collect(form: dict[str, Any], part: Any) -> None:
        if form["kind"] in ("dict", "tuple"):
            parts = form["parts"]
            for key in parts if form["kind"] == "dict" else range(len(parts)):
                collect(parts[key], part[key])
            return
        first, last = form["at"]
        rows = np.asarray(part).reshape(len(part), last - first)
        if form["kind"] == "count":
            rows = rows.astype(np.int64) - np.asarray(form["start"])
        columns[form["kind"]] |= {first + i: rows[:, i] for i in range(last - first)}

    collect(form, action)
    found = []
    for each in columns.values():
        found.append(
            np.stack([each[i] for i in sorted(each)], axis=1) if each else np.zeros((0, 0))
        )
    return found[0], found[1]


def own_actions(environment: Environment, action: Any) -> Any:
    """Actions [n, ...] of the contract -> in the environment's own form, [n, ...]."""
    import jax

    space, form = environment.action_space, action_form(environment)
    return jax.vmap(lambda one: own_action(form, *take_apart(space, one)))(action)


def count_form(first: int, shape: tuple[int, ...], dtype: str, start: list[int]) -> dict[str, Any]:
    """The form of whole numbers: dials from `first` on, each counted from its own start."""
    at = [first, first + math.prod(shape)]
    return {"kind": "count", "at": at, "shape": list(shape), "dtype": dtype, "start": start}


def real_form(first: int, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """The form of real numbers, from place `first` on."""
    at = [first, first + math.prod(shape)]
    return {"kind": "real", "at": at, "shape": list(shape), "dtype": dtype}


def own_action(form: dict[str, Any], counts: Any, reals: Any) -> Any:
    """Actions in the environment's own form, a tree of dicts and tuples.

    Args:
        form: data, so that an exported policy can hold it: a dict or a tuple of forms, or a leaf
            with its dials or places (`at`), shape, dtype, and what it adds to a dial (`start`).
        counts: of all dials, [..., K]. reals: all real numbers, [..., A].
    """
    if form["kind"] == "dict":
        return {name: own_action(part, counts, reals) for name, part in form["parts"].items()}
    if form["kind"] == "tuple":
        return tuple(own_action(part, counts, reals) for part in form["parts"])
    first, last = form["at"]
    x = (counts if form["kind"] == "count" else reals)[..., first:last]
    if any(form.get("start", ())):
        x = x + np.asarray(form["start"], np.int32).reshape((1,) * (x.ndim - 1) + (-1,))
    return x.reshape(x.shape[:-1] + tuple(form["shape"])).astype(form["dtype"])


def example_action(space: ActionSpace) -> Any:
    """Shapes and dtypes of one action."""
    import jax
    import jax.numpy as jnp

    if isinstance(space, Product):
        return tuple(example_action(part) for part in space.parts)
    if isinstance(space, Box):
        return jax.ShapeDtypeStruct(tuple(space.shape), jnp.result_type(float))
    shape = () if isinstance(space, Discrete) else (len(space.ns),)
    return jax.ShapeDtypeStruct(shape, jnp.int32)
