"""Choice of the kernels' forms: the only file that queries the backend.

Each function of this folder has a plain form, which defines it, and tuned forms with equal results
up to rounding. On a CPU, time goes into arithmetic and memory traffic. On a GPU or TPU, time goes
into kernel launches and waits for the host, so it gets other programs.

`PPO_JAX_KERNELS=plain` selects the plain form of every function; the default is `auto`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from typing import Any

import jax

from ppo_jax.config.errors import InputError

VARIABLE = "PPO_JAX_KERNELS"
FORMS = ("auto", "plain")


class Backend(Enum):
    """A form of the kernels. A TPU takes the forms of a GPU, which are not measured there."""

    PLAIN = "plain"
    CPU = "cpu"
    GPU = "gpu"
    TPU = "tpu"


def _wanted() -> Backend | None:
    """Read the user's choice; None is the form of the device."""
    given = os.environ.get(VARIABLE) or "auto"
    if given not in FORMS:
        raise InputError(f"{VARIABLE}={given!r} is not one of {', '.join(FORMS)}. Unset it.")
    return Backend.PLAIN if given == "plain" else None


_forced = _wanted()


def current() -> Backend:
    """Return the form that functions are traced with now."""
    return _of_platform(platform()) if _forced is None else _forced


def platform() -> str:
    """Platform of JAX's default device: "cpu", "gpu" or "tpu"."""
    return jax.default_backend()


def xla_flags() -> str:
    """The user's options for XLA."""
    return os.environ.get("XLA_FLAGS", "")


def is_cpu_device(device: Any) -> bool:
    """Check that a device is a CPU."""
    return device.platform == "cpu"


def _of_platform(name: str) -> Backend:
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


def on(device: Any) -> AbstractContextManager[None]:
    """Trace with the forms of a device's platform, unless `use` or the user chose others."""
    return use(_of_platform(device.platform) if _forced is None else _forced)


def is_cpu() -> bool:
    """Check for the CPU's tuned forms."""
    return current() is Backend.CPU


def is_accelerator() -> bool:
    """Check for the tuned forms of a GPU or TPU."""
    return current() in (Backend.GPU, Backend.TPU)
