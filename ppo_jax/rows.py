"""From the device's rows, one an iteration, to those of `metrics.jsonl`, one a logged point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Rows = dict[str, np.ndarray]  # name -> [S, k], k consecutive iterations

# How the iterations of a window become one number: all others are means.
LARGEST = ("ratio_max", "log_ratio_abs_first")
LAST = ("learning_rate", "alive")
SUMS = ("num_episodes", "episode_return_sum", "episode_length_sum")


def joined(pending: Rows | None, fresh: Rows) -> Rows:
    """`fresh` behind `pending`, along the iterations."""
    if pending is None:
        return fresh
    return {name: np.concatenate([pending[name], fresh[name]], axis=1) for name in fresh}


def windows(
    pending: Rows | None, fresh: Rows, iteration: int, every: int, last: int
) -> tuple[list[tuple[int, Rows]], Rows | None]:
    """Cut the rows of a chunk at the logged points, whatever the chunk's length.

    Args:
        pending: rows since the last logged point. fresh: the chunk's rows.
        iteration: iterations done after the chunk. every: iterations between logged points.
        last: the run's last iteration, a logged point as well.

    Returns:
        (iteration, its window) for each logged point, and the rows left over.
    """
    rows = joined(pending, fresh)
    width = next(iter(rows.values())).shape[1]
    first = iteration - width  # iterations done before the oldest row
    points = [p for p in range(first + 1, iteration + 1) if p % every == 0 or p == last]
    cut, done = [], 0
    for point in points:
        end = point - first
        cut.append((point, {name: value[:, done:end] for name, value in rows.items()}))
        done = end
    rest = {name: value[:, done:] for name, value in rows.items()} if done < width else None
    return cut, rest


def aggregate(window: Rows) -> dict[str, list[float | None]]:
    """One number per seed of each metric; None where no episode ended in the window."""
    row: dict[str, list[float | None]] = {}
    num_episodes = window["num_episodes"].sum(axis=1)
    for name in ("return", "length"):
        total = window[f"episode_{name}_sum"].sum(axis=1, dtype=np.float64)
        row[f"episode_{name}"] = [
            float(value / count) if count else None
            for value, count in zip(total, num_episodes, strict=True)
        ]
    row["num_episodes"] = [int(count) for count in num_episodes]
    for name, value in sorted(window.items()):
        if name not in SUMS:
            row[name] = [float(x) for x in _reduced(name, value)]
    return row


def _reduced(name: str, value: np.ndarray) -> Iterator[Any]:
    if name in LARGEST:
        return iter(value.max(axis=1))
    if name in LAST:
        return iter(value[:, -1])
    return iter(value.mean(axis=1, dtype=np.float64))
