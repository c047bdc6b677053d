"""Bounds of actions: sound ones, and whether a policy begins within them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppo_jax.config.errors import InputError


def require_sound(low: Any, high: Any, label: str) -> None:
    """Refuse bounds that leave no action to choose. Equal ones are sound: one action is left.

    Raises:
        InputError: a bound is NaN, or the lower one lies above the upper one.
    """
    low, high = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
    wrong = ~(low <= high) | (low == np.inf) | (high == -np.inf)
    if not wrong.any():
        return
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    ends = f"[{low[place]:g}, {high[place]:g}]"
    fault = "lower bound lies above the upper one: exchange them"
    if np.isnan(low[place]) or np.isnan(high[place]):
        fault = "bound is NaN: declare a number, or an infinity"
    elif low[place] <= high[place]:
        fault = "bounds are the same infinity: declare a number"
    raise InputError(f"{label} has the action bounds {ends} at {list(place)}, whose {fault}.")
