"""Tables of learning beside other trainers for docs/results.md: `readme.py` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from stored import RESULTS, estimate, link, newest, signed

from ppo_jax.analysis import means, stats, verdicts
from ppo_jax.analysis.plots import si


def parity() -> str | None:
    """Returns at settings equal to a peer's, task by task."""
    peers = ("rejax", "purejaxrl", "sb3", "brax", "craftax")
    paths = [newest(f"parity_{peer}_*.json") for peer in peers]
    records = [json.loads(path.read_text("utf-8")) for path in paths if path is not None]
    if not records:
        return None
    lines = [
        "### Learning beside others at equal settings",
        "",
        "| task | beside | ours: IQM [95%], mean | theirs: IQM [95%], mean | seeds that did not "
        "learn, ours and theirs | seeds × steps | difference [95%] | P(ours better) | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        for env, each in record["tasks"].items():
            shown = " | ".join(side_of(each[side]) for side in ("ours", "theirs"))
            failed = " and ".join(f"{each[s]['share_failed']:.0%}" for s in ("ours", "theirs"))
            start = each["seeds"][0]
            fresh = f", from seed {start}" if start else ""
            lines.append(
                f"| {env} | {record['peer']} | {shown} | {failed} | "
                f"{len(each['seeds'])} × {si(each['setting']['total_env_steps'])}{fresh} | "
                f"{signed(each)} | {each['probability_of_improvement']:.2f} | "
                f"{each['verdict']} |"
            )
    modes = ", ".join(f"{each['policy_mode']} beside {each['peer']}" for each in records)
    lines += [
        "",
        "The same environments, budget, network, start of the weights, loss, optimiser and end at "
        f"a time limit; 128 episodes a seed, actions {modes}. A seed that did not learn stays "
        "within a tenth of the range from random play. If a row has one, the difference is that of "
        "the means, because an IQM leaves such seeds out; else it is that of the IQMs. Again: "
        "`python benchmarks/parity.py`.",
        "",
        chance(records),
    ]
    return "\n".join(lines)


def chance(records: list[dict[str, Any]]) -> str:
    """Describe what chance does to so many verdicts, and Bonferroni's interval of each "worse"."""
    tasks = [(r["peer"], env, each) for r in records for env, each in r["tasks"].items()]
    count = len(tasks)
    said = [
        f"These are {count} comparisons. If all methods were equal, each interval would exclude 0 "
        f"in 5% of the repetitions, and one or more of {count} independent ones in "
        f"{1 - 0.95**count:.0%}. Judging again after `--add` has added seeds raises that share."
    ]
    for peer, env, each in tasks:
        if each["word"] != verdicts.WORSE:
            continue
        low, high = corrected(each, 1 - 0.05 / count)
        words = "so chance can explain it" if high >= 0 else "so chance alone does not explain it"
        said.append(
            f'"Worse" on {env} beside {peer}: corrected for {count} comparisons (Bonferroni) the '
            f"interval is [{low:+.3g}, {high:+.3g}], {words}."
        )
    return " ".join(said)


def corrected(each: dict[str, Any], confidence: float) -> tuple[float, float]:
    """The interval of a stored difference at another confidence; of means if a seed failed."""
    ours, theirs = ([each[side]["per_seed"]] for side in ("ours", "theirs"))
    if each["ours"]["share_failed"] or each["theirs"]["share_failed"]:
        found = means.difference(ours, theirs, confidence)
        ends = None if found is None else found.ends
    else:
        generator = np.random.default_rng(0)
        ends = stats.difference_interval(
            ours, theirs, confidence=confidence, resamples=20_000, generator=generator
        )
    return (np.nan, np.nan) if ends is None else ends


def gymnasium() -> str | None:
    """Gymnasium's tasks beside Stable-Baselines3."""
    tasks = sorted({path.name.partition("_")[0] for path in RESULTS.glob("gymnasium-*.json")})
    paths = [path for task in tasks if (path := newest(f"{task}_*.json"))]
    lines = [
        "### Gymnasium's tasks beside Stable-Baselines3 at equal settings",
        "",
        "| task | episodes | ours: IQM [95%], mean | theirs: IQM [95%], mean | seeds × steps | "
        "difference [95%] | verdict | their seconds over ours | share of time in the environment: "
        "ours, theirs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [row for path in paths for row in gymnasium_rows(path)]
    if not rows:
        return None
    return "\n".join(
        [
            *lines,
            *rows,
            "",
            "The same networks, batches, losses, optimiser and normalisers, a process for each "
            "training, in turns. Returns are means of 20 deterministic episodes after training, "
            "and of the last 8 or more training episodes. The ratio of seconds is the median of "
            "the pairs, with their range. Again: `python "
            "benchmarks/gymnasium_sb3.py`.",
        ]
    )


def gymnasium_rows(path: Path) -> list[str]:
    """The rows of one result of `gymnasium_sb3.py`."""
    record, rows = json.loads(path.read_text("utf-8")), []
    task, size = record["what"].partition(" ")[0], si(record["setting"]["total"])
    words = {"return": "deterministic", "training_return": "last of training"}
    shares = ", ".join(f"{environment_share(record, side):.0%}" for side in ("ours", "theirs"))
    ratios = sorted(each["ratio"] for each in record["turns"])
    ratio = f"{record['median_ratio']:.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
    fresh = f", from seed {start}" if (start := record.get("first_seed", 0)) else ""
    for name, found in record.get("compared", {}).items():
        sides = " | ".join(side_of(found[side]) for side in ("ours", "theirs"))
        rows.append(
            f"| [{task}]({link(path)}) | {words[name]} | {sides} | {len(record['turns'])} × "
            f"{size}{fresh} | {signed(found)} | {found['verdict']} | {ratio} | {shares} |"
        )
    return rows


def environment_share(record: dict[str, Any], side: str) -> float:
    """The median share of a training's seconds that its bare environment steps take."""
    turns = [each[side] for each in record["turns"]]
    return median(each["environment_seconds"] / each["seconds"] for each in turns)


def side_of(scores: dict[str, Any]) -> str:
    """IQM with its interval, and mean."""
    middle = estimate(scores["iqm"], scores["ci95"], bold=True)
    return f"{middle}, {estimate(scores['mean'], None)}"
