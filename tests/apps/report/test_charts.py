"""Charts as inline SVG: valid, unlike each other in their ids, coloured by variables."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ppo_jax.apps.report.html import charts
from ppo_jax.apps.report.html.charts import LARGE, Line, Look, Span

X = [1000.0, 2000.0, 3000.0]
LINE = Line("a", X, [1.0, 2.0, 3.0], [0.5, 1.5, 2.5], [1.5, 2.5, 3.5])


def tree(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def curve_of(svg: str, variable: str = "--s0") -> np.ndarray:
    """The points [P, 2] of the widest line that is drawn in a colour."""
    paths = [e for e in tree(svg).iter() if e.tag == "path" and "fill: none" in e.get("style", "")]
    own = [e for e in paths if f"stroke: var({variable})" in e.get("style", "")]
    numbers = re.findall(r"-?\d+(?:\.\d+)?", own[-1].get("d", ""))
    return np.array(numbers, float).reshape(-1, 2)


def test_a_line_is_drawn_where_its_numbers_are() -> None:
    points = curve_of(charts.lines("c", [LINE], Look()))
    box = [float(x) for x in tree(charts.lines("c", [LINE], Look())).get("viewBox", "").split()]
    inside = 72 * (LARGE.width - LARGE.margins[0] - LARGE.margins[2])
    # The axis begins at 0 and ends at 3000.
    expected = 72 * LARGE.margins[0] + inside * np.array(X) / 3000
    np.testing.assert_allclose(points[:, 0], expected, atol=0.1)
    rise = np.diff(points[:, 1])
    np.testing.assert_allclose(rise, rise[0], atol=0.11)  # equal steps up
    assert rise[0] < 0 < box[3]


def test_all_colours_are_variables_and_no_rule_of_the_page_is_touched() -> None:
    svg = charts.lines("c", [LINE, LINE._replace(label="b")], Look(), behind=[LINE])
    assert not re.findall(r"#[0-9a-f]{3,8}\b", re.sub(r'"#c-\d+"|url\(#c-\d+\)', "", svg))
    assert {"var(--s0)", "var(--s1)", "var(--faint)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert "font-family" not in svg


def test_two_charts_share_no_id_and_refer_to_their_own() -> None:
    one, two = (charts.lines(name, [LINE], Look()) for name in ("one", "two"))
    for svg, name in ((one, "one"), (two, "two")):
        ids = [e.get("id") for e in tree(svg).iter() if e.get("id")]
        used = set(re.findall(r'(?:href="#|url\(#)([\w-]+)', svg))
        assert len(ids) == len(set(ids))
        assert used == set(ids)
        assert all(str(each).startswith(f"{name}-") for each in ids)


def test_labels_are_text_and_escaped() -> None:
    svg = charts.lines("c", [LINE._replace(label="<script>")], Look(x_label="a < b & c"))
    assert "<script>" not in svg
    texts = ["".join(e.itertext()) for e in tree(svg).iter() if e.tag == "text"]
    assert "a < b & c" in texts
    assert {"0", "1k", "2k", "3k"} <= set(texts)


def test_unknown_points_and_empty_lines_are_left_out() -> None:
    gap = Line("gap", X, [1.0, None, 3.0], [None, None, None], [None, None, None])
    assert len(curve_of(charts.lines("c", [gap], Look()))) == 2
    svg = charts.lines("c", [Line("none", [], []), LINE], Look())
    np.testing.assert_allclose(curve_of(svg, "--s1"), curve_of(charts.lines("d", [LINE], Look())))


def test_a_line_runs_on_over_points_without_a_value() -> None:
    """As where all environments end their long episodes at once: every known point is met."""
    gaps = Line("a", [1000.0, 1500.0, 2000.0, 2500.0, 3000.0], [1.0, None, 2.0, None, 3.0])
    found = curve_of(charts.lines("c", [gaps], Look()))
    expected = curve_of(charts.lines("c", [LINE._replace(low=None, high=None)], Look()))
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_a_published_value_stands_at_its_budget_or_at_the_edge() -> None:
    def left_edges(steps: float | None) -> list[float]:
        line = LINE._replace(published=(steps, 2.0))
        svg = charts.lines("c", [line], Look())
        marks = [e for e in tree(svg).iter() if e.tag == "use" and "--paper" in e.get("style", "")]
        return [float(e.get("x", "nan")) for e in marks]

    width = 72 * (LARGE.width - LARGE.margins[0] - LARGE.margins[2])
    start = 72 * LARGE.margins[0]
    for steps, share in ((1500.0, 0.5), (9000.0, 1.0), (None, 1.0)):
        np.testing.assert_allclose(left_edges(steps), [start + share * width], atol=0.1)


def test_many_series_get_a_chart_each_on_one_scale() -> None:
    series = [LINE._replace(label=f"<{i}>", middle=[i, i, i + 1.0]) for i in range(8)]
    shown = charts.overlaid_or_many("m", series, Look(y_label="Return"))
    assert shown.count("<svg") == shown.count("<figcaption>") == 8
    assert "&lt;3&gt;" in shown
    few = charts.overlaid_or_many("m", series[:3], Look(y_label="Return"))
    assert few.count('class="chart"') == 1
    assert few.count('class="swatch"') == 3


@pytest.mark.parametrize("value, x", [(0.0, 4.0), (5.0, 55.0), (10.0, 106.0), (99.0, 106.0)])
def test_a_whisker_is_linear_and_stays_in_its_box(value: float, x: float) -> None:
    shown = charts.whisker(Span(0.0, 10.0), value, (0.0, 10.0), 5.0, (0.0,))
    assert shown is not None
    assert f'class="middle" d="M{x} 3' in shown
    assert 'class="range" d="M4.0 8H106.0"' in shown
    assert 'class="published" d="M55.0 2' in shown


def test_no_whisker_where_nothing_is_known() -> None:
    assert charts.span_of([None, float("nan")]) is None
    assert charts.whisker(None, 1.0, None) is None
    assert charts.whisker(Span(0.0, 1.0), None, None) is None
    assert charts.span_of([3.0]) == Span(2.5, 3.5)
