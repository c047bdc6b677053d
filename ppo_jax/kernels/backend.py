"""Choice of the kernels' forms: the only file that asks for the backend.

Each verb of this folder has a plain form, which is its meaning, and tuned forms with equal results
up to rounding. A CPU pays for what it computes and moves. A GPU or TPU pays for every kernel that
it starts and for every time that it waits for the host, so it gets other programs.

`PPO_JAX_KERNELS=plain` makes every verb take its plain form; the default is `auto`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import jax

VARIABLE = "PPO_JAX_KERNELS"
FORMS = ("auto", "plain")


class Backend(Enum):
    """A form of the kernels. A TPU takes the forms of a GPU, which nobody has measured there."""

    PLAIN = "plain"
    CPU = "cpu"
    GPU = "gpu"
    TPU = "tpu"


_forced: Backend | None = Backend.PLAIN if os.environ.get(VARIABLE) == "plain" else None


def current() -> Backend:
    """The form that programs traced now are made of."""
    if _forced is not None:
        return _forced
    name = jax.default_backend()
    return Backend(name) if name in ("cpu", "tpu") else Backend.GPU


@contextmanager
def use(backend: Backend | str) -> Iterator[None]:
    """Trace with the forms of `backend`. A function that `jax.jit` has traced keeps its form."""
    global _forced
    before = _forced
    _forced = Backend(backend)
    try:
        yield
    finally:
        _forced = before


def of_platform(platform: str) -> Backend:
    """The form for a device's platform: "cpu", "gpu", "tpu"; plain if the user asked for it."""
    if _forced is Backend.PLAIN:
        return Backend.PLAIN
    return Backend(platform) if platform in ("cpu", "tpu") else Backend.GPU


def is_cpu() -> bool:
    """Check for the CPU's tuned forms."""
    return current() is Backend.CPU


def is_accelerator() -> bool:
    """Check for the tuned forms of a GPU or TPU."""
    return current() in (Backend.GPU, Backend.TPU)
