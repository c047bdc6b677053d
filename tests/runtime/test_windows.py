"""Reducing the device's rows between logged points, and one number a window."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_jax.runtime.windows import Rows, Window, aggregate, extended, from_json, to_json, windows


def counted(first: int, last: int, num_seeds: int = 2) -> Rows:
    """Iterations first+1 .. last; each row holds its own number, seed s adds 100 s."""
    numbers = np.arange(first + 1, last + 1, dtype=np.float32)
    return {"x": numbers + 100.0 * np.arange(num_seeds, dtype=np.float32)[:, None]}


def window_of(*numbers: int) -> Window:
    """The iterations of `counted` with these numbers, by plain sums."""
    total = float(sum(numbers))
    return Window(len(numbers), {"x": np.array([total, total + 100.0 * len(numbers)])})


def same(one: Window | None, other: Window | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.count == other.count and all(
        one.values[name].tobytes() == other.values[name].tobytes()
        for name in {**one.values, **other.values}
    )


def test_rows_are_cut_at_every_third_iteration_and_at_the_last() -> None:
    cut, rest = windows(None, counted(0, 8), 8, every=3, last=8)
    assert [point for point, _ in cut] == [3, 6, 8]
    wanted = [window_of(1, 2, 3), window_of(4, 5, 6), window_of(7, 8)]
    assert all(same(window, hand) for (_, window), hand in zip(cut, wanted))
    assert rest is None


def test_rows_behind_the_last_logged_point_wait_for_the_next_chunk() -> None:
    cut, rest = windows(None, counted(0, 4), 4, every=3, last=8)
    assert [point for point, _ in cut] == [3]
    assert same(rest, window_of(4))
    cut, rest = windows(rest, counted(4, 6), 6, every=3, last=8)
    assert [point for point, _ in cut] == [6]
    assert same(cut[0][1], window_of(4, 5, 6))
    assert rest is None


def test_a_chunk_without_a_logged_point_is_kept_whole() -> None:
    cut, rest = windows(window_of(4), counted(4, 5), 5, every=10, last=20)
    assert cut == []
    assert same(rest, window_of(4, 5))


def noise(count: int) -> Rows:
    """Metrics of every kind whose sums round differently in every order."""
    rng = np.random.default_rng(count)
    shape = (3, count)
    scale = 10.0 ** rng.integers(-20, 20, shape)
    return {
        "entropy": (rng.normal(size=shape) * scale).astype(np.float32),
        "ratio_max": rng.normal(size=shape).astype(np.float32),
        "learning_rate": rng.normal(size=shape).astype(np.float32),
        "num_episodes": rng.integers(0, 5, shape).astype(np.int32),
    }


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    every=st.integers(1, 9),
    resumes=st.sets(st.integers(0, 11)),
)
def test_windows_are_the_same_to_the_bit_however_chunks_are_cut_and_resumed(
    lengths: list[int], every: int, resumes: set[int]
) -> None:
    last = sum(lengths)
    rows = noise(last)
    found, pending, done = [], None, 0
    for number, length in enumerate(lengths):
        if number in resumes:
            pending = from_json(json.loads(json.dumps(to_json(pending), allow_nan=False)))
        fresh = {name: value[:, done : done + length] for name, value in rows.items()}
        done += length
        cut, pending = windows(pending, fresh, done, every, last)
        found += cut
    at_once, rest = windows(None, rows, last, every, last)
    assert pending is None
    assert rest is None
    assert [point for point, _ in found] == [point for point, _ in at_once]
    assert all(same(one, other) for (_, one), (_, other) in zip(found, at_once))


def test_a_window_comes_back_from_json_with_every_bit_nan_and_infinity_included() -> None:
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 0.1, 5e-324, 1.7976931348623157e308])
    window = Window(3, {"entropy": values})
    text = json.dumps(to_json(window), allow_nan=False)
    assert same(from_json(json.loads(text)), window)
    assert to_json(None) is None
    assert from_json(None) is None


@pytest.mark.parametrize("content", [{}, {"iterations": 1}, {"iterations": 1, "values": {"x": 3}}])
def test_what_is_no_window_is_refused(content: dict) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_json(content)


def test_a_window_becomes_one_number_a_seed_by_hand() -> None:
    fresh = {
        "num_episodes": np.array([[1, 0, 3], [0, 0, 0]]),
        "episode_return_sum": np.array([[10.0, 0.0, 6.0], [0.0, 0.0, 0.0]]),
        "episode_length_sum": np.array([[20.0, 0.0, 60.0], [0.0, 0.0, 0.0]]),
        "ratio_max": np.array([[1.5, 3.0, 2.0], [1.0, 1.0, 1.25]]),
        "log_ratio_abs_first": np.array([[0.0, 0.25, 0.0], [0.0, 0.0, 0.0]]),
        "learning_rate": np.array([[0.3, 0.2, 0.1], [0.3, 0.2, 0.1]]),
        "alive": np.array([[True, True, True], [True, True, False]]),
        "entropy": np.array([[1.0, 2.0, 6.0], [0.0, 0.5, 1.0]]),
    }
    assert aggregate(extended(None, fresh)) == {
        "episode_return": [16.0 / 4, None],  # a mean over episodes, not over iterations
        "episode_length": [80.0 / 4, None],
        "num_episodes": [4, 0],
        "ratio_max": [3.0, 1.25],
        "log_ratio_abs_first": [0.25, 0.0],
        "learning_rate": [0.1, 0.1],
        "alive": [1.0, 0.0],
        "entropy": [3.0, 0.5],
    }


def test_an_environments_own_metric_is_a_mean_over_episodes_and_none_without_one() -> None:
    rows = {
        name: np.array([[1.0, 2.0], [0.0, 0.0]], np.float32)
        for name in ("num_episodes", "episode_return_sum", "episode_length_sum")
    }
    rows["env/coal_sum"] = np.array([[3.0, 6.0], [0.0, 0.0]], np.float32)
    row = aggregate(extended(None, rows))
    assert row["env/coal"] == [3.0, None]
    assert "env/coal_sum" not in row
