"""Rows of metrics, thinned while they are read: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MAX_ROWS = 2_000  # rows that are kept; a picture shows fewer
MAX_NUMBERS = 200_000  # numbers of a metric that are kept, if many seeds allow fewer rows

CLOCK = "env_steps"


class Group(NamedTuple):
    """Consecutive rows, summed."""

    count: int
    clock: float  # sum of the rows' environment steps
    values: dict[str, tuple[np.ndarray, np.ndarray]]  # sum and number of the known ones, [S] each

    def row(self) -> dict[str, Any]:
        """Means of the known values, NaN if there are none."""
        means = {
            name: np.where(number > 0, total / np.maximum(number, 1), np.nan)
            for name, (total, number) in self.values.items()
        }
        return {CLOCK: self.clock / self.count, **means}


def thinned_rows(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Means over neighbouring rows, so that few rows are left; few rows are left as they are.

    Args:
        rows: each with `env_steps` and, for some of `names`, a list of numbers or None, [S].
        names: the metrics that are kept.

    Returns:
        rows of `env_steps` and arrays [S], NaN where nothing is known. All but the last stand for
        the same number of given rows.
    """
    groups: list[Group] = []
    size, most = 1, MAX_ROWS
    for row in rows:
        one = _group(row, names)
        if groups and groups[-1].count < size:
            groups[-1] = _joined(groups[-1], one)
            continue
        if len(groups) == most:
            groups = [_joined(*pair) for pair in zip(groups[::2], groups[1::2], strict=True)]
            size *= 2
        groups.append(one)
        if len(groups) == 1:
            most = _even(MAX_NUMBERS // _num_seeds(one))
    return [group.row() for group in groups]


def strided(rows: Iterable[Any], most: int) -> list[Any]:
    """Every k-th row from the first one on, for a power of two k that leaves at most 2 `most`."""
    kept: list[Any] = []
    every = 1
    for number, row in enumerate(rows):
        if number % every:
            continue
        if len(kept) == 2 * most:
            kept, every = kept[::2], 2 * every
        if number % every == 0:
            kept.append(row)
    return kept


def _group(row: Mapping[str, Any], names: Sequence[str]) -> Group:
    values = {}
    for name in names:
        if name in row:
            given = np.array([np.nan if x is None else x for x in row[name]], np.float64)
            known = np.isfinite(given)
            values[name] = np.where(known, given, 0.0), known.astype(np.int64)
    return Group(1, float(row[CLOCK]), values)


def _joined(first: Group, second: Group) -> Group:
    names = dict.fromkeys([*first.values, *second.values])
    values = {name: _sums(name, [first, second]) for name in names}
    return Group(first.count + second.count, first.clock + second.clock, values)


def _sums(name: str, groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
    parts = [group.values[name] for group in groups if name in group.values]
    totals, numbers = zip(*parts, strict=True)
    return np.sum(totals, axis=0), np.sum(numbers, axis=0)


def _num_seeds(group: Group) -> int:
    return max((len(total) for total, _ in group.values.values()), default=1) or 1


def _even(rows: int) -> int:
    """The largest number of rows that is even and allowed."""
    return 2 * (min(MAX_ROWS, max(rows, 250)) // 2)
