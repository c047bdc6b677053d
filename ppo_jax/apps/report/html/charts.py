"""The charts of a page: lines with bands, and an interval in a table's cell."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.analysis.plots import GRID, MUTED, STYLE, si
from ppo_jax.apps.report.html.markup import Html, join, tag
from ppo_jax.apps.report.html.svg import FAINT, PAPER, SERIES, embedded

MAX_OVERLAID = 6  # more lines have a chart each
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_WHISKER = (110, 16)  # width and height


class Size(NamedTuple):
    width: float  # inches
    height: float
    font: float  # points
    ticks: int
    margins: tuple[float, float, float, float]  # inches: left, bottom, right, top


LARGE = Size(5.2, 2.9, 9.5, 7, (0.55, 0.46, 0.17, 0.08))
SMALL = Size(2.7, 1.65, 9.0, 5, (0.50, 0.24, 0.15, 0.08))


class Line(NamedTuple):
    """One series: x [P], middle [P], and the ends of its band if they are known."""

    label: str
    x: Sequence[float | None]
    middle: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    seeds: Sequence[Sequence[float | None]] = ()  # [S][P], drawn pale
    published: tuple[float | None, float] | None = None  # steps, if known, and value


class Look(NamedTuple):
    """Labels, limits and number format of a chart's axes."""

    x_label: str = "Environment steps per seed"
    y_label: str = ""
    y_limits: tuple[float, float] | None = None
    x_form: Callable[[float], str] = si


def lines(
    name: str, series: Sequence[Line], look: Look, size: Size = LARGE, behind: Sequence[Line] = ()
) -> Html:
    """Draw a chart of all series, and those `behind` in grey.

    Args:
        name: unique on the page.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style = {**STYLE, "svg.fonttype": "none", "font.size": size.font}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(size.width, size.height))
        figure.patch.set_visible(False)
        left, bottom, right, top = size.margins
        box = (
            left / size.width,
            bottom / size.height,
            1 - (left + right) / size.width,
            1 - (bottom + top) / size.height,
        )
        axes = figure.add_axes(box)
        axes.patch.set_visible(False)
        for line in behind:
            axes.plot(_array(line.x), _array(line.middle), color=FAINT, linewidth=0.7, zorder=1)
        for index, line in enumerate(series):
            _draw(axes, index, line, len(series))
        _finish(axes, [*series, *behind], look, size)
        for index, line in enumerate(series):
            if line.published is not None:
                _draw_published(axes, index, line.published)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    shown = ", ".join(line.label for line in series[:MAX_OVERLAID])
    return embedded(file.getvalue(), name, f"{look.y_label or 'Curve'}: {shown}")


def _draw(axes: Any, index: int, line: Line, count: int) -> None:
    colour = SERIES[index % len(SERIES)]
    x, middle = _array(line.x), _array(line.middle)
    for seed in line.seeds:
        alpha = max(0.15, min(0.4, 5 / len(line.seeds)))
        axes.plot(*_known(x, _array(seed)), color=colour, alpha=alpha, linewidth=0.6, zorder=2)
    if line.low is not None and line.high is not None:
        ends, low, high = _known(x, _array(line.low), _array(line.high))
        if low.size:
            alpha = 0.25 if count == 1 else 0.16
            axes.fill_between(ends, low, high, color=colour, alpha=alpha, linewidth=0, zorder=3)
    # Markers show the points of sparse curves: episodes that all end at once, and seldom.
    is_sparse = np.isfinite(middle).sum() <= len(middle) / 2
    marks = {"marker": "o", "markersize": 3} if is_sparse or len(middle) == 1 else {}
    dash = DASHES[index % len(DASHES)] if count > 1 else "-"
    axes.plot(*_known(x, middle), color=colour, linewidth=1.7, linestyle=dash, zorder=4, **marks)


def _known(x: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Select the points at which every value is finite; a line bridges the others."""
    is_known = np.all([np.isfinite(each) for each in values], axis=0)
    return (x[is_known], *(each[is_known] for each in values))


def _draw_published(axes: Any, index: int, published: tuple[float | None, float]) -> None:
    """Draw an open diamond at the published budget, or at the edge if it is larger or unknown."""
    steps, value = published
    low, high = axes.get_xlim()
    x = high if steps is None else min(max(steps, low), high)
    colour = SERIES[index % len(SERIES)]
    look = {"marker": "D", "markersize": 6, "markerfacecolor": PAPER, "markeredgewidth": 1.5}
    axes.plot([x], [value], color=colour, clip_on=False, zorder=6, **look)
    axes.set_xlim(low, high)


def _finish(axes: Any, series: Sequence[Line], look: Look, size: Size) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ends = [_array(line.x) for line in series]
    known = [x[np.isfinite(x)] for x in ends if np.isfinite(x).any()]
    low = 0.0 if look.x_form is si else min((x.min() for x in known), default=0.0)
    high = max((x.max() for x in known), default=1.0)
    axes.set_xlim(low, high if high > low else low + 1)
    axes.margins(y=0.07)
    if look.y_limits is not None:
        axes.set_ylim(*look.y_limits)
    steps = [1, 2, 2.5, 5, 10]
    axes.xaxis.set_major_locator(MaxNLocator(size.ticks - 2, steps=steps))
    axes.yaxis.set_major_locator(MaxNLocator(size.ticks - 1, steps=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: look.x_form(number)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: si(number, smallest=1e4)))
    axes.tick_params(labelsize=size.font, pad=2)
    axes.grid(True, axis="y", color=GRID, linewidth=0.8)
    if size is LARGE:
        axes.set_xlabel(look.x_label, size=size.font, color=MUTED, labelpad=3)


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def legend(labels: Sequence[str]) -> Html:
    """Make a legend: colour and dashes of each line."""
    entries = []
    for index, label in enumerate(labels):
        dash = DASHES[index % len(DASHES)]
        pattern = None if dash == "-" else " ".join(f"{2 * length:g}" for length in dash[1])
        stroke = tag(
            "line",
            x1="0",
            x2="30",
            y1="5",
            y2="5",
            style=f"stroke: var(--s{index % len(SERIES)}); stroke-width: 3",
            stroke_dasharray=pattern,
        )
        swatch = Html(f'<svg class="swatch" viewBox="0 0 30 10" aria-hidden="true">{stroke}</svg>')
        entries.append(tag("li", swatch, label))
    return tag("ul", entries, class_="legend")


def overlaid_or_many(
    name: str, series: Sequence[Line], look: Look, note: str = "the others"
) -> Html:
    """Draw few series in one chart; many in a small chart each, with the others in grey."""
    if len(series) <= MAX_OVERLAID:
        key = legend([line.label for line in series]) if len(series) > 1 else None
        words = tag("p", f"{look.y_label}, over {_lower(look.x_label)}", class_="axis")
        return tag("figure", words, lines(name, series, look), key, class_="large")
    finite = [x for line in series for x in line.middle if x is not None]
    finite += [line.published[1] for line in series if line.published is not None]
    spread = 0.06 * ((max(finite) - min(finite)) or 1.0) if finite else 1.0
    limits = (min(finite) - spread, max(finite) + spread) if finite else None
    behind = [line._replace(x=line.x[::2], middle=line.middle[::2]) for line in series]
    cells = []
    for index, line in enumerate(series):
        others = [other for i, other in enumerate(behind) if i != index]
        drawn = lines(f"{name}-{index}", [line], look._replace(y_limits=limits), SMALL, others)
        cells.append(tag("figure", tag("figcaption", line.label), drawn))
    words = f"{look.y_label}, over {_lower(look.x_label)}; in grey: {note}."
    return join([tag("p", words, class_="axis"), tag("div", cells, class_="multiples")])


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


class Span(NamedTuple):
    """The two ends of a whisker's axis."""

    low: float
    high: float


def span_of(values: Sequence[float | None]) -> Span | None:
    """A common axis for several whiskers; None if no value is known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    low, high = min(known), max(known)
    room = 0.04 * (high - low) or 0.5
    return Span(low - room, high + room)


def whisker(
    span: Span | None,
    middle: float | None,
    ends: Sequence[float] | None,
    published: float | None = None,
    guides: Sequence[float] = (),
) -> Html | None:
    """Draw an interval as a bar, its middle as a stroke, a published value as an open diamond."""
    if span is None or middle is None:
        return None
    width, height = _WHISKER

    def at(value: float) -> float:
        share = (value - span.low) / (span.high - span.low)
        return round(min(max(share, 0.0), 1.0) * (width - 8) + 4, 1)

    half = height / 2
    parts = [f'<path class="guide" d="M{at(x)} 0V{height}"/>' for x in guides]
    if published is not None:  # first, so that it hides nothing
        parts.append(f'<path class="published" d="M{at(published)} 2l5 6l-5 6l-5 -6z"/>')
    if ends is not None:
        parts.append(f'<path class="range" d="M{at(ends[0])} {half:g}H{at(ends[1])}"/>')
    parts.append(f'<path class="middle" d="M{at(middle)} 3V{height - 3}"/>')
    inner = "".join(parts)  # aria-hidden: the numbers stand beside it
    return Html(
        f'<svg class="whisker" viewBox="0 0 {width} {height}" aria-hidden="true">{inner}</svg>'
    )
