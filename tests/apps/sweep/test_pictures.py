"""The settings of a sweep along one axis, put together."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ppo_jax.apps.sweep import axes
from ppo_jax.apps.sweep.results import pictures, table
from ppo_jax.apps.sweep.results.pictures import BINS, LEAST, groups


def test_settings_of_a_grid_are_grouped_by_their_value() -> None:
    found = groups(np.array([0.1, 0.3, 0.1, 0.3, 0.2, 0.2]))
    assert [part.tolist() for part in found] == [[0, 2], [4, 5], [1, 3]]


def test_few_settings_drawn_at_random_are_no_curve() -> None:
    assert groups(np.linspace(0.0, 1.0, 2 * LEAST - 1)) == []


@pytest.mark.parametrize("count", [2 * LEAST, 31, 200])
def test_many_settings_drawn_at_random_are_bins_of_neighbours(count: int) -> None:
    places = np.random.default_rng(count).uniform(size=count)
    found = groups(places)
    assert 2 <= len(found) <= BINS
    assert min(len(part) for part in found) >= LEAST
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(count))
    for left, right in pairwise(found):
        assert places[left].max() < places[right].min()


def test_scores_without_rows_are_drawn_and_nothing_draws_nothing(tmp_path: Path) -> None:
    final = {"mean": 1.0, "ci95": None, "per_seed": [1.0], "num_failed": 0}
    ranked = [
        {"setting": i, "values": {"gamma": gamma}, "final_return": final}
        for i, gamma in enumerate((0.5, 0.9))
    ]
    summary = {"env": "Walk", "objective": "clip", "num_seeds": 1}
    columns = table.read_columns([])  # as where the packs are on another machine
    drawn = pictures.draw_all(tmp_path, columns, ranked, axes.parse(["gamma=0.5,0.9"]), summary)
    assert [Path(path).name for path in drawn] == ["axes.svg"]  # settings.svg needs two axes
    assert pictures.draw_all(tmp_path, columns, [], (), summary) == []


@pytest.mark.parametrize("draw", [pictures.along_axes, pictures.parallel_coordinates])
def test_a_picture_of_many_settings_is_no_larger_than_its_pixels(draw, tmp_path: Path) -> None:
    def drawn(count: int) -> str:
        shares = np.random.default_rng(0).uniform(size=count)
        known = [{"values": {"a": x, "b": 1 - x}, "final_return": {"mean": x}} for x in shares]
        return draw(known, ("a", "b"), set(), tmp_path / "it.svg", "title").read_text()

    few, many = drawn(40), drawn(4000)
    assert many.count("<image") == few.count("<image") + {"along_axes": 2}.get(draw.__name__, 1)
    assert len(many) < len(few) + 200_000  # a shape for each would take 400,000 bytes and more
