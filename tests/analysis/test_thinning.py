"""Thinned rows: few stay as they are, many become means, and memory does not grow."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ppo_jax.analysis import thinning
from ppo_jax.analysis.thinning import strided, thinned_rows


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Row i at step 10 (i + 1): seed 0 has i, seed 1 a number in every second row only."""
    for i in range(count):
        row = {"env_steps": 10 * (i + 1), "a": [float(i), 1.0 if i % 2 else None]}
        yield row | ({"b": [2.0, math.inf]} if i % 4 == 0 else {})


def test_few_rows_stay_as_they_are() -> None:
    found = thinned_rows(rows(5), ("a", "b"))
    assert [row["env_steps"] for row in found] == [10, 20, 30, 40, 50]
    np.testing.assert_array_equal(found[2]["a"], [2.0, np.nan])
    np.testing.assert_array_equal(found[4]["b"], [2.0, np.nan])  # infinity is no known value
    assert "b" not in found[1]


def test_many_rows_become_means_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinning, "MAX_ROWS", 6)
    found = thinned_rows(rows(22), ("a", "b"))
    assert len(found) == 6  # of 4 rows each, the last of 2
    assert [row["env_steps"] for row in found] == [25.0, 65.0, 105.0, 145.0, 185.0, 215.0]
    np.testing.assert_array_equal([row["a"][0] for row in found], [1.5, 5.5, 9.5, 13.5, 17.5, 20.5])
    np.testing.assert_array_equal([row["a"][1] for row in found], 1.0)
    np.testing.assert_array_equal([row["b"][0] for row in found], 2.0)


def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinning, "MAX_ROWS", 50)
    peaks = []
    for count in (500, 5_000):
        tracemalloc.start()
        thinned_rows(rows(count), ("a",))
        strided(rows(count), 25)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("count, step", [(1, 1), (8, 1), (9, 2), (16, 2), (17, 4), (1000, 128)])
def test_a_stride_is_a_power_of_two_that_leaves_few_rows(count: int, step: int) -> None:
    assert strided(range(count), 4) == list(range(0, count, step))
