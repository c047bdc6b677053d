"""One picture of a suite with normalised scores: a row for each variant, with its interval."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_jax.analysis.plots import ACCENT, GRID, INK, MUTED, REFERENCE, STYLE, without_date
from ppo_jax.apps.reproduce.scoring import Variant
from ppo_jax.apps.reproduce.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X<>"
TITLE_LETTERS = 64  # length of a title that fits at 14 points
ROW_INCHES = 0.34
LEGEND_INCHES, LETTER_INCHES, MARKER_INCHES = 7.8, 0.072, 0.35  # widths, at 8.5 points
LEGEND_ROW_INCHES = 0.18
LOWEST = -1.5  # lower scores are drawn at the edge, with their number beside them
HIGHEST = 2.0  # an interval that ends higher is cut off there
NAME_LETTERS = 23  # longer names of variants than that are written smaller


def draw(table: Table, path: Path) -> None:
    """Draw the mean normalised score of each variant over all tasks with its 95% interval.

    Pale marks are the means of the single tasks, open diamonds the published numbers. The suffix of
    `path` chooses SVG or PNG.
    """
    import matplotlib
    from matplotlib.figure import Figure

    variants = table.variants
    tasks = list(dict.fromkeys(task for each in variants for task in each.per_task))
    is_published = bool(table.suite.variant_published)
    labels = labels_of(tasks, is_published)
    legend_rows = math.ceil(len(labels) / columns_that_fit(labels))
    frame = 1.75 + LEGEND_ROW_INCHES * max(0, legend_rows - 2)  # all but the rows of variants
    height = frame + ROW_INCHES * len(variants)
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x", "font.size": 11}):
        figure = Figure(figsize=(8.0, height), dpi=160)
        axes = figure.add_axes((0.25, 0.62 / height, 0.71, 1.0 - frame / height))
        low = lowest(table)
        for row, each in enumerate(variants):
            _draw_row(axes, row, each, tasks, low, table)
        names = [each.name for each in variants]
        axes.set_yticks(range(len(names)), names, color=INK)
        longest = max(map(len, names))
        axes.tick_params(axis="y", labelsize=min(11.0, 11.0 * NAME_LETTERS / longest))
        axes.set_ylim(len(variants) - 0.4, -0.6)
        axes.set_xlim(low - 0.06, max(1.0, axes.get_xlim()[1]) + 0.03)
        for x in (0.0, 1.0):
            axes.axvline(x, color=MUTED, linewidth=1.0, zorder=1)
        axes.set_xlabel("Normalised score (random policy 0, best known 1)", size=11)
        size = min(14.0, 14.0 * TITLE_LETTERS / len(table.suite.title))
        figure.text(0.02, 1 - 0.1 / height, table.suite.title, size=size, weight="bold", va="top")
        figure.text(0.02, 1 - 0.42 / height, subtitle(table), size=10.5, color=MUTED, va="top")
        _draw_legend(figure, tasks, height, is_published)
        figure.savefig(path, metadata=without_date(path))


def lowest(table: Table) -> float:
    """Start of the axis: the smallest number that is drawn, but not below `LOWEST`."""
    numbers = [score for each in table.variants for score in each.per_task.values()]
    numbers += [each.mean_ci95[0] for each in table.variants if each.mean_ci95 is not None]
    published = table.suite.variant_published
    numbers += [
        published[each.name].value or 0.0 for each in table.variants if each.name in published
    ]
    return max(LOWEST, min([0.0, *numbers]))


def subtitle(table: Table) -> str:
    counts = {len(row.per_seed) for row in table.rows}
    seeds = f"{min(counts)} seeds" if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"
    count = len({row.cell.task for row in table.rows})
    quick = "; quick: smaller budgets" if table.is_quick else ""
    tasks = "1 task" if count == 1 else f"{count} tasks"
    return f"mean over {tasks} with {seeds} each, 95% interval by task{quick}"


def _draw_row(
    axes: Axes, row: int, each: Variant, tasks: list[str], low: float, table: Table
) -> None:
    for task, score in each.per_task.items():
        marker = MARKERS[tasks.index(task) % len(MARKERS)]
        axes.plot(max(score, low), row, marker, color=MUTED, alpha=0.45, markersize=5, zorder=2)
        if score < low:
            axes.annotate(
                f"{score:.1f}",
                (low, row),
                xytext=(5, 4),
                textcoords="offset points",
                size=8,
                color=MUTED,
            )
    if each.mean_ci95 is not None and all(math.isfinite(end) for end in each.mean_ci95):
        ends = np.clip(each.mean_ci95, low, HIGHEST)
        axes.plot(ends, [row, row], color=ACCENT, linewidth=4, solid_capstyle="round", zorder=3)
    axes.plot(max(each.mean, low), row, "o", color=ACCENT, markersize=8, zorder=4)
    published = table.suite.variant_published.get(each.name)
    if published is not None and published.value is not None:
        axes.plot(
            max(published.value, low),
            row,
            "D",
            markerfacecolor="white",
            markeredgecolor=REFERENCE,
            markersize=7,
            markeredgewidth=1.6,
            zorder=3,
        )
    axes.axhline(row + 0.5, color=GRID, linewidth=0.6, zorder=0)


def _draw_legend(figure: Figure, tasks: list[str], height: float, is_published: bool) -> None:
    from matplotlib.lines import Line2D

    plain: dict[str, Any] = {"linestyle": "none"}
    entries = [Line2D([], [], marker="o", color=ACCENT, label="measured", **plain)]
    if is_published:
        entries.append(
            Line2D(
                [],
                [],
                marker="D",
                markerfacecolor="white",
                markeredgecolor=REFERENCE,
                markeredgewidth=1.6,
                label=labels_of([], is_published)[1],
                **plain,
            )
        )
    entries += [
        Line2D(
            [], [], marker=MARKERS[i % len(MARKERS)], color=MUTED, alpha=0.6, label=task, **plain
        )
        for i, task in enumerate(tasks)
    ]
    figure.legend(
        handles=entries,
        loc="upper left",
        bbox_to_anchor=(0.01, 1 - 0.6 / height),
        ncol=columns_that_fit(labels_of(tasks, is_published)),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.2,
        columnspacing=1.0,
    )


def labels_of(tasks: list[str], is_published: bool) -> list[str]:
    """Labels of the legend, in its order."""
    return ["measured", *["published, on other tasks"] * is_published, *tasks]


def columns_that_fit(labels: list[str]) -> int:
    """Number of columns, at most 4, for which the figure's width holds the legend."""
    for count in (4, 3, 2):
        rows, longer = divmod(len(labels), count)  # one row more in the first `longer` columns
        ends = np.cumsum([rows + (i < longer) for i in range(count)])
        columns = (labels[begin:end] for begin, end in zip((0, *ends), ends, strict=False))
        widths = [max(map(len, column), default=0) for column in columns]
        if sum(LETTER_INCHES * width + MARKER_INCHES for width in widths) <= LEGEND_INCHES:
            return count
    return 1
