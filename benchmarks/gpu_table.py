"""The table of speeds on a GPU, from a result of `benchmarks/speed/gpu.py`.

`python benchmarks/gpu_table.py RESULT` prints it; `python benchmarks/readme.py` writes it into the
documents.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OURS, PEER = "ppo_jax", "rejax"
HEAD = (
    "| case | ours, float32 | ours, TF32 | ours, best options | Rejax (TF32) | ours / Rejax: "
    "float32, TF32 | of the limit by products, by memory |",
    "|---|---|---|---|---|---|---|",
)


def speed_of(trainers: dict[str, Any], label: str) -> float | None:
    """Environment steps per second of one variant, None if it was not timed."""
    return trainers.get(label, {}).get("env_steps_per_second")


def show(speed: float | None) -> str:
    return "–" if speed is None else f"{speed / 1e6:.3g} M"


def row(case: dict[str, Any]) -> str:
    """A case as a line of the table."""
    trainers = case["trainers"]
    plain, tf32 = speed_of(trainers, OURS), speed_of(trainers, f"{OURS}, tf32")
    theirs = speed_of(trainers, PEER)
    ours = {
        label: found["env_steps_per_second"]
        for label, found in trainers.items()
        if label.split(",")[0] == OURS and "env_steps_per_second" in found
    }
    best = max(ours, key=lambda label: ours[label], default=None)
    words = "" if best in (None, OURS) else f" ({best.partition(', ')[2]})"
    ratios = [f"{ours / theirs:.2f}" if ours and theirs else "–" for ours in (plain, tf32)]
    share = case.get("roofline", {}).get(OURS)
    limits = "–"
    if share:
        limits = f"{100 * share['fraction_of_flops']:.1f}%, {100 * share['fraction_of_bytes']:.1f}%"
    return (
        f"| {case['settings']['title']} | {show(plain)} | {show(tf32)} | "
        f"{show(ours.get(best or ''))}{words} | {show(theirs)} | {', '.join(ratios)} | {limits} |"
    )


def table(record: dict[str, Any]) -> str:
    """The table of a result, with its machine and what was left out."""
    lines = [
        "Environment steps per second of training, median of calls in turns on one "
        f"{record['ceilings']['device']}, {record['date'][:10]}:",
        "",
        *HEAD,
        *(row(case) for case in record["cases"].values() if "trainers" in case),
    ]
    missing = [
        f"{name}: {case['error']}" for name, case in record["cases"].items() if "error" in case
    ]
    missing += list(record["left_out"].values())
    if missing:
        lines += ["", f"Left out: {'; '.join(missing)}"]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
