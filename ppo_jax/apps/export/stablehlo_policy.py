"""A policy as a serialised StableHLO program (`jax.export`), for any number of observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from ppo_jax.apps.export.numpy_policy import MASK, WHOLE, Memory
from ppo_jax.config.errors import InputError, install

Shapes = dict[str, tuple[int, ...]]

PLATFORMS = ("cpu", "cuda", "tpu")  # one program for all of them


def require() -> None:
    """Refuse if the package flatbuffers is missing, which jax needs for such programs."""
    try:
        import flatbuffers  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "format 'stablehlo' needs the package flatbuffers, which is not installed: install it "
            f"with {install('stablehlo')}, or use --format numpy, which needs nothing."
        ) from None


def build(
    act: Callable[..., Any], shapes: Shapes, mask_size: int | None, start: Memory | None = None
) -> bytes:
    """The bytes of `act` with its parameters inside.

    It takes one array, float32 [n, *O], or a dict of inputs by name; the mask `action_mask` is
    bool [n, size]. It gives actions in the environment's own form. With a memory it takes that as
    well, a dict of leaves [n, ...], and gives (actions, memory, memory of a new episode [...]).

    Args:
        act: a function of a dict of inputs by name, and of the memory if there is one.
        start: the memory of a new episode, [...].

    Raises:
        InputError: a network of the user's own that cannot be exported for every n.
    """
    require()
    (count,) = export.symbolic_shape("n")
    rows = {
        name: jax.ShapeDtypeStruct((count, *shape), jnp.float32) for name, shape in shapes.items()
    }
    if mask_size is not None:
        rows[MASK] = jax.ShapeDtypeStruct((count, mask_size), jnp.bool_)
    is_whole = list(rows) == [WHOLE]
    memory = {
        name: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype)
        for name, leaf in (start or {}).items()
    }

    def function(x: Any, memory: Any = None) -> Any:
        rows = {WHOLE: x} if is_whole else x
        return act(rows) if memory is None else (*act(rows, memory), start)

    given = [rows[WHOLE] if is_whole else rows] + ([] if start is None else [memory])
    try:
        exported = export.export(jax.jit(function), platforms=PLATFORMS)(*given)
    except Exception as error:  # whatever the user's network raises becomes a sentence
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"The policy cannot be exported ({type(error).__name__}: {reason}): write its network "
            "so that it takes any number of observations on every platform."
        ) from error
    return bytes(exported.serialize())


def load(program: bytes) -> tuple[Callable[..., Any], Shapes, int | None, Memory | None]:
    """A program as `numpy_policy.as_policy` takes it.

    Returns:
        the function of its inputs by name [n, ...], their shapes, the mask's size, and the memory
        of a new episode.

    Raises:
        InputError: flatbuffers is missing, or these are no such program's bytes.
    """
    require()
    try:
        exported = export.deserialize(bytearray(program))
        (given, *memory), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        is_whole = not isinstance(given, dict)
        avals = {WHOLE: given} if is_whole else given
        shapes = {name: tuple(map(int, each.shape[1:])) for name, each in avals.items()}
        mask = shapes.pop(MASK, None)
    except Exception as error:  # flatbuffers raises whatever a damaged offset leads to
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"This is no exported StableHLO policy ({type(error).__name__}: {reason}): export it "
            "again."
        ) from error
    call = jax.jit(exported.call)

    def ask(rows: dict[str, np.ndarray], *memory: Any) -> Any:
        return jax.tree.map(np.asarray, call(rows[WHOLE] if is_whole else rows, *memory))

    def run(rows: dict[str, np.ndarray], memory: Memory | None = None) -> Any:
        given = [rows] if memory is None else [rows, memory]
        is_empty = not len(next(iter(rows.values())))
        if is_empty:  # the program takes one row or more
            given = jax.tree.map(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), given)
        found = ask(*given) if memory is None else ask(*given)[:2]
        return jax.tree.map(lambda x: x[:0], found) if is_empty else found

    start = None
    if memory:  # any call gives the memory of a new episode as well
        rows = {name: np.zeros((1, *shape), np.float32) for name, shape in shapes.items()}
        rows |= {} if mask is None else {MASK: np.ones((1, *mask), bool)}
        blank = {n: np.zeros((1, *leaf.shape[1:]), leaf.dtype) for n, leaf in memory[0].items()}
        start = ask(rows, blank)[2]
    return run, shapes, None if mask is None else mask[0], start
