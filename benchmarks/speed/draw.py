"""Draw a stored comparison: `python benchmarks/speed/draw.py benchmarks/results/speed_...json`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
from peers import PEERS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#1b6ca8", "#c8553d", "#7a9e3f", "#8d6cab")


def draw(record: dict[str, Any], out: Path) -> None:
    """Speed with the spread of its runs above, compile time below; trainers by colour."""
    cases = list(record["cases"].items())
    names = list(dict.fromkeys(name for _, case in cases for name in case["trainers"]))
    figure, (speed, compilation) = plt.subplots(2, 1, figsize=(10, 6.4), sharex=True)
    width = 0.84 / len(names)
    for name, colour in zip(names, COLOURS, strict=False):
        label = name
        for place, (_, case) in enumerate(cases):
            present = list(case["trainers"])
            if name not in present:
                continue
            trainer = case["trainers"][name]
            at = place + (present.index(name) - (len(present) - 1) / 2) * width
            style: dict[str, Any] = {"width": width * 0.94, "color": colour, "label": label}
            label = None  # once in the legend
            speed.bar(at, trainer["env_steps_per_second"] / 1e3, **style)
            compilation.bar(at, trainer["compile_seconds"], **style)
            runs = [run["env_steps"] / run["wall_seconds"] / 1e3 for run in trainer["runs"]]
            speed.plot([at] * len(runs), runs, ".", color="black", ms=3, alpha=0.5)
            each = trainer["compile_seconds_each"]
            compilation.plot([at] * len(each), each, ".", color="black", ms=3, alpha=0.5)
            if name in case["against"]:
                told = f"we:\n{case['against'][name]['speed_ratio']:.2f}x"
                style = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
                speed.annotate(told, (at, max(runs)), xytext=(0, 3), fontsize=7, **style)
    titles = [f"({key}) " + case["settings"]["title"].replace(", ", "\n") for key, case in cases]
    compilation.set_xticks(range(len(cases)), titles, fontsize=8)
    for axes, label in (
        (speed, "thousand environment steps per second"),
        (compilation, "seconds to trace and compile"),
    ):
        axes.set_title(label, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    speed.margins(y=0.15)
    speed.legend(frameon=False, fontsize=9, ncols=len(names))
    trainers = {name: each for _, case in cases for name, each in case["trainers"].items()}
    figure.text(0.01, 0.01, caption(record, trainers), fontsize=7, color="#666666")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(out, dpi=150)
    plt.close(figure)


def caption(record: dict[str, Any], trainers: dict[str, dict[str, Any]]) -> str:
    """The measurement's setting, and the versions of all trainers."""
    peers = [
        f"{PEERS[name].package} {trainer['versions'].get(PEERS[name].package, '')}"
        for name, trainer in trainers.items()
    ]
    jax = next(iter(trainers.values()))["versions"]["jax"]
    return (
        f"PPO; medians of {record['repeats']} interleaved runs (dots); {', '.join(peers)}; "
        f"jax {jax}; {record['machine']['hardware']}; {record['date'][:10]}"
    )


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
