"""Observations by the names of their leaves: as the environment shows them, and as they are stored.

A leaf within a dict, a named tuple or a tuple has a name with dots, such as `near.board` or `0`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.config.errors import RAISED, InputError
from ppo_jax.envs.actions import dials_of, example_action
from ppo_jax.envs.interface import (
    ACTION_MASK,
    Environment,
    ObservationSpace,
    action_mask,
    without_action_mask,
)

WHOLE = "observation"  # name of an observation that is one array
MOST_CATEGORIES = 64  # values of a leaf that a network sees one-hot
MOST_FLAGS = 8192  # numbers of such a leaf when each of its values is a flag
MOST_SCALED = 2**16  # larger bounds of whole numbers are no scale


def named(tree: Any, alone: str = WHOLE) -> dict[str, Any]:
    """The leaves of a tree by name, in jax's order; `alone` is the name of a tree of one array."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = (jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves)
    return {name or alone: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}


def shown(environment: Environment) -> dict[str, ObservationSpace]:
    """The leaves that a network sees, by name, as the environment itself shows them."""
    if environment.raw is None:
        return {
            name: ObservationSpace(tuple(leaf.shape), leaf.dtype.name, -np.inf, np.inf, False)
            for name, leaf in named(without_action_mask(environment.observation)).items()
        }
    space = environment.raw.observation_space
    declared = space if isinstance(space, dict) else {WHOLE: space}
    return {name: declared[name] for name in named(without_action_mask(environment.observation))}


def to_stored(environment: Environment, leaves: Mapping[str, Array]) -> Any:
    """One observation from its leaves by name, as the environment shows them -> as it is stored.

    A whole number becomes a one-hot row, and a scalar [1]. One array alone keeps its dtype; among
    several the dtype decides what a normaliser does, so each becomes that of the stored leaf.
    """
    spaces, stored = shown(environment), named(environment.observation)
    is_alone = stored.get(WHOLE) is environment.observation

    def one(name: str) -> Array:
        leaf = leaves[name]
        if name in spaces and spaces[name].is_number:
            return one_hot(leaf, spaces[name], stored[name].dtype)
        leaf = leaf.reshape(stored[name].shape)
        return leaf if is_alone else leaf.astype(stored[name].dtype)

    treedef = jax.tree.structure(environment.observation)
    return jax.tree.unflatten(treedef, [one(name) for name in stored])


def one_hot(value: Any, space: ObservationSpace, dtype: Any) -> Array:
    """A whole number of a space as a row with a 1 at its place."""
    count = int(space.high) - int(space.low) + 1
    return jax.nn.one_hot(jnp.asarray(value).reshape(()) - int(space.low), count, dtype=dtype)


def highest_bytes(environment: Environment) -> dict[str, float]:
    """The highest values that leaves of bytes declare, by name; those that declare none are left.

    An action mask is no leaf that a network sees.
    """
    stored = named(environment.observation)
    return {
        name: float(np.max(space.high))
        for name, space in shown(environment).items()
        if stored[name].dtype == jnp.uint8 and 0 < np.max(space.high) < np.inf
    }


def categories(environment: Environment) -> dict[str, tuple[int, int]]:
    """Leaves whose whole numbers are few, by name: the lowest number, and how many there are.

    They are cells of a board, kinds of tiles, colours: what is 2 is not twice what is 1. Two
    values, a leaf that is one number and stored one-hot, and an action mask do not count.
    """
    return few_valued(_bounded(environment), named(environment.observation))


def largest_integers(environment: Environment) -> dict[str, float]:
    """Leaves whose whole numbers are many, by name: the largest magnitude of their bounds.

    Categories, bytes, and bounds so wide that they are those of a dtype are left out.
    """
    stored, few = named(environment.observation), categories(environment)
    found = {name: max(abs(low), abs(high)) for name, low, high in _bounded(environment)}
    return {
        name: float(most)
        for name, most in found.items()
        if 1 < most <= MOST_SCALED and name not in few and stored[name].dtype != jnp.uint8
    }


def _bounded(environment: Environment) -> tuple[tuple[str, int, int], ...]:
    """Leaves of whole numbers that have bounds: (name, lowest, highest)."""
    if environment.raw is None:
        return environment.integers
    ends = {name: ends_of(space) for name, space in shown(environment).items()}
    return tuple((name, *pair) for name, pair in ends.items() if pair is not None)


def ends_of(space: ObservationSpace) -> tuple[int, int] | None:
    """The lowest and the highest of a leaf's whole numbers, None for other leaves."""
    if not space.is_whole or space.is_number:
        return None
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        return None
    return int(np.min(space.low)), int(np.max(space.high))


def few_valued(
    integers: Iterable[tuple[str, int, int]], shapes: Mapping[str, Any]
) -> dict[str, tuple[int, int]]:
    """`categories` among leaves [*shape] by name, of `Environment.integers`."""
    counted = {name: (low, high - low + 1) for name, low, high in integers}
    return {
        name: (low, count)
        for name, (low, count) in counted.items()
        if 2 < count <= MOST_CATEGORIES and math.prod(shapes[name].shape) * count <= MOST_FLAGS
    }


def mask_size(environment: Environment) -> int | None:
    """The number of flags of an environment's action mask, None if it has none."""
    mask = action_mask(environment.observation)
    return None if mask is None else int(mask.shape[0])


def require_fitting(environment: Environment) -> None:
    """Refuse a mask that does not fit the actions.

    Raises:
        InputError: a mask of another width or dtype, or for real actions alone.
    """
    name, mask = environment.name, action_mask(environment.observation)
    size = sum(dials_of(environment.action_space))
    if mask is not None and size == 0:
        raise InputError(
            f"{name} has an {ACTION_MASK} and real actions only: leave it out, or make what it "
            "forbids a Discrete action."
        )
    if mask is not None and (mask.shape, mask.dtype) != ((size,), jnp.bool_):
        raise InputError(
            f"{name} has an {ACTION_MASK} of {mask.dtype}{list(mask.shape)} and its actions need "
            f"bool[{size}]: give a flag for each choice, those of several dials side by side."
        )


def require_legal(environment: Environment, mask: Any) -> None:
    """Refuse first observations in which a dial allows no action, as if all were legal there.

    Args:
        mask: [..., n] of observations from which an episode goes on.

    Raises:
        InputError: the sentence names the dial.
    """
    dials = dials_of(environment.action_space)
    for number, part in enumerate(np.split(mask, np.cumsum(dials)[:-1], axis=-1)):
        if not part.any(axis=-1).all():
            dial = f" of dial {number}" if len(dials) > 1 else ""
            raise InputError(
                f"{environment.name} starts an episode in which no action{dial} is legal: make one "
                f"of its flags in {ACTION_MASK} true, such as that of waiting."
            )


def require_same_tree(
    first: Any, later: Any, label: str, words: tuple[str, str] = ("reset_env", "step_env")
) -> None:
    """Refuse observations that do not keep their leaves from one step to the next.

    Raises:
        InputError: the sentence names the first leaf that differs.
    """
    before, after = ({n: jnp.shape(x) for n, x in named(tree).items()} for tree in (first, later))
    if list(before) == [WHOLE] == list(after) and before != after:
        raise InputError(
            f"{label}: {words[0]} returns an observation of shape {before[WHOLE]} and {words[1]} "
            f"one of shape {after[WHOLE]}; make them equal."
        )
    for leaf in [*before, *after]:
        pair = [
            f"of shape {shapes[leaf]}" if leaf in shapes else "missing"
            for shapes in (before, after)
        ]
        if pair[0] != pair[1]:
            raise InputError(
                f"{label}: the observation's leaf {leaf!r} is {pair[0]} from {words[0]} and "
                f"{pair[1]} from {words[1]}; make them equal."
            )


def own_metrics(environment: Environment, info: Any, count: int) -> dict[str, Array] | tuple[()]:
    """The environment's own metrics of `count` transitions by name, as reals; () for none."""
    if environment.metrics is None:
        return ()
    found = jax.vmap(environment.metrics, axis_size=count)(info)  # info may be empty
    return {name: jnp.asarray(x, jnp.result_type(float)) for name, x in found.items()} or ()


def metric_names(environment: Environment) -> list[str]:
    """The names of an environment's own metrics, sorted.

    Raises:
        InputError: they are no dict of scalars by name.
    """
    if environment.metrics is None:
        return []
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, action = environment.default_params, example_action(environment.action_space)
    _, state = jax.eval_shape(environment.reset, key, params)
    info = jax.eval_shape(environment.transition, key, state, action, params)[-1]
    label = f"{environment.name}: metrics(info)"
    try:
        found = jax.eval_shape(environment.metrics, info)
    except RAISED as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{label} fails with {type(error).__name__}: {reason}; return a dict of one number a "
            "name."
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise InputError(
            f"{label} returns {type(found).__name__}: return a dict of one number a name."
        )
    for name, leaf in found.items():
        is_number = getattr(leaf, "shape", None) == () and (
            leaf.dtype == jnp.bool_ or jnp.issubdtype(leaf.dtype, jnp.number)
        )
        if not is_number:
            shape = getattr(leaf, "shape", type(leaf).__name__)
            raise InputError(
                f"{label} has {name!r} of shape {shape}: return one number of shape () for each "
                "name."
            )
    return sorted(found)


def require_kept(environment: Environment) -> None:
    """Refuse an `Environment` whose functions return other leaves than it declares.

    Raises:
        InputError: the sentence names the first leaf that differs.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, declared = environment.default_params, environment.observation
    first, state = jax.eval_shape(environment.reset, key, params)
    action = example_action(environment.action_space)
    later = jax.eval_shape(environment.transition, key, state, action, params)[0]
    for word, found in (("reset", first), ("transition", later)):
        require_same_tree(declared, found, environment.name, ("the declaration", word))
