"""Observations of gymnax's API as ours: named leaves, and how each of them is stored."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.config.errors import InputError
from ppo_jax.envs import leaves
from ppo_jax.envs.interface import ACTION_MASK, ObservationSpace
from ppo_jax.envs.suites.gymnax import spaces
from ppo_jax.envs.suites.gymnax.spaces import strong

# These declare float32 observations that only ever hold 0 and 1 (a test plays them to see it).
_BINARY_MODULES = ("gymnax.environments.minatar.", "gymnax.environments.misc.pong")

Encode = Callable[[Any], Array]


class Observations(NamedTuple):
    """An observation space and the encoder of its observations."""

    space: ObservationSpace | dict[str, ObservationSpace]  # one array's, or by a leaf's name
    encode: Callable[[Any], Any]  # the environment's own observation -> the stored one
    rigid: tuple[str, ...]  # as of `Actions`


def observations(env: Any, params: Any, examples: tuple[Any, ...], label: str) -> Observations:
    """The observation space of a gymnax-API object.

    Args:
        examples: the observations (or their shapes) of reset and transition, as `plain` has them.

    Raises:
        InputError: observations that cannot be trained on, or that are not as declared.
    """
    space = spaces.declared(env.observation_space, params, f"{label}.observation_space")
    if spaces.children(space) is None:
        _require_array(examples[0], space, label)
        is_binary = type(env).__module__.startswith(_BINARY_MODULES)
        alone, encode_alone = _leaf(space, examples, label, is_binary)
        return Observations(alone, encode_alone, _rigid(env, params, {"": alone}))
    names = dict(spaces.leaves_of(space))
    shown = [leaves.named(example) for example in examples]
    if not names:
        raise InputError(f"{label} declares an empty observation: declare one leaf or more.")
    _require_names([name for name, _ in spaces.leaves_of(space)], list(shown[0]), label)
    found = {
        name: _within_tree(name, names[name], tuple(each[name] for each in shown), label)
        for name in names
    }
    treedef = jax.tree.structure(examples[0])

    def encode(value: Any) -> Any:
        own = leaves.named(value)
        return jax.tree.unflatten(treedef, [found[name][1](own[name]) for name in own])

    shapes = {name: each[0] for name, each in found.items()}
    return Observations(shapes, encode, _rigid(env, params, shapes))


def plain(observation: Any) -> Any:
    """An observation with dicts in place of named tuples and dataclasses, and tuples of lists."""
    if isinstance(observation, Mapping):
        return {str(name): plain(leaf) for name, leaf in observation.items()}
    if isinstance(observation, tuple) and hasattr(observation, "_asdict"):
        return plain(observation._asdict())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(observation, tuple):
        return tuple(plain(leaf) for leaf in observation)
    if dataclasses.is_dataclass(observation) and not isinstance(observation, type):
        fields = dataclasses.fields(observation)
        return {field.name: plain(getattr(observation, field.name)) for field in fields}
    return observation


def with_mask(observation: Any, mask: Any) -> dict[str, Any]:
    """An observation with the leaf `action_mask`."""
    fields = observation if isinstance(observation, dict) else {leaves.WHOLE: observation}
    return {**fields, ACTION_MASK: mask}


def _rigid(env: Any, params: Any, found: Mapping[str, ObservationSpace]) -> tuple[str, ...]:
    """Parameters that shape the leaves of which a network has an input for each value."""
    ends = {name: leaves.ends_of(space) for name, space in found.items()}
    bounded = [(name, *pair) for name, pair in ends.items() if pair is not None]
    flagged = leaves.few_valued(bounded, found)
    if not flagged and not any(space.is_number for space in found.values()):
        return ()
    gymnax = spaces.library()

    def shaping(params: Any) -> Any:
        kept = []
        for name, leaf in spaces.leaves_of(env.observation_space(params)):
            if name in flagged:  # its bounds count, whatever dtype it declares
                kept.append(gymnax.Box(leaf.low, leaf.high, leaf.shape, jnp.int32))
            elif found[name].is_number:
                kept.append(leaf)
        return gymnax.Tuple(tuple(kept))

    return spaces.dependence(shaping, params)[1]


def _require_array(example: Any, space: Any, label: str) -> None:
    if not hasattr(example, "dtype"):
        raise InputError(
            f"{label} declares the observation space {space} and returns a tree with the leaves "
            f"{', '.join(leaves.named(example))}: declare a Dict or Tuple of their spaces."
        )


def _require_names(wanted: list[str], found: list[str], label: str) -> None:
    """Refuse a tree whose leaves are not the declared ones."""
    if wanted == found:
        return
    twice = [name for name in wanted if wanted.count(name) > 1]
    if twice:
        raise InputError(f"{label} has two leaves of the name {twice[0]!r}: rename one of them.")
    lacking = [name for name in wanted if name not in found]
    surplus = [name for name in found if name not in wanted]
    which = f"lacks {lacking[0]!r}" if lacking else f"has {', '.join(surplus)!r} besides"
    raise InputError(
        f"{label} declares observations with the leaves {', '.join(wanted)}, and what it returns "
        f"{which}: make them equal."
    )


def _within_tree(
    name: str, space: Any, examples: tuple[Any, ...], label: str
) -> tuple[ObservationSpace, Encode]:
    """A leaf of several. Whole numbers and flags keep their kind: no normaliser changes them."""
    if name == ACTION_MASK:
        is_whole = jnp.issubdtype(examples[0].dtype, jnp.integer)  # MultiBinary's flags are int8
        flags = (lambda value: jnp.asarray(value) != 0) if is_whole else jnp.asarray
        return ObservationSpace(examples[0].shape, "bool", 0, 1, False), flags
    found, encode = _leaf(space, examples, f"{label} ({name})")
    if found.is_number:
        return found, lambda value: leaves.one_hot(value, found, jnp.bool_)
    dtypes = {example.dtype for example in examples}
    if len(dtypes) > 1 or jnp.issubdtype(examples[0].dtype, jnp.floating):
        return found, encode
    shape, kept = examples[0].shape or (1,), examples[0].dtype
    is_whole = jnp.issubdtype(kept, jnp.integer)
    return found._replace(is_whole=is_whole), lambda value: strong(value, kept).reshape(shape)


def _leaf(
    space: Any, examples: tuple[Any, ...], label: str, is_binary: bool = False
) -> tuple[ObservationSpace, Encode]:
    """One array's space, and how it is stored: as float32, bool or uint8."""
    gymnax = spaces.library()
    shape, dtype = examples[0].shape, examples[0].dtype
    if isinstance(space, gymnax.Discrete):
        return _numbered(space, examples, label)
    if not isinstance(space, gymnax.Box):
        raise InputError(
            f"{label} has the observation space {space}: only Box, Discrete, and a Dict or Tuple "
            "of them can be trained; declare one of these."
        )
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
        raise InputError(f"{label} returns observations of {dtype}: return real numbers.")
    if math.prod(shape) == 0:
        raise InputError(
            f"{label} returns observations of shape {shape}, which hold no number: return a "
            "constant, such as jnp.ones(1), if there is nothing to see."
        )
    declared = spaces.shape_of(space)
    if (declared or (1,)) != (shape or (1,)):
        raise InputError(
            f"{label} declares observations of shape {declared} and returns them of shape {shape}: "
            "make them equal."
        )
    dtypes = {example.dtype for example in examples}
    small = dtypes == {jnp.dtype(jnp.bool_)} or dtypes == {jnp.dtype(jnp.uint8)}
    kept = jnp.bool_ if is_binary else dtype if small else jnp.float32
    kinds = {np.dtype(space.dtype), *dtypes}
    is_whole = all(jnp.issubdtype(kind, jnp.integer) for kind in kinds)
    return (
        ObservationSpace(shape, np.dtype(space.dtype).name, space.low, space.high, False, is_whole),
        lambda value: strong(value, kept).reshape(shape or (1,)),
    )


def _numbered(space: Any, examples: tuple[Any, ...], label: str) -> tuple[ObservationSpace, Encode]:
    """Observations of a Discrete space: whole numbers, stored as rows with a 1 at their place."""
    count, first = spaces.count_of(space, label), int(getattr(space, "start", 0))
    for example in examples:
        if example.size != 1 or not jnp.issubdtype(example.dtype, jnp.integer):
            raise InputError(
                f"{label} declares the observations Discrete({count}) and returns "
                f"{example.dtype} of shape {example.shape}: return one whole number, or declare "
                "a Box of that shape."
            )
    if count < 1:
        raise InputError(f"{label} declares the observations Discrete({count}): declare 1 or more.")
    dtype = np.dtype(getattr(space, "dtype", np.int32)).name
    found = ObservationSpace(examples[0].shape, dtype, first, first + count - 1, True)
    return found, lambda value: leaves.one_hot(value, found, jnp.float32)
