"""Cutting the device's rows at the logged points, and one number a window."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ppo_jax.rows import Rows, aggregate, windows


def counted(first: int, last: int, num_seeds: int = 2) -> Rows:
    """Iterations first+1 .. last; each row holds its own number, seed s adds 100 s."""
    numbers = np.arange(first + 1, last + 1, dtype=np.float32)
    return {"x": numbers + 100.0 * np.arange(num_seeds, dtype=np.float32)[:, None]}


def numbers(window: Rows) -> list[float]:
    return window["x"][0].tolist()


def test_rows_are_cut_at_every_third_iteration_and_at_the_last() -> None:
    cut, rest = windows(None, counted(0, 8), 8, every=3, last=8)
    assert [(point, numbers(window)) for point, window in cut] == [
        (3, [1, 2, 3]),
        (6, [4, 5, 6]),
        (8, [7, 8]),
    ]
    assert rest is None


def test_rows_behind_the_last_logged_point_wait_for_the_next_chunk() -> None:
    cut, rest = windows(None, counted(0, 4), 4, every=3, last=8)
    assert [point for point, _ in cut] == [3]
    assert rest is not None
    assert numbers(rest) == [4]
    cut, rest = windows(rest, counted(4, 6), 6, every=3, last=8)
    assert [(point, numbers(window)) for point, window in cut] == [(6, [4, 5, 6])]
    assert rest is None


def test_a_chunk_without_a_logged_point_is_kept_whole() -> None:
    cut, rest = windows(counted(3, 4), counted(4, 5), 5, every=10, last=20)
    assert cut == []
    assert rest is not None
    assert numbers(rest) == [4, 5]


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    every=st.integers(1, 9),
)
def test_windows_do_not_depend_on_the_lengths_of_the_chunks(lengths: list[int], every: int) -> None:
    last = sum(lengths)
    found, pending, done = [], None, 0
    for length in lengths:
        cut, pending = windows(pending, counted(done, done + length), done + length, every, last)
        found += [(point, numbers(window)) for point, window in cut]
        done += length
    at_once, rest = windows(None, counted(0, last), last, every, last)
    assert pending is None
    assert rest is None
    assert found == [(point, numbers(window)) for point, window in at_once]
    assert [x for _, window in found for x in window] == list(range(1, last + 1))


def test_a_window_becomes_one_number_a_seed_by_hand() -> None:
    window = {
        "num_episodes": np.array([[1, 0, 3], [0, 0, 0]]),
        "episode_return_sum": np.array([[10.0, 0.0, 6.0], [0.0, 0.0, 0.0]]),
        "episode_length_sum": np.array([[20.0, 0.0, 60.0], [0.0, 0.0, 0.0]]),
        "ratio_max": np.array([[1.5, 3.0, 2.0], [1.0, 1.0, 1.25]]),
        "log_ratio_abs_first": np.array([[0.0, 0.25, 0.0], [0.0, 0.0, 0.0]]),
        "learning_rate": np.array([[0.3, 0.2, 0.1], [0.3, 0.2, 0.1]]),
        "alive": np.array([[True, True, True], [True, True, False]]),
        "entropy": np.array([[1.0, 2.0, 6.0], [0.0, 0.5, 1.0]]),
    }
    assert aggregate(window) == {
        "episode_return": [16.0 / 4, None],  # a mean over episodes, not over iterations
        "episode_length": [80.0 / 4, None],
        "num_episodes": [4, 0],
        "ratio_max": [3.0, 1.25],
        "log_ratio_abs_first": [0.25, 0.0],
        "learning_rate": [0.1, 0.1],
        "alive": [1.0, 0.0],
        "entropy": [3.0, 0.5],
    }
