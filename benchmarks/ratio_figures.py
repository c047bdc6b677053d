"""Exact numbers and pictures for docs/why-the-ratio.md: `python benchmarks/ratio_figures.py`.

Nothing is sampled or trained here. The pictures go to `docs/images/`, and the tables into the
page's blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from readme import write
from stored import ROOT

from ppo_jax.analysis.plots import INK, MUTED, STYLE, without_date

IMAGES = ROOT / "docs" / "images"
PAGE = ROOT / "docs" / "why-the-ratio.md"
EPSILON = 0.2
LOG, RATIO, CLIP = "#D55E00", "#E69F00", "#0072B2"
BAND = "#EEF3F7"


def main() -> None:
    """Draw the three pictures and write the two tables."""
    IMAGES.mkdir(exist_ok=True)
    draw("ratio_curves.svg", (10.0, 4.3), 2, curves)
    draw("ratio_bandit.svg", (10.0, 3.8), 2, bandit_panels)
    draw("ratio_values.svg", (10.0, 4.3), 1, value_panel)
    write(PAGE, {"bandit": bandit_table(), "exact": exact_table()})


def draw(name: str, size: tuple[float, float], columns: int, panels: Callable[..., None]) -> None:
    """Write a picture whose panels stand side by side."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=160, layout="constrained")
        panels(*figure.subplots(1, columns, squeeze=False)[0])
        path: Path = IMAGES / name
        figure.savefig(path, metadata=without_date(path))


def curves(*axes: Any) -> None:
    """log r A, r A and the clipped r A over r, for A = 1 and A = -1."""
    r = np.linspace(0.3, 2.0, 400)
    for panel, sign in zip(axes, (1.0, -1.0), strict=True):
        panel.axvspan(1 - EPSILON, 1 + EPSILON, color=BAND, zorder=0)
        panel.plot(r, sign * (1.0 + np.log(r)), color=LOG, linewidth=2, label="(1 + log r) · A")
        panel.plot(r, sign * r, color=RATIO, linewidth=2, label="r · A")
        bounded = np.minimum(r * sign, np.clip(r, 1 - EPSILON, 1 + EPSILON) * sign)
        panel.plot(r, bounded, color=CLIP, linewidth=2.6, dashes=(4, 2), label="clipped (PPO)")
        panel.plot([1.0], [sign], "o", color=INK, markersize=6, zorder=5)
        panel.set_title(f"A = {sign:+.0f}", loc="left", size=12, color=INK)
        panel.set_xlabel("ratio r = π / π_old")
        panel.set_ylabel("objective of one sample")
        panel.set_xticks([0.4, 0.8, 1.0, 1.2, 1.6, 2.0])
    axes[0].legend(frameon=False, loc="upper left", fontsize=11)


class Bandit(NamedTuple):
    """Ascent on one objective in the two-action bandit: numbers after each step."""

    ratio: np.ndarray  # [K + 1], of the good action
    slope: np.ndarray  # [K + 1], of the objective by the good action's logit


SLOPES: dict[str, Callable[[float], float]] = {
    # p = pi(good). The mean over a ~ pi_old = (1/2, 1/2) of d objective / d logit, A = (1, -1).
    "log": lambda p: 0.5 * (1 - p) + 0.5 * p,
    "ratio": lambda p: p * (1 - p) * 2.0,
    "clip": lambda p: p * (1 - p) * ((2 * p <= 1 + EPSILON) * 1.0 + (2 * (1 - p) >= 1 - EPSILON)),
}


def climb(name: str, steps: int = 16, rate: float = 0.4) -> Bandit:
    """Take exact gradient steps of one size from pi_old = (1/2, 1/2), on both logits."""
    logit, ratios, slopes = 0.0, [], []
    for _ in range(steps + 1):
        p = 1.0 / (1.0 + np.exp(-2.0 * logit))  # the logits are +logit and -logit
        slope = SLOPES[name](p)
        ratios.append(2.0 * p)
        slopes.append(slope)
        logit += rate * slope
    return Bandit(np.array(ratios), np.array(slopes))


def bandit_panels(first: Any, second: Any) -> None:
    """Probability and slope over the steps on one batch."""
    for name, color in (("log", LOG), ("ratio", RATIO), ("clip", CLIP)):
        found = climb(name)
        label = {"log": "log π · A", "ratio": "r · A", "clip": "clipped (PPO)"}[name]
        steps = np.arange(len(found.ratio))
        first.plot(steps, found.ratio / 2, color=color, linewidth=2, marker="o", ms=3, label=label)
        second.plot(steps, found.slope, color=color, linewidth=2, marker="o", ms=3)
    first.set_ylabel("probability of the good action")
    second.set_ylabel("slope by its logit")
    for panel in (first, second):
        panel.set_xlabel("steps on the same batch")
        panel.set_xticks([0, 4, 8, 12, 16])
    first.legend(frameon=False, fontsize=11)


def bandit_table() -> str:
    """Ratio, logarithm and slopes after 0, 1, 2, 4, 8 and 16 steps."""
    found = {name: climb(name) for name in SLOPES}
    lines = [
        "| steps | log π: r, log r, slope | r: r, log r, slope | clip: r, log r, slope |",
        "|---|---|---|---|",
    ]
    for step in (0, 1, 2, 4, 8, 16):
        cells = [
            f"{each.ratio[step]:.3f}, {np.log(each.ratio[step]):.3f}, {each.slope[step]:.3f}"
            for each in found.values()
        ]
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


class Exact(NamedTuple):
    """Gains over pi_old along one direction, in a Markov decision process solved exactly."""

    mean_kl: np.ndarray  # [K], over the states that pi_old visits
    max_kl: np.ndarray  # [K], over all states
    gain: np.ndarray  # [K], J(pi) - J(pi_old)
    ratio: np.ndarray  # [K], value of L^IS
    logarithm: np.ndarray  # [K], value of L^PG, from its value at pi_old
    bound: np.ndarray  # [K], L^IS - 4 epsilon gamma / (1 - gamma)^2 max KL


def exact(sizes: np.ndarray, states: int = 20, actions: int = 4, gamma: float = 0.9) -> Exact:
    """Move the logits by t A_old, the natural gradient's direction, and solve for each t."""
    rng = np.random.default_rng(0)
    move = rng.dirichlet(np.full(states, 0.2), (states, actions))  # [S, A, S]
    reward = rng.normal(size=(states, actions))
    start = rng.dirichlet(np.ones(states))
    logits = rng.normal(size=(states, actions))

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def solve(policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """V [S] and the discounted visits [S], which sum to 1 / (1 - gamma)."""
        chain = np.eye(states) - gamma * np.einsum("sa,sat->st", policy, move)
        return np.linalg.solve(chain, (policy * reward).sum(-1)), np.linalg.solve(chain.T, start)

    old = softmax(logits)
    value, visits = solve(old)
    advantage = reward + gamma * move @ value - value[:, None]
    rows = []
    for t in sizes:
        new = softmax(logits + t * advantage)
        log_ratio = np.log(new) - np.log(old)
        kl = -(old * log_ratio).sum(-1)
        ratio = visits @ (new * advantage).sum(-1)
        factor = 4 * np.abs(advantage).max() * gamma / (1 - gamma) ** 2
        gain = start @ (solve(new)[0] - value)
        log = visits @ (old * log_ratio * advantage).sum(-1)
        mean = visits @ kl / visits.sum()
        rows.append((mean, kl.max(), gain, ratio, log, ratio - factor * kl.max()))
    return Exact(*np.array(rows).T)


def value_panel(axes: Any) -> None:
    """Gain, L^IS, L^PG and TRPO's lower bound over the mean KL."""
    found = exact(np.geomspace(1e-3, 30.0, 120))
    axes.plot(found.mean_kl, found.gain, color=INK, linewidth=2.6, label="true gain")
    axes.plot(found.mean_kl, found.ratio, color=RATIO, linewidth=2, label="value of L^IS")
    axes.plot(found.mean_kl, found.logarithm, color=LOG, linewidth=2, label="value of L^PG")
    axes.plot(found.mean_kl, found.bound, color=MUTED, linewidth=1.5, label="TRPO's bound")
    axes.set_xscale("log")
    axes.set_xlim(1e-4, 10.0)
    axes.set_ylim(-0.5 * found.gain.max(), 3.1 * found.gain.max())
    axes.set_xlabel("mean KL from π_old, nats")
    axes.set_ylabel("discounted return above π_old's")
    axes.legend(frameon=False, loc="upper left")


def exact_table() -> str:
    """The same numbers at five step sizes."""
    found = exact(np.array([0.003, 0.1, 0.5, 2.0, 8.0]))
    lines = [
        "| mean KL | largest KL | true gain | L^IS | L^PG | TRPO's bound |",
        "|---|---|---|---|---|---|",
    ]
    for row in zip(*found, strict=True):
        lines.append("| " + " | ".join(f"{number:.2g}" for number in row[:2]) + " | ")
        lines[-1] += " | ".join(f"{number:.3g}" for number in row[2:]) + " |"
    return "\n".join(lines)


if __name__ == "__main__":
    main()
