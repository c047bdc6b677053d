"""Reduction of the iterations' metrics to the rows of `metrics.jsonl`, one a logged point.

A window is the iterations of one logged point. Iterations are reduced in their order, one by one.
So a row has the same bits for every cut of the run into chunks, and an open window is as small as
one iteration and fits into a checkpoint.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ppo_jax.rl.metrics import LAST, MAX, MEAN, SUM, mean_of_env, reduction_of

Rows = dict[str, np.ndarray]  # name -> [S, k], k consecutive iterations


class Window(NamedTuple):
    """Consecutive iterations, reduced."""

    count: int  # iterations
    values: dict[str, np.ndarray]  # name -> [S] float64: the sum, the largest or the last


def extended(window: Window | None, fresh: Rows) -> Window:
    """Append the iterations of `fresh` to a window, in their order."""
    count = next(iter(fresh.values())).shape[1]
    if window is None:
        window = Window(0, {name: _start(name, len(value)) for name, value in fresh.items()})
    values = {name: _reduced(name, window.values[name], value) for name, value in fresh.items()}
    return Window(window.count + count, values)


def windows(
    pending: Window | None, fresh: Rows, iteration: int, every: int, last: int
) -> tuple[list[tuple[int, Window]], Window | None]:
    """Cut the rows of a chunk at the logged points.

    Args:
        pending: the open window before the chunk. fresh: the chunk's rows.
        iteration: iterations done after the chunk. every: iterations between logged points.
        last: the run's last iteration, which is a logged point as well.

    Returns:
        (iteration, its window) for each logged point, and the window that is still open.
    """
    width = next(iter(fresh.values())).shape[1]
    first = iteration - width
    points = [p for p in range(first + 1, iteration + 1) if p % every == 0 or p == last]
    cut, done = [], 0
    for point in points:
        part = {name: value[:, done : point - first] for name, value in fresh.items()}
        cut.append((point, extended(pending, part)))
        pending, done = None, point - first
    if done < width:
        pending = extended(pending, {name: value[:, done:] for name, value in fresh.items()})
    return cut, pending


def aggregate(window: Window) -> dict[str, list[float | None]]:
    """One number per seed of each metric; None if no episode of the seed ended in the window."""
    row: dict[str, list[float | None]] = {}
    values = window.values
    means = {f"episode_{name}": f"episode_{name}_sum" for name in ("return", "length")}
    means |= {mean: name for name in sorted(values) if (mean := mean_of_env(name)) is not None}
    for mean, name in means.items():
        row[mean] = [
            float(total / count) if count else None
            for total, count in zip(values[name], values["num_episodes"], strict=True)
        ]
    row["num_episodes"] = [int(count) for count in values["num_episodes"]]
    for name in sorted(values):
        if (reduction := reduction_of(name)) != SUM:
            count = window.count if reduction == MEAN else 1
            row[name] = [float(x) / count for x in values[name]]
    return row


def to_json(window: Window | None) -> dict[str, Any] | None:
    """Write a window for a checkpoint: every number as C99's exact hexadecimal text."""
    if window is None:
        return None
    values = {name: [float(x).hex() for x in value] for name, value in window.values.items()}
    return {"iterations": window.count, "values": values}


def from_json(content: dict[str, Any] | None) -> Window | None:
    """Read the window that `to_json` wrote, bit for bit.

    Raises:
        ValueError, KeyError, TypeError: the content is no window.
    """
    if content is None:
        return None
    values = {
        name: np.array([float.fromhex(x) for x in texts], np.float64)
        for name, texts in content["values"].items()
    }
    return Window(int(content["iterations"]), values)


def _start(name: str, num_seeds: int) -> np.ndarray:
    return np.full(num_seeds, -np.inf if reduction_of(name) == MAX else 0.0)


def _reduced(name: str, old: np.ndarray, value: np.ndarray) -> np.ndarray:
    value = value.astype(np.float64)
    reduction = reduction_of(name)
    if reduction == LAST:
        return value[:, -1]
    both = np.concatenate([old[:, None], value], axis=1)
    if reduction == MAX:
        return both.max(axis=1)
    return np.cumsum(both, axis=1)[:, -1]  # in order, whereas np.sum adds in pairs
