"""The picture of normalised scores: its range, its words, and that it follows the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppo_jax.apps.reproduce import drawing, scoring, specs, tables
from ppo_jax.apps.reproduce.scoring import Variant


@pytest.fixture(scope="module")
def table() -> tables.Table:
    suite = specs.load("ppo-table-1")
    tasks = tuple(dict.fromkeys(cell.task for cell in suite.cells))
    found = [
        Variant("none", tasks, 50, -0.6, (-0.9, -0.3), -0.5, None, 1.6, dict.fromkeys(tasks, -0.6)),
        Variant("clip-0.2", tasks, 50, 0.8, (0.7, 0.9), 0.8, None, 0.2, dict.fromkeys(tasks, 0.8)),
    ]
    row = scoring.Measured(suite.cells[0], (1.0,) * 10, 1.0, 1.0, None, "–", None, (), None)
    return tables.Table(suite, [row], found, [], [], [], [], "folder")


def test_the_axis_begins_at_the_lowest_number_but_not_below_its_bound(table):
    assert drawing.lowest(table) == -0.9
    far = table.variants[0]._replace(per_task={"Swimmer-misc": -7.0})
    assert drawing.lowest(table._replace(variants=[far])) == drawing.LOWEST
    high = table.variants[1]._replace(name="dpo")
    assert drawing.lowest(table._replace(variants=[high])) == 0.0


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_table_gives_the_same_file(table, tmp_path: Path, suffix):
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        drawing.draw(table, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size < 300_000


def test_other_scores_give_another_file(table, tmp_path: Path):
    drawing.draw(table, tmp_path / "a.svg")
    moved = [each._replace(mean=each.mean + 0.1) for each in table.variants]
    drawing.draw(table._replace(variants=moved), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "b.svg").read_bytes()


def test_the_subtitle_says_what_is_averaged(table):
    assert drawing.subtitle(table).startswith("mean over 1 task with 10 seeds each")


def test_a_legend_of_long_names_has_fewer_columns() -> None:
    short = ["measured", *(f"Task-v{i}" for i in range(7))]
    assert drawing.columns_that_fit(short) == 4
    long = ["measured", *("memory/CartPole-NoVelocity-v1" for _ in range(7))]
    assert drawing.columns_that_fit(long) == 3  # 3 x (29 x 0.072 + 0.35) = 7.3 of 7.8 inches
    assert drawing.columns_that_fit(["x" * 200, "y"]) == 1
