"""Results of `learning.py` in words: names of the records, and the table over all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stored import estimate

from ppo_jax.analysis import plots, ranges, verdicts
from ppo_jax.analysis.verdicts import Verdict
from ppo_jax.storage.manifest import cores_in_words

MODES = ("deterministic", "sampled")
# Trainer's name by objective; `pg` is A2C with one epoch and one minibatch.
ALGORITHMS = {"clip": "PPO", "trpo": "TRPO", "pg": "A2C"}


RULE = (
    "Verdict: equal, the interval of the difference lies within the margin, 5% of the range from "
    "random to best; better and worse, it lies above or below 0; undecided, neither, and about as "
    "many seeds as stated would decide. A failed seed is worse. Published numbers have no interval "
    "of their own."
)


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
        "IQM over seeds with its 95% interval (the seed is the unit), 128 whole episodes "
        "a seed after training (8192 where luck moves a return more than learning does), acted as "
        "the source of the published number acted. Written by `python benchmarks/learning.py`; "
        "the JSON files have the scores of every seed, setting, versions and hardware, the CSV "
        "files the learning curves.",
        "",
        "| environment | algorithm | compared with | measured | seeds that reach it | acts | "
        "acting the other way | seeds x steps | seconds | difference [95%] | margin | verdict | "
        "compared number is unlike |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(line(record) for record in records),
        "",
        f"Seconds: training of all seeds together, without compilation. {RULE}",
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


def hardest(reference: dict[str, Any], env_steps: int) -> dict[str, Any]:
    """The highest published score of the same policy mode at no more than `env_steps`."""
    fair = [
        each
        for each in references(reference)
        if each.get("kind", "published") == "published"
        and each["policy_mode"] == reference["policy_mode"]
        and each["env_steps"] <= 1.05 * env_steps
    ]
    best = max([reference, *fair], key=lambda each: each["score"])
    if best is reference:
        return reference
    others = [each for each in references(reference) if each is not best]
    others = [{k: v for k, v in each.items() if k != "others"} for each in others]
    return {**best, "others": others}


def compared(record: dict[str, Any]) -> Verdict | None:
    """The verdict, computed from the score of every seed; None if nothing was published."""
    if record["published"] is None:
        return None
    known = ranges.ranges().get(record["env"])
    margin = 0.0 if known is None else verdicts.margin_of(known.random, known.best)
    per_seed = record["returns"][record["policy_mode"]]["per_seed"]
    return verdicts.against(per_seed, record["published"]["score"], margin)


def verdict(record: dict[str, Any]) -> str:
    """The verdict in words."""
    found = compared(record)
    return "nothing published" if found is None else verdicts.described(found)


def difference(record: dict[str, Any]) -> tuple[str, str]:
    """The difference with its interval, and the margin of equality."""
    found = compared(record)
    if found is None or found.difference is None:
        return "–", "–"
    return estimate(found.difference, found.ci95, "+.3g"), f"{found.margin:.3g}"


def remarks(record: dict[str, Any]) -> str:
    """Differences of the number from ours: steps, the task, harder ones."""
    published = record["published"]
    if published is None:
        return "–"
    found, is_run = [], published.get("kind", "published") == "published"
    ratio = record["env_steps"] / published["env_steps"]
    if is_run and not 0.67 < ratio < 1.5:
        found.append(f"we take {ratio:.2g} times its steps")
    for each in published.get("others", []):
        if each["score"] > published["score"] and each.get("kind", "published") == "published":
            steps = plots.si(each["env_steps"])
            found.append(f"also published: {each['score']:g} at {steps}, {each['policy_mode']}")
    return "; ".join([*found, *([published["unlike"]] if "unlike" in published else [])]) or "–"


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
        *difference(record),
        verdict(record),
        remarks(record),
    )
    return f"| {' | '.join(cells)} |"


def share_reached(per_seed: list[float | None], reference: dict[str, Any] | None) -> float | None:
    """The share of seeds that reach the published score; a seed that failed does not."""
    if reference is None:
        return None
    enough = reference["score"] - verdicts.rounding(reference["score"])
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
    return ", ".join([machine["processor"], cores_in_words(machine["cores"]), *others])
