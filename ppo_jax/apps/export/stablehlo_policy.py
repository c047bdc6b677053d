"""A policy as a serialised StableHLO program (`jax.export`), for any number of observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from ppo_jax.apps.export.numpy_policy import MASK, WHOLE
from ppo_jax.config.errors import InputError

Shapes = dict[str, tuple[int, ...]]

PLATFORMS = ("cpu", "cuda", "tpu")  # one program for all of them


def require() -> None:
    """Refuse if the package flatbuffers is missing, which jax needs for such programs."""
    try:
        import flatbuffers  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "format 'stablehlo' needs the package flatbuffers, which is not installed: install it "
            "with pip install 'ppo-jax[stablehlo]', or use --format numpy, which needs nothing."
        ) from None


def build(act: Callable[..., Any], shapes: Shapes, mask_size: int | None) -> bytes:
    """The bytes of `act` with its parameters inside.

    It takes one array, float32 [n, *O], or a dict of inputs by name; the mask `action_mask` is
    bool [n, size]. It gives actions in the environment's own form.

    Args:
        act: a function of a dict of inputs by name.

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
    function = jax.jit((lambda x: act({WHOLE: x})) if is_whole else act)
    try:
        exported = export.export(function, platforms=PLATFORMS)(rows[WHOLE] if is_whole else rows)
    except Exception as error:  # whatever the user's network raises becomes a sentence
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"The policy cannot be exported ({type(error).__name__}: {reason}): write its network "
            "so that it takes any number of observations on every platform."
        ) from error
    return bytes(exported.serialize())


def load(program: bytes) -> tuple[Callable[[dict[str, np.ndarray]], Any], Shapes, int | None]:
    """A program as a function of its inputs by name [n, ...], their shapes, and the mask's size.

    Raises:
        InputError: flatbuffers is missing, or these are no such program's bytes.
    """
    require()
    try:
        exported = export.deserialize(bytearray(program))
        (given,), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
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

    def run(rows: dict[str, np.ndarray]) -> Any:
        return jax.tree.map(np.asarray, call(rows[WHOLE] if is_whole else rows))

    return run, shapes, None if mask is None else mask[0]
