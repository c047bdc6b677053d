"""Table of the suites beside their own trainers for docs/speed.md: `readme.py` writes it."""

from __future__ import annotations

from typing import Any

from ppo_jax.storage.manifest import cores_in_words

HEAD = (
    "| case | the suite's trainer | ours | theirs | times as fast | per CPU second | share of CPU "
    "time in the environment: ours, theirs |",
    "|---|---|---|---|---|---|---|",
)


def table(records: list[tuple[dict[str, Any], str]]) -> str:
    """Environment steps per second, ratios and shares of `speed-suites` results.

    Args:
        records: a result of each machine, with its address seen from the document.
    """
    lines, notes = list(HEAD), []
    for record, address in records:
        first = len(lines) - len(HEAD) + 1
        lines += [line for case in record["cases"].values() for line in rows(case)]
        notes.append(measured(record, address, f"Rows {first} to {len(lines) - len(HEAD)}"))
    words = (
        "Environment steps per second, and seconds to trace and compile in brackets; the ratio is "
        "the median of pairs of runs, with their range. A range with 1 in it shows no difference."
    )
    return "\n".join([*lines, "", " ".join([words, *notes])])


def measured(record: dict[str, Any], address: str, which: str) -> str:
    """Machine and date of one result, and the layouts that a trainer could not run."""
    machine, name = record["machine"], address.rpartition("/")[2]
    ended = {
        f"{worded(trainer)} in the layout `{layout}`"
        for case in record["cases"].values()
        for trainer in case["trainers"].values()
        for layout in trainer.get("layouts_ended", ())
    }
    words = (
        f"{which}: {machine['cpu']}, {cores_in_words(machine['cores'])}, {record['date'][:10]}, "
        f"{record['repeats']} runs of each in turns, [{name}]({address})."
    )
    notes = [f"A fault inside XLA ended {', '.join(sorted(ended))}."] if ended else []
    return " ".join([words, *notes, *record.get("notes", [])])


def rows(case: dict[str, Any]) -> list[str]:
    """A row for each peer of one case."""
    ours, shares = case["trainers"]["ppo_jax"], case["environment"]["cpu_share"]
    return [
        f"| {case['settings']['title']} | {worded(case['trainers'][peer])} | "
        f"{speed(ours)} | {speed(case['trainers'][peer])} | "
        f"**{found['speed_ratio_pairs_median']:.2f}** "
        f"({min(found['speed_ratio_pairs']):.2f} to {max(found['speed_ratio_pairs']):.2f}) | "
        f"**{found['cpu_speed_ratio']:.2f}** | "
        f"{shares['ppo_jax']:.0%}, {shares[peer]:.0%} |"
        for peer, found in case["against"].items()
    ]


def worded(trainer: dict[str, Any]) -> str:
    """The suite with its version; its package is the first that a worker names."""
    name, version = next(iter(trainer["versions"].items()))
    return f"{name} {version}"


def speed(trainer: dict[str, Any]) -> str:
    return f"{trainer['env_steps_per_second']:,.0f} ({trainer['compile_seconds']:.1f} s)"
