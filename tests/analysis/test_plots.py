"""The numbers that a learning curve draws, and the equality of two drawings."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from ppo_jax.analysis import plots
from ppo_jax.analysis.plots import curves, learning_curve, si, summary_curve
from ppo_jax.analysis.stats import iqm

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def example(num_rows: int = 40, num_seeds: int = 6) -> list[dict]:
    noise = np.random.default_rng(0).normal(0, 20, (num_rows, num_seeds))
    return [
        {
            "env_steps": 2048 * (row + 1),
            "episode_return": [None if row < 2 else float(10 * row + x) for x in noise[row]],
        }
        for row in range(num_rows)
    ]


def rows(*returns: list) -> list[dict]:
    return [{"env_steps": 100 * (n + 1), "episode_return": x} for n, x in enumerate(returns)]


def test_a_seed_keeps_its_latest_return_where_no_episode_ended():
    steps, found = curves(rows([None, 1.0], [5.0, None], [None, None], [7.0, 4.0]))
    np.testing.assert_array_equal(steps, [100, 200, 300, 400])
    np.testing.assert_array_equal(found, [[np.nan, 1], [5, 1], [5, 1], [7, 4]])


def test_a_failed_seed_ends_after_the_longest_gap_of_any_seed():
    # The first seed has a gap of two points, so the second may be silent as long, and then ends.
    _, found = curves(rows([1.0, 9.0], [None, None], [2.0, None], [3.0, None], [4.0, float("nan")]))
    np.testing.assert_array_equal(found[:, 1], [9, 9, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(found[:, 0], [1, 1, 2, 3, 4])


def test_many_rows_are_averaged_in_groups_of_neighbours():
    many = rows(*([float(n), None if n % 2 else 2.0 * n] for n in range(1000)))
    steps, found = curves(many)
    assert len(steps) == plots.MAX_POINTS
    np.testing.assert_allclose(steps[0], np.mean([100, 200, 300, 400]))
    np.testing.assert_allclose(found[0], [np.mean([0, 1, 2, 3]), np.mean([0, 4])])
    np.testing.assert_allclose(found[-1], [np.mean([996, 997, 998, 999]), np.mean([1992, 1996])])


def test_the_bold_line_is_the_iqm_within_its_interval():
    returns = np.random.default_rng(1).normal(size=(5, 12))
    middle, low, high = summary_curve(returns)
    np.testing.assert_allclose(middle, [iqm(row) for row in returns])
    assert (low < middle).all()
    assert (middle < high).all()


def test_there_is_no_mean_over_the_few_seeds_that_finished_first():
    returns = np.full((3, 5), np.nan)
    returns[0, :2], returns[1, :3], returns[2] = 1.0, 2.0, 3.0
    middle, low, _ = summary_curve(returns)
    np.testing.assert_array_equal(middle, [np.nan, 2, 3])
    np.testing.assert_array_equal(low, [np.nan, 2, 3])


def test_one_seed_has_a_line_and_no_interval():
    middle, low, high = summary_curve(np.array([[1.0], [2.0]]))
    np.testing.assert_array_equal(middle, [1, 2])
    assert np.isnan([low, high]).all()


def test_the_same_rows_give_the_same_svg_byte_for_byte_without_a_date(tmp_path):
    for name in ("a.svg", "b.svg"):
        learning_curve(example(), tmp_path / name, "Title", "subtitle", (200.0, "published: 200"))
    first = (tmp_path / "a.svg").read_bytes()
    assert first == (tmp_path / "b.svg").read_bytes()
    assert b"dc:date" not in first
    learning_curve(example(), tmp_path / "b.svg", "Title", "subtitle", (210.0, "published: 210"))
    assert first != (tmp_path / "b.svg").read_bytes()


def test_the_suffix_chooses_svg_or_png(tmp_path):
    learning_curve(example(), tmp_path / "a.svg", "Title & <Title>")
    learning_curve(example(), tmp_path / "a.png", "Title")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.parametrize(
    "awkward",
    [
        [],
        rows([None, None], [None, None]),
        rows([1.0]),
        rows([1.0, 2.0]),
        rows([5.0, 5.0, 5.0], [5.0, 5.0, 5.0]),
        rows([-1e12, 1e12, None], [0.0, None, None]),
    ],
)
def test_a_run_of_any_shape_can_be_drawn(tmp_path, awkward, recwarn):
    learning_curve(awkward, tmp_path / "a.svg", "Title", "subtitle", (3.0, "published"))
    ElementTree.parse(tmp_path / "a.svg")
    assert [str(warning.message) for warning in recwarn] == []


def figure_of(monkeypatch, *arguments):
    """The figure that `learning_curve` would have written."""
    from matplotlib.figure import Figure

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: kept.append(self))
    learning_curve(*arguments)
    return kept[0]


def test_the_picture_holds_each_seed_the_band_the_labels_and_the_reference(monkeypatch):
    figure = figure_of(monkeypatch, example(), "a.svg", "Title", "Subtitle", (200.0, "published"))
    (axes,) = figure.axes
    lines = axes.get_lines()
    assert len(lines) == 6 + 1 + 1  # seeds, IQM, reference
    steps, returns = curves(example())
    np.testing.assert_array_equal(lines[6].get_ydata(), summary_curve(returns)[0])
    assert lines[6].get_linewidth() > 2 * lines[0].get_linewidth()
    np.testing.assert_array_equal(lines[7].get_ydata(), [200.0, 200.0])
    assert len(axes.collections) == 1
    words = [text.get_text() for text in [*figure.texts, *axes.texts]]
    assert words == [
        "Title",
        "Subtitle",
        "Episode return",
        "IQM of\n6 seeds\n95% interval",
        "published",
    ]
    assert axes.get_xlim() == (0, steps[-1])
    assert not any(axes.spines[side].get_visible() for side in ("top", "right"))


def test_every_text_is_legible_at_800_pixels_and_within_the_picture(monkeypatch):
    large = [
        {
            "env_steps": 1000 * row["env_steps"],
            "episode_return": [x and -31.5 * x for x in row["episode_return"]],
        }
        for row in example(num_seeds=12)
    ]
    figure = figure_of(
        monkeypatch, large, "a.svg", "Title", "Subtitle", (-9000.0, "published: 9000")
    )
    (axes,) = figure.axes
    figure.draw_without_rendering()
    texts = [*figure.texts, *axes.texts, axes.xaxis.label, *axes.get_xticklabels()]
    texts += axes.get_yticklabels()
    assert min(text.get_size() for text in texts if text.get_text()) >= 11
    low, high = axes.get_ylim()
    for text in texts:
        is_hidden_tick = (
            text in axes.get_yticklabels() and not low <= text.get_position()[1] <= high
        )
        if text.get_text() and not is_hidden_tick and text not in axes.get_xticklabels():
            box = text.get_window_extent()
            assert box.x0 >= 0, text
            assert box.x1 <= figure.bbox.x1, text
            assert box.y1 <= figure.bbox.y1, text


def test_the_words_of_a_reference_stand_where_least_is_drawn(monkeypatch):
    # Seeds cross the line early and stay just above it: only below its right end nothing is drawn.
    early = [[400.0 + 4 * ((6 * n + seed) % 25) for seed in range(25)] for n in range(15)]
    late = [[471.0 + seed / 5 for seed in range(25)] for _ in range(15)]
    figure = figure_of(monkeypatch, rows(*early, *late), "a.svg", "", "", (470.0, "solved"))
    words = next(text for text in figure.axes[0].texts if text.get_text() == "solved")
    assert (words.get_ha(), words.get_va()) == ("right", "top")


def test_drawing_leaves_no_trace_in_the_global_settings(tmp_path):
    before = dict(matplotlib.rcParams)
    learning_curve(example(), tmp_path / "a.svg", "Title")
    assert dict(matplotlib.rcParams) == before


def test_importing_the_file_loads_no_matplotlib_and_drawing_no_pyplot(tmp_path):
    code = (
        "import sys; from ppo_jax.analysis import plots; assert 'matplotlib' not in sys.modules;"
        f"plots.learning_curve([], {str(tmp_path / 'a.png')!r}, 'x');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(plots.__file__).parents[2])


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (500, "500"), (1e5, "100k"), (2.5e6, "2.5M"), (-12500, "−12.5k"), (3e9, "3G")],
)
def test_axes_are_told_in_si_units(number, text):
    assert si(number) == text


def test_small_thousands_stay_plain_where_they_are_asked_to():
    assert si(-2000, smallest=1e4) == "−2000"
    assert si(0.25) == "0.25"
