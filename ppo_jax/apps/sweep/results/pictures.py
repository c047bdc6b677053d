"""Pictures of a sweep: curves of the best, return along each axis, all settings, importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_jax.analysis import plots, ranges
from ppo_jax.analysis.stats import bootstrap_interval, iqm
from ppo_jax.apps.sweep.axes import Axis, describe, show
from ppo_jax.storage.files import replacing, to_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST = 5  # curves drawn
BINS = 6  # bins of a range, along an axis
LEAST = 4  # settings in a bin
MOST = 1000  # settings as shapes of their own; more become pixels, so that a file stays small
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


def draw_all(
    folder: Path,
    columns: Mapping[str, np.ndarray],
    ranked: Sequence[Mapping[str, Any]],
    axes: Sequence[Axis],
    summary: Mapping[str, Any],
    limits: tuple[float, float] = ranges.UNLIMITED,
) -> list[str]:
    """Draw every picture that the results allow; return their paths."""
    known = [row for row in ranked if row["final_return"]["mean"] is not None]
    title = f"{summary['env']}, {summary['objective']}, {summary['num_seeds']} seeds a setting"
    names = list(known[0]["values"]) if known else []
    drawn = []
    if columns and known:
        drawn.append(curves(columns, known[:BEST], folder / "curves.svg", title, limits))
    if known and names:
        logs = {axis.name for axis in axes if is_log(axis)}
        drawn.append(along_axes(known, names, logs, folder / "axes.svg", title))
        if len(known) > 1 and len(names) > 1:  # a line needs two axes
            drawn.append(parallel_coordinates(known, names, logs, folder / "settings.svg", title))
        shares = importance(known, names)
        if shares:
            drawn.append(bars(shares, folder / "importance.svg", title))
    return [str(path) for path in drawn]


def is_log(axis: Axis) -> bool:
    """Check for a logarithmic scale: a log range, or >= 3 positive numbers with a ratio >= 20."""
    if axis.range is not None:
        return axis.range.is_log
    numbers = [c for c in axis.choices if isinstance(c, int | float) and not isinstance(c, bool)]
    if len(numbers) != len(axis.choices) or len(numbers) < 3 or min(numbers) <= 0:
        return False
    return max(numbers) / min(numbers) >= 20


def curves(
    columns: Mapping[str, np.ndarray],
    best: Sequence[Mapping[str, Any]],
    path: Path,
    title: str,
    limits: tuple[float, float] = ranges.UNLIMITED,
) -> Path:
    """Draw training returns of the best settings over environment steps: IQM and interval."""
    figure, (axes,) = _figure(1, title, "return while training: IQM over seeds, 95% interval")
    for rank, row in enumerate(best):
        steps, returns = _curve(columns, row["setting"])
        if not len(steps):
            continue
        middle, low, high = plots.summary_curve(returns, limits)
        color = PALETTE[rank % len(PALETTE)]
        label = f"{rank + 1}: {_cut(describe(row['values']))}"
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(steps, middle, color=color, linewidth=2.0 if rank == 0 else 1.3, label=label)
    axes.set_xlabel("environment steps of one seed")
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, -0.26))
    return _save(figure, path)


def _cut(text: str, length: int = 90) -> str:
    """Cut `text` to the room in a legend."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _curve(columns: Mapping[str, np.ndarray], setting: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps [P] and returns [P, S] of one setting; a seed's latest return if no episode ended."""
    mine = columns["setting"] == setting
    steps = np.unique(columns["env_steps"][mine])
    seeds = np.unique(columns["seed"][mine])
    returns = np.full((len(steps), len(seeds)), np.nan)
    at = np.searchsorted(steps, columns["env_steps"][mine])
    who = np.searchsorted(seeds, columns["seed"][mine])
    returns[at, who] = columns["episode_return"][mine]
    for series in returns.T:
        known = np.flatnonzero(np.isfinite(series))
        if known.size:
            filled = np.arange(known[0], len(series))
            series[filled] = series[known[np.searchsorted(known, filled, side="right") - 1]]
    return steps, returns


def along_axes(
    known: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    logs: set[str],
    path: Path,
    title: str,
) -> Path:
    """Draw each setting's score against each axis, and the IQM of groups with its interval."""
    alone = len(names) == 1 and not groups(
        positions([r["values"][names[0]] for r in known], False)[0]
    )
    shown = "mean of each setting's seeds" if alone else "settings, IQM"
    figure, panels = _figure(len(names), title, f"final return: {shown} and 95% interval")
    scores = np.array([row["final_return"]["mean"] for row in known])
    for axes, name in zip(panels, names, strict=True):
        places, ticks = positions([row["values"][name] for row in known], name in logs)
        style = {"color": plots.MUTED, "alpha": 0.6, "linewidth": 0}
        axes.plot(places, scores, "o", markersize=5, rasterized=len(known) > MOST, **style)
        generator = np.random.default_rng(0)
        middles = []
        for place, row in zip(places, known if alone else (), strict=False):
            axes.plot([place] * 2, row["final_return"]["ci95"] or [np.nan] * 2, color=plots.ACCENT)
        for group in groups(places):
            ends = bootstrap_interval(scores[group], generator=generator)
            centre, middle = float(np.mean(places[group])), float(iqm(scores[group]))
            middles.append((centre, middle))
            if ends is not None:
                axes.plot([centre, centre], ends, color=plots.ACCENT, linewidth=2.0)
        if middles:
            axes.plot(*zip(*middles, strict=True), "-o", color=plots.ACCENT, linewidth=1.5)
        _ticks(axes, ticks, name in logs)
        axes.set_xlabel(name)
    return _save(figure, path)


def positions(values: Sequence[Any], is_log_axis: bool) -> tuple[np.ndarray, dict[float, str]]:
    """Places of values along an axis, and names for the places of values that are no numbers."""
    plain = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
    if all(plain) and all(math.isfinite(v) for v in values):
        numbers = np.array(values, np.float64)
        return (np.log10(numbers) if is_log_axis else numbers), {}
    words = list(dict.fromkeys(show(to_json(v)) for v in values))
    places = {word: float(i) for i, word in enumerate(words)}
    found = [places[show(to_json(v))] for v in values]
    return np.array(found), {place: word for word, place in places.items()}


def groups(places: np.ndarray) -> list[np.ndarray]:
    """Group settings with the same place, or bins of nearly equal size if most places have one.

    Bins hold LEAST settings or more. Single settings differ in other values as well, and a line
    through them would look like a curve. With fewer than two such bins there are no groups.
    """
    distinct = np.unique(places)
    if len(distinct) <= 2 * BINS and len(places) >= 2 * len(distinct):
        return [np.flatnonzero(places == place) for place in distinct]
    num_bins = min(BINS, len(places) // LEAST)
    order = np.argsort(places, kind="stable")
    return [np.sort(part) for part in np.array_split(order, num_bins)] if num_bins > 1 else []


def parallel_coordinates(
    known: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    logs: set[str],
    path: Path,
    title: str,
) -> Path:
    """Draw one line per setting through its values, coloured by its score."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    figure, (axes,) = _figure(1, title, "every setting by its final return", len(names))
    scores = np.array([row["final_return"]["mean"] for row in known])
    norm = Normalize(float(scores.min()), float(scores.max()))
    heights = []
    for place, name in enumerate(names):
        values = [row["values"][name] for row in known]
        places, ticks = positions(values, name in logs)
        low, high = float(places.min()), float(places.max())
        heights.append((places - low) / ((high - low) or 1.0) if high > low else places * 0 + 0.5)
        spelled = ticks or {end: show(_number(end, name in logs)) for end in (low, high)}
        for end, word in spelled.items():
            share = (end - low) / (high - low) if high > low else 0.5
            axes.text(place + 0.02, share, word, size=9, color=plots.INK, va="center")
    order = np.argsort(scores, kind="stable")  # the best are drawn last, above the others
    where = np.broadcast_to(np.arange(len(names)), (len(known), len(names)))
    lines = LineCollection(
        list(np.stack([where, np.array(heights).T], axis=2)[order]),
        cmap="viridis",
        norm=norm,
        linewidth=1.2,
        rasterized=len(known) > MOST,
    )
    lines.set_array(scores[order])
    axes.add_collection(lines, autolim=False)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(names) - 0.7)
    axes.set_ylim(-0.05, 1.05)
    axes.grid(visible=True, axis="x")
    figure.colorbar(lines, ax=axes, pad=0.01)
    return _save(figure, path)


def _number(place: float, is_log_axis: bool) -> float:
    return 10.0**place if is_log_axis else place


def importance(known: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Share of the variance of the settings' scores that each axis explains alone.

    This is epsilon squared of a one-way analysis of variance (Kelley 1935). It is the between-group
    sum of squares, less its expectation by chance, over the total. Values of a range are in bins.
    Shares are not below 0. The result is empty if there are too few settings.
    """
    scores = np.array([row["final_return"]["mean"] for row in known])
    total = float(np.sum((scores - scores.mean()) ** 2))
    shares = {}
    for name in names:
        places, _ = positions([row["values"][name] for row in known], False)
        parts = groups(places)
        if len(parts) < 2 or len(parts) >= len(scores) or total == 0.0:
            continue
        within = float(sum(np.sum((scores[p] - scores[p].mean()) ** 2) for p in parts))
        noise = within / (len(scores) - len(parts))
        shares[name] = max(0.0, (total - within - (len(parts) - 1) * noise) / total)
    return shares


def bars(shares: Mapping[str, float], path: Path, title: str) -> Path:
    """Draw the importance of each axis."""
    figure, (axes,) = _figure(1, title, "share of the scores' variance that an axis explains alone")
    ordered = sorted(shares.items(), key=lambda item: item[1])
    axes.barh([name for name, _ in ordered], [share for _, share in ordered], color=plots.ACCENT)
    axes.set_xlim(0, 1)
    return _save(figure, path)


def _figure(count: int, title: str, subtitle: str, num_ticks: int = 0) -> tuple[Any, list[Axes]]:
    import matplotlib
    from matplotlib.figure import Figure

    wide = min(count, 3)
    tall = -(-count // wide)
    with matplotlib.rc_context(plots.STYLE):
        width = max(8.0 if wide == 1 else 4.0 * wide, 1.1 * num_ticks)
        figure = Figure(figsize=(width, 1.2 + 3.6 * tall), dpi=150)
        grid = figure.subplots(tall, wide, squeeze=False)
        for spare in grid.flat[count:]:
            spare.remove()
        figure.suptitle(f"{title}\n{subtitle}", size=12, x=0.02, ha="left")
    return figure, list(grid.flat[:count])


def _ticks(axes: Axes, ticks: Mapping[float, str], is_log_axis: bool) -> None:
    from matplotlib.ticker import FuncFormatter

    if ticks:
        axes.set_xticks(list(ticks), list(ticks.values()))
    elif is_log_axis:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{10.0**x:.2g}"))


def _save(figure: Any, path: Path) -> Path:
    import matplotlib

    with matplotlib.rc_context(plots.STYLE):
        figure.tight_layout()
        with replacing(path) as new:
            figure.savefig(new, metadata=plots.without_date(path))
    return path
