"""A policy as a serialised StableHLO program (`jax.export`), for any number of observations."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from ppo_jax.config.errors import InputError

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


def build(act: Callable[[Array], Array], observation_shape: tuple[int, ...]) -> bytes:
    """The bytes of `act`, float32 [n, *O] -> [n, ...], with its parameters inside.

    Raises:
        InputError: a network of the user's own that cannot be exported for every n.
    """
    require()
    (count,) = export.symbolic_shape("n")
    rows = jax.ShapeDtypeStruct((count, *observation_shape), jnp.float32)
    try:
        exported = export.export(jax.jit(act), platforms=PLATFORMS)(rows)
    except Exception as error:  # whatever the user's network raises becomes a sentence
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"The policy cannot be exported ({type(error).__name__}: {reason}): write its network "
            "so that it takes any number of observations on every platform."
        ) from error
    return bytes(exported.serialize())


def load(program: bytes) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int, ...]]:
    """A program's function of float32 observations [n, *O], and the shape [*O].

    Raises:
        InputError: flatbuffers is missing, or these are no such program's bytes.
    """
    require()
    try:
        exported = export.deserialize(bytearray(program))
        (rows,) = exported.in_avals
        shape = tuple(int(size) for size in rows.shape[1:])
    except Exception as error:  # flatbuffers raises whatever a damaged offset leads to
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"This is no exported StableHLO policy ({type(error).__name__}: {reason}): export it "
            "again."
        ) from error

    call = jax.jit(exported.call)
    return lambda observation: np.asarray(call(observation)), shape
