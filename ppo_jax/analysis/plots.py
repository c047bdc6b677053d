"""Learning curves: every seed pale, their robust mean bold, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_jax.analysis.ranges import UNLIMITED
from ppo_jax.analysis.stats import bootstrap_interval, iqm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCENT = "#0072B2"  # blue of Okabe and Ito's colour-blind safe palette
REFERENCE = "#B35900"  # a darker vermilion of the same hue, legible as text
INK = "#222222"
MUTED = "#6B6B6B"
GRID = "#E6E6E6"

# More points than an 800 pixel wide picture can show are averaged in groups; with many seeds fewer
# are enough, and the file stays small.
MAX_POINTS, MIN_POINTS, MAX_VERTICES = 250, 60, 16_000

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the picture is the same everywhere
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 1.0,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "svg.hashsalt": "ppo_jax",  # ids of SVG elements are random without it
    "svg.fonttype": "path",
}


def learning_curve(
    rows: Iterable[Mapping[str, Any]],
    path: Path | str,
    title: str,
    subtitle: str = "",
    reference: tuple[float, str] | None = None,
    limits: tuple[float, float] = UNLIMITED,
) -> None:
    """Draw returns over environment steps; the suffix of `path` selects SVG or PNG.

    The same rows give the same file, byte for byte, under the same matplotlib.

    Args:
        rows: of metrics.jsonl, each with env_steps (per seed) and episode_return, a list with one
            mean return per seed, None if no episode ended or the seed has failed.
        title: one line.
        subtitle: one line below it, smaller: seeds, setting, hardware.
        reference: a return to compare with, and the label of its line.
        limits: the least and the largest possible return.
    """
    import matplotlib
    from matplotlib.figure import Figure

    steps, returns = curves(rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 4.5), dpi=200)
        axes = figure.add_axes((0.085, 0.135, 0.755, 0.635))
        _draw_seeds(axes, steps, returns, limits)
        if reference is not None:
            _draw_reference(axes, *reference, steps, returns)
        _finish_axes(axes, steps)
        left = 0.02
        figure.text(left, 0.97, title, size=16, weight="bold", va="top")
        figure.text(left, 0.895, subtitle, size=12, color=MUTED, va="top")
        figure.text(left, 0.792, "Episode return", size=11, color=MUTED, va="baseline")
        figure.savefig(path, metadata=without_date(Path(path)))


def curves(rows: Iterable[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Environment steps [P] and returns [P, S] of at most `MAX_POINTS` points, NaN where unknown.

    A seed keeps its latest return while no episode ends. After its last return it does so for at
    most the longest gap of any seed. So a failed seed does not continue as a flat line.
    """
    rows = list(rows)
    steps = np.array([row["env_steps"] for row in rows], np.float64)
    num_seeds = max((len(row["episode_return"]) for row in rows), default=0)
    returns = np.full((len(rows), num_seeds), np.nan)
    for point, row in enumerate(rows):
        for seed, value in enumerate(row["episode_return"]):
            if value is not None and math.isfinite(value):
                returns[point, seed] = value
    max_points = min(MAX_POINTS, max(MIN_POINTS, MAX_VERTICES // max(num_seeds, 1)))
    group = max(1, -(-len(rows) // max_points))
    edges = range(0, len(rows), group)
    steps = np.array([steps[edge : edge + group].mean() for edge in edges])
    returns = np.array([_known_mean(returns[edge : edge + group]) for edge in edges])
    returns = returns.reshape(len(steps), num_seeds)
    known = [np.flatnonzero(np.isfinite(series)) for series in returns.T]
    longest_gap = max((np.diff(points).max() for points in known if points.size > 1), default=1)
    for series, points in zip(returns.T, known, strict=True):
        if points.size:
            filled = np.arange(points[0], min(points[-1] + longest_gap, len(steps)))
            series[filled] = series[points[np.searchsorted(points, filled, side="right") - 1]]
    return steps, returns


def _known_mean(block: np.ndarray) -> np.ndarray:
    """Mean over rows of the known values, [G, S] -> [S]."""
    known = np.isfinite(block)
    total = np.where(known, block, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def summary_curve(
    returns: np.ndarray, limits: tuple[float, float] = UNLIMITED
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IQM over seeds and the ends of its 95% interval, each [P]; NaN if fewer than half known.

    The ends lie within `limits`, the least and the largest possible return.

    A mean over the few seeds whose episodes ended first would be a mean over short episodes. Two
    seeds have no interval here: it is 13 times as wide as they are apart, and would hide the curve.
    """
    middle, low, high = (np.full(len(returns), np.nan) for _ in range(3))
    generator = np.random.default_rng(0)
    for point, row in enumerate(returns):
        known = row[np.isfinite(row)]
        if known.size and 2 * known.size >= row.size:
            middle[point] = iqm(known)
            if known.size > 2:
                interval = bootstrap_interval(known, resamples=1000, generator=generator)
                low[point], high[point] = np.clip(interval or (np.nan, np.nan), *limits)
    return middle, low, high


def _draw_seeds(
    axes: Axes, steps: np.ndarray, returns: np.ndarray, limits: tuple[float, float]
) -> None:
    num_seeds = returns.shape[1]
    middle, low, high = summary_curve(returns, limits)
    if num_seeds > 1:
        alpha = max(0.07, min(0.32, 5 / num_seeds))
        axes.plot(steps, returns, color=ACCENT, alpha=alpha, linewidth=0.9)
        axes.fill_between(steps, low, high, color=ACCENT, alpha=0.3, linewidth=0)
    points = np.flatnonzero(np.isfinite(middle))
    lone = {"marker": "o", "markersize": 4} if points.size == 1 else {}
    axes.plot(steps, middle, color=ACCENT, linewidth=2.4, solid_capstyle="round", **lone)
    if points.size:
        last = points[-1]
        known = int(np.isfinite(returns[last]).sum())
        label = f"IQM of\n{known} seeds" if num_seeds > 1 else "1 seed"
        axes.annotate(
            label + ("\n95% interval" if np.isfinite(low[last]) else ""),
            (float(steps[last]), float(middle[last])),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=ACCENT,
            size=11,
            linespacing=1.25,
            annotation_clip=False,
        )


def _draw_reference(
    axes: Axes, height: float, words: str, steps: np.ndarray, returns: np.ndarray
) -> None:
    from matplotlib.patheffects import withStroke

    axes.axhline(height, color=REFERENCE, linewidth=1.4, dashes=(5, 3), zorder=3)
    # The label goes to the end and side of the line with the least drawing.
    bottom, top = axes.get_ylim()
    share = 0.012 * len(words) + 0.02
    span = steps[-1] if len(steps) else 1.0
    ends = {"left": steps <= share * span, "right": steps >= (1 - share) * span}
    sides = {"bottom": (0.0, 0.08), "top": (-0.08, 0.0)}

    def crowd(place: tuple[str, str]) -> int:
        low, high = (height + offset * (top - bottom) for offset in sides[place[1]])
        block = returns[ends[place[0]]]
        outside = bottom > low or top < high
        return int(((block >= low) & (block <= high)).sum()) + outside

    end, side = min(((end, side) for end in ends for side in sides), key=crowd)
    axes.annotate(
        words,
        (0.0 if end == "left" else 1.0, height),
        xycoords=("axes fraction", "data"),
        xytext=(3 if end == "left" else -3, 4 if side == "bottom" else -4),
        textcoords="offset points",
        ha=end,
        va=side,
        color=REFERENCE,
        size=11,
        path_effects=[withStroke(linewidth=3.0, foreground="white", alpha=0.85)],
    )


def _finish_axes(axes: Axes, steps: np.ndarray) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(0, steps[-1] if len(steps) else 1)
    axes.margins(y=0.07)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: si(number)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: si(number, smallest=1e4)))
    axes.set_xlabel("Environment steps per seed", size=11, labelpad=6)
    axes.tick_params(labelsize=11)


def si(number: float, smallest: float = 1e3) -> str:
    """A number of an axis: 0, 500, 100k, 2.5M; plain below `smallest`, a true minus sign."""
    sign, size = ("−" if number < 0 else ""), abs(number)
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= max(factor, smallest):
            return f"{sign}{size / factor:.4g}{unit}"
    return f"{sign}{size:.4g}"


def without_date(path: Path) -> dict[str, Any]:
    names: Sequence[str] = ("Date", "Creator") if path.suffix == ".svg" else ("Software",)
    return dict.fromkeys(names)
