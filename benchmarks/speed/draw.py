"""Draws a stored comparison: `python benchmarks/speed/draw.py benchmarks/results/speed_...json`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#1b6ca8", "#c8553d", "#7a9e3f", "#8d6cab")


def draw(record: dict[str, Any], out: Path) -> None:
    """Speed with the spread of its runs, and compile time, one panel each."""
    cases = list(record["cases"].items())
    names = list(cases[0][1]["trainers"])
    figure, (speed, compilation) = plt.subplots(1, 2, figsize=(9.5, 3.8))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        trainers = [case["trainers"][name] for _, case in cases]
        places = [place + (i - (len(names) - 1) / 2) * width for place in range(len(cases))]
        version = trainers[0]["versions"].get(name.replace("_", "-"), "")
        style: dict[str, Any] = {"width": width * 0.94, "color": COLOURS[i % len(COLOURS)]}
        speeds = [trainer["env_steps_per_second"] / 1e3 for trainer in trainers]
        speed.bar(places, speeds, label=f"{name} {version}", **style)
        compilation.bar(places, [trainer["compile_seconds"] for trainer in trainers], **style)
        for place, trainer in zip(places, trainers, strict=True):
            runs = [run["env_steps"] / run["wall_seconds"] / 1e3 for run in trainer["runs"]]
            speed.plot([place] * len(runs), runs, ".", color="black", ms=3, alpha=0.5)
            each = trainer["compile_seconds_each"]
            compilation.plot([place] * len(each), each, ".", color="black", ms=3, alpha=0.5)
        for place, trainer, (_, case) in zip(places, trainers, cases, strict=True):
            if name in case["against"]:
                ratio = case["against"][name]["speed_ratio"]
                top = max(run["env_steps"] / run["wall_seconds"] for run in trainer["runs"]) / 1e3
                speed.annotate(
                    f"we: {ratio:.2f}x",
                    (place, top),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    color="#444444",
                )
    titles = [f"({key}) " + case["settings"]["title"].replace(", ", "\n") for key, case in cases]
    for axes, label in (
        (speed, "thousand environment steps per second"),
        (compilation, "seconds to trace and compile"),
    ):
        axes.set_xticks(range(len(cases)), titles, fontsize=8)
        axes.set_title(label, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    speed.legend(frameon=False, fontsize=9)
    machine, day = record["machine"]["hardware"], record["date"][:10]
    trainer = cases[0][1]["trainers"][names[0]]
    figure.text(
        0.01,
        0.01,
        f"PPO, {cases[0][1]['settings']['env']}; medians of {record['repeats']} interleaved runs "
        f"(dots); {machine}; jax {trainer['versions']['jax']}; {day}",
        fontsize=7,
        color="#666666",
    )
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(out, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="draws a stored speed comparison")
    parser.add_argument("result", type=Path)
    parser.add_argument("--out", type=Path, help="picture (default: beside the result, .png)")
    arguments = parser.parse_args()
    out = arguments.out or arguments.result.with_suffix(".png")
    draw(json.loads(arguments.result.read_text()), out)
    print(out)


if __name__ == "__main__":
    main()
