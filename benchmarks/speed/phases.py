"""An iteration's time by phase in each case: `python benchmarks/speed/phases.py` (2 minutes).

The split is that of `ppo-jax bench`, by differences. The rollout alone, rollout and advantages, and
the whole iteration are three compiled loops in the layout of a run, timed in turns. The host's part
is a call without iterations and the fetching of its rows. `--before FILE` shows an earlier result
beside the new one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cases import CASES, Case
from machine import begin, default_out, store
from worker_ppo_jax import config_of, hyper_of

PHASES = ("rollout", "advantages", "update", "host")
COLOURS = ("#1b6ca8", "#7a9e3f", "#c8553d", "#999999")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    parser.add_argument("--before", type=Path, help="an earlier result to compare with")
    parser.add_argument("--seconds", type=float, default=30.0, help="about, of each case")
    parser.add_argument("--hardware", help="name of this machine in the result")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    record = begin(
        "seconds of one iteration by phase",
        " ".join(["python", "benchmarks/speed/phases.py", *sys.argv[1:]]),
        arguments.hardware,
    )
    out = arguments.out or default_out(record["machine"]["hardware"], "phases")
    before = json.loads(arguments.before.read_text()) if arguments.before else None
    record["cases"] = {}
    for name in arguments.cases:
        found = measure(CASES[name], arguments.seconds)
        if before and name in before["cases"]:
            old = before["cases"][name]
            found["before"] = {"date": before["date"], "phase_seconds": old["phase_seconds"]}
            found["before"]["iteration_seconds"] = old["iteration_seconds"]
        record["cases"][name] = found
        store(record, out)
        print(row(name, found), flush=True)
    picture = out.with_suffix(".png")
    draw(record, picture)
    print(f"{out}\n{picture}")


def measure(case: Case, seconds: float) -> dict[str, Any]:
    from ppo_jax.apps.diagnose import bench
    from ppo_jax.config.options import RunOptions

    options = RunOptions(seeds=case.seeds)
    found = bench.report(config_of(case), hyper_of(case), options, seconds)
    found.pop("text")
    return {"title": case.title, "settings": vars(case), **found}


def row(name: str, found: dict[str, Any]) -> str:
    phases = found["phase_seconds"]
    whole = sum(phases.values())
    parts = [f"{phase} {1e3 * phases[phase]:.2f} ({phases[phase] / whole:.0%})" for phase in PHASES]
    line = f"({name}) {1e3 * found['iteration_seconds']:.2f} ms an iteration: {', '.join(parts)}"
    if "before" in found:
        old = found["before"]
        parts = [f"{phase} {1e3 * old['phase_seconds'][phase]:.2f}" for phase in PHASES]
        line += f"\n    before {1e3 * old['iteration_seconds']:.2f}: {', '.join(parts)}"
    return line


def draw(record: dict[str, Any], out: Path) -> None:
    """One bar per case, its phases side by side in shares, with the earlier result above it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    bars = []  # label, seconds by phase, unit: the whole iteration of the newest measurement
    for name, found in record["cases"].items():
        whole = sum(found["phase_seconds"].values())
        if "before" in found:
            old = found["before"]
            label = f"before: {1e3 * old['iteration_seconds']:.1f} ms"
            bars.append((label, old["phase_seconds"], whole))
        label = f"({name}) {found['title']}: {1e3 * found['iteration_seconds']:.1f} ms"
        bars.append((label, found["phase_seconds"], whole))
    figure, axes = plt.subplots(figsize=(9.5, 0.8 + 0.42 * len(bars)))
    for place, (_, phases, whole) in enumerate(reversed(bars)):
        left = 0.0
        for phase, colour in zip(PHASES, COLOURS, strict=True):
            width = phases[phase] / whole
            label = phase if place == 0 else None
            axes.barh(place, width, left=left, color=colour, height=0.7, label=label)
            left += width
    axes.set_yticks(range(len(bars)), [label for label, _, _ in reversed(bars)], fontsize=8)
    axes.set_xlabel("time of an iteration, 1 is the newest measurement", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="upper right", ncols=len(PHASES), frameon=False, fontsize=8)
    text = f"{record['machine']['hardware']}; {record['date'][:10]}"
    figure.text(0.01, 0.01, text, fontsize=7, color="#666666")
    figure.tight_layout(rect=(0, 0.03, 1, 0.94))
    figure.savefig(out, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
