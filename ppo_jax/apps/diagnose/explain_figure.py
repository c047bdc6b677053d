"""The picture of `ppo-jax explain surrogate`: the effect of reusing a batch on each objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_jax.analysis.plots import INK, MUTED, STYLE, without_date
from ppo_jax.rl.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which most colour-blind readers can distinguish.
LINES = {
    "pg": ("#D55E00", "L^PG: log π · A"),
    "is": ("#E69F00", "L^IS: ratio · A"),
    "kl": ("#009E73", "ratio · A − β KL"),
    "clip": ("#0072B2", "clipped ratio (PPO)"),
}
REFERENCE = ("trpo", "#7A5195", "TRPO, one step a batch")
# name in the rows -> the metric that it is the mean of
MEASURED = {
    "kl_old_new": "kl_old_new_probe_last_epoch",
    "ess_fraction": "ess_fraction_probe_last_epoch",
    "gradient_cosine": "gradient_cosine_last_epoch",
}
TITLES = {
    "return": "Return, last fifth of training",
    **{name: METRICS[metric].title for name, metric in MEASURED.items()},
}
UNITS = {
    "return": "reward of an episode",
    "kl_old_new": "nats",
    "ess_fraction": "share of N",
    "gradient_cosine": "cosine",
}
KL_FLOOR = 1e-4  # KL is 0 at E = 1, which a logarithmic axis cannot show


def draw(rows: Sequence[Mapping[str, Any]], path: Path, env: str, seeds: int) -> None:
    """Draw four panels over the number of steps E on each batch, as SVG or PNG.

    Args:
        rows: objective, epochs, and summaries with iqm and ci95, as `explain.surrogate` makes them.
        path: the file, whose suffix is .svg or .png.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 7.4), dpi=160)
        grid = figure.subplots(2, 2)
        figure.subplots_adjust(0.08, 0.08, 0.975, 0.79, wspace=0.22, hspace=0.42)
        for axes, (name, title) in zip(grid.ravel(), TITLES.items(), strict=True):
            _panel(axes, rows, name, "log" if name == "kl_old_new" else None)
            axes.set_title(title, loc="left", size=12, color=INK, pad=8)
        for axes, name in zip(grid.ravel(), TITLES, strict=True):
            axes.set_xlabel("E, steps taken on each batch", size=11)
            axes.set_ylabel(UNITS[name], size=11)
        figure.text(0.02, 0.975, "Why the ratio?", size=17, weight="bold", va="top")
        figure.text(
            0.02,
            0.925,
            f"{env}, equal environment steps, IQM of {seeds} seeds with 95% interval",
            size=12,
            color=MUTED,
            va="top",
        )
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0.01, 0.895),
            ncols=5,
            frameon=False,
            fontsize=11,
            handlelength=1.4,
            columnspacing=1.4,
        )
        figure.savefig(path, metadata=without_date(path))


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, scale: str | None) -> None:
    epochs = sorted({row["epochs"] for row in rows if row["objective"] in LINES})
    floor = KL_FLOOR if scale == "log" else -np.inf
    for objective, (color, label) in LINES.items():
        found = {row["epochs"]: row[name] for row in rows if row["objective"] == objective}
        known = [e for e in epochs if e in found and found[e]["iqm"] is not None]
        middle = [max(found[e]["iqm"], floor) for e in known]
        ends = [found[e]["ci95"] or (found[e]["iqm"],) * 2 for e in known]
        low, high = np.maximum(np.array(ends, float).reshape(-1, 2), floor).T
        axes.fill_between(known, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(known, middle, color=color, linewidth=2.2, marker="o", markersize=4, label=label)
    objective, color, label = REFERENCE
    for row in rows:
        if row["objective"] == objective and name in row:
            value = row[name]["iqm"]
            axes.axhline(value, color=color, linewidth=1.5, dashes=(5, 3), label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(epochs, [str(e) for e in epochs])
    axes.minorticks_off()
    if scale == "log":
        axes.set_yscale("log")
        axes.set_ylim(bottom=KL_FLOOR)
