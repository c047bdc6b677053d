"""The tuned forms of `kernels`: programs of a form, and a comparison of results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ppo_jax.kernels import backend

TUNED = ("cpu", "gpu")


def traced(function: Callable, form: str, *given: Any) -> Any:
    """The program of `function` in one form. A new function each time: jit keeps what it traced."""
    with backend.use(form):
        return jax.jit(lambda *given: function(*given)).lower(*given)


def assert_close(found: Any, expected: Any, atol: float) -> None:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=atol, atol=atol)
