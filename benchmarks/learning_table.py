"""Results of `learning.py` in words: names of the records, and the table over all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ppo_jax.analysis import plots

MODES = ("deterministic", "sampled")
# Trainer's name by objective; `pg` is A2C with one epoch and one minibatch.
ALGORITHMS = {"clip": "PPO", "trpo": "TRPO", "pg": "A2C"}


def stem(env: str, preset: str, objective: str) -> str:
    """The name of a result's files: ENV for PPO, ENV-OBJECTIVE, or ENV-PRESET of another name."""
    if preset != env:
        return f"{env}-{preset}"
    return env if objective == "clip" else f"{env}-{objective}"


def stem_of(record: dict[str, Any]) -> str:
    return stem(record["env"], record["preset"], record["objective"])


def algorithm(record: dict[str, Any]) -> str:
    return ALGORITHMS.get(record["objective"], record["objective"])


def order(record: dict[str, Any]) -> tuple[int, str]:
    """PPO first, then the others; environments by name."""
    names = list(ALGORITHMS)
    objective = record["objective"]
    return (names.index(objective) if objective in names else len(names), record["env"])


def write_table(out: Path) -> None:
    """README.md of the results: published, measured, verdict."""
    found = (json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*.json")))
    records = sorted(found, key=order)
    lines = [
        "# How well the presets learn",
        "",
        "IQM over seeds with its 95% bootstrap interval (the seed is the unit), 128 whole episodes "
        "a seed after training (8192 where luck moves a return more than learning does), acted as "
        "the source of the published number acted. Written by `python benchmarks/learning.py`; "
        "the JSON files have the scores of every seed, setting, versions and hardware, the CSV "
        "files the learning curves.",
        "",
        "| environment | algorithm | compared with | measured | seeds that reach it | acts | "
        "acting the other way | seeds x steps | seconds | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(line(record) for record in records),
        "",
        "Seconds: training of all seeds together, without compilation. Verdict: reached, IQM >= "
        "published; within interval, the interval's upper end is; below, it is not.",
        "",
        "## Where the numbers to compare with come from",
        "",
        *(
            f"- {record['env']}, {algorithm(record)}: {cell(each)}, {each['policy_mode']}: "
            f"{each['source']}"
            for record in records
            for each in references(record["published"])
        ),
        "",
        "## Hardware",
        "",
        *sorted({f"- {describe(record['hardware'])}, {record['date']}" for record in records}),
    ]
    (out / "README.md").write_text("\n".join(lines) + "\n", "utf-8")


def references(published: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The number compared with, and the others that are known."""
    return [] if published is None else [published, *published.get("others", [])]


def line(record: dict[str, Any]) -> str:
    """One row of the table."""
    scores, published = record["returns"][record["policy_mode"]], record["published"]
    other = next(each for each in MODES if each != record["policy_mode"])
    cells = (
        f"[{record['env']}]({stem_of(record)}.svg)",
        algorithm(record),
        "–" if published is None else cell(published),
        measured(scores),
        percent(record["share_reached"]),
        record["policy_mode"],
        measured(record["returns"][other]),
        f"{record['num_seeds']} x {plots.si(record['env_steps'])}",
        f"{record['train_seconds']:.0f}",
        verdict(record),
    )
    return f"| {' | '.join(cells)} |"


def verdict(record: dict[str, Any]) -> str:
    """The verdict; none for A2C, whose published runs use another optimiser, RMSprop."""
    return "–" if algorithm(record) == "A2C" else record["verdict"]


def tolerance(reference: dict[str, Any]) -> float:
    """Rounding error of a sum of rewards in float32."""
    return 1e-4 * max(1.0, abs(reference["score"]))


def share_reached(per_seed: list[float | None], reference: dict[str, Any] | None) -> float | None:
    """The share of seeds that reach the published score; a seed that failed does not."""
    if reference is None:
        return None
    enough = reference["score"] - tolerance(reference)
    return sum(score is not None and score >= enough for score in per_seed) / len(per_seed)


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f}%"


def measured(scores: dict[str, Any]) -> str:
    """IQM and its interval."""
    if scores["ci95"] is None:
        return number(scores["iqm"])
    low, high = scores["ci95"]
    return f"**{number(scores['iqm'])}** [{number(low)}, {number(high)}]"


def cell(reference: dict[str, Any]) -> str:
    kind = reference.get("kind", "published")
    if kind != "published":  # an optimum or a bound holds at any number of steps
        return f"{number(reference['score'])} ({kind})"
    return f"{number(reference['score'])} at {plots.si(reference['env_steps'])}"


def number(value: float | None) -> str:
    return "failed" if value is None else f"{value:.5g}" if abs(value) < 10 else f"{value:.1f}"


def label(reference: dict[str, Any]) -> str:
    """The label of the line in a picture."""
    kind = reference.get("kind", "published")
    steps = f" at {plots.si(reference['env_steps'])} steps" if kind == "published" else ""
    return f"{kind} {reference['score']:g}{steps}"


def describe(machine: dict[str, Any]) -> str:
    """One line of hardware."""
    others = [device for device in machine["devices"] if not device.startswith("cpu")]
    return ", ".join([f"{machine['processor']}, {machine['cores']} cores", *others])
