"""Tables of the studies of defaults, optimisers, halving and pbt: `readme.py` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from stored import estimate, one_core, signed

from ppo_jax.analysis import means, ranges, stats
from ppo_jax.analysis.plots import si

Record = dict[str, Any]


def candidates(record: Record, address: str) -> str:
    """The table of docs/settings.md: candidates for the defaults, and the best beside `today`."""
    first = next(iter(record["final"]))
    lines = [
        "| candidate | IQM, seeds {} to {} [95%] | mean | difference from `today` [95%] |".format(
            *record["choice_seeds"]
        ),
        "|---|---|---|---|",
        *(
            f"| {name} | {_scored(each)} | {each['mean']:.3f} | "
            f"{'–' if name == first else _difference(record['choice_differences'][name])} |"
            for name, each in record["choice"].items()
        ),
        "",
        "The best of them beside `today`, on seeds {} to {}:".format(*record["seeds"]),
        "",
        *_final(record),
        "",
        *_gains(record),
        f"{si(record['env_steps'])} environment steps each. Normalised scores: a random policy is "
        f"0, the best known return 1. `{first}` was the default when the study ran, a constant "
        f"step size of 3e-4. Every seed and setting: [{address.split('/')[-1]}]({address}). "
        f"Again: `{record.get('command', 'python benchmarks/defaults.py defaults')}`.",
    ]
    return "\n".join(lines)


def optimizers(record: Record, address: str) -> str:
    """The table of docs/settings.md: AdamW and Muon beside Adam."""
    return "\n".join(
        [
            *_final(record),
            "",
            f"{si(record['env_steps'])} environment steps, seeds {record['seeds'][0]} to "
            f"{record['seeds'][1]}; the step size ends at 0. It is the best of three by the IQM "
            "over the tasks, on seeds {} to {}. AdamW decays weights by 0.01, Muon has a momentum "
            "of 0.95. ".format(*record["choice_seeds"])
            + f"Every rate and seed: [{address.split('/')[-1]}]({address}). "
            "Again: `python benchmarks/defaults.py optimizers`.",
        ]
    )


def _scored(each: Record) -> str:
    return estimate(each["iqm"], each["ci95"], ".3f")


def _difference(found: Record) -> str:
    return f"{signed(found, '.3f')}, {found['verdict']}"


def _final(record: Record) -> list[str]:
    """One row a task: the scores of all finalists, and the differences from the first."""
    first, *others = record["final"]
    heads = [first, *others, *(f"{name} minus {first} [95%]" for name in others)]
    lines = [f"| task | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for task, kind in record["tasks"].items():
        scores = [f"{record['final'][name]['tasks'][task]:.3f}" for name in record["final"]]
        cells = [*scores, *(_difference(record["differences"][name][task]) for name in others)]
        lines.append(f"| {task.split(':')[-1]}: {kind} | {' | '.join(cells)} |")
    scores = [_scored(record["final"][name]) for name in record["final"]]
    over_all = [_difference(record["differences"][name]["all tasks, IQM"]) for name in others]
    lines.append(f"| **all tasks, IQM** | {' | '.join([*scores, *over_all])} |")
    return lines


def _gains(record: Record) -> list[str]:
    """The error of the linear-quadratic task's gain, by budget and step size."""
    own = f"{record['env_steps']:,}"
    budgets = {steps: found for steps, found in record.get("gains", {}).items() if steps == own}
    if not budgets:
        return []
    rates = list(dict.fromkeys(rate for found in budgets.values() for rate in found["rates"]))
    lines = [
        "The gain that is learnt on the linear-quadratic task misses the optimal one by so many "
        "percent (IQM of the seeds, 95% interval):",
        "",
        f"| environment steps | seeds | {' | '.join(f'step size {rate}' for rate in rates)} |",
        "|---|---|" + "---|" * len(rates),
    ]
    for steps, found in budgets.items():
        cells = [
            estimate(found["rates"][r]["iqm"], found["rates"][r]["ci95"], ".1f") for r in rates
        ]
        lines.append(f"| {steps} | {found['seeds']} | {' | '.join(cells)} |")
    return [*lines, ""]


def halving(*found: tuple[Record, str]) -> str:
    """The table of docs/sweeps.md: the grid's winner and halving's, on fresh seeds.

    Args:
        found: A record and its address for each η.
    """
    rows = [
        row
        for record, _ in found
        for row in _rows(record, "halving", f"halving, η = {record.get('eta', 3)}")
    ]
    return "\n".join([*_heads("grid's winner", "halving"), *rows, "", _sources(found, "halving")])


def pbt(found: tuple[Record, str]) -> str:
    """The table of docs/sweeps.md: the best fixed setting, and population-based training."""
    rows = _rows(found[0], "pbt", "pbt")
    return "\n".join([*_heads("best fixed setting", "pbt"), *rows, "", _sources([found], "pbt")])


def _sources(found: Sequence[tuple[Record, str]], what: str) -> str:
    """Name the kind of the numbers, and the file and the command of each record."""
    sentences = ["Means over fresh seeds and repetitions; differences are paired by repetition."]
    for record, address in found:
        command = record.get("command", f"python benchmarks/sweep/selection.py {what}")
        sentences.append(
            f"{one_core(record['machine']['hardware'])}, {record['date'][:10]}, versions in "
            f"[{address.split('/')[-1]}]({address}). Again: `{command}`."
        )
    return " ".join(sentences)


def _heads(rival: str, ours: str) -> list[str]:
    return [
        f"| task | sampler | repetitions | {rival} | {ours} | difference [95%] | at or above the "
        f"lower end of its interval | higher | training steps, at most | with played episodes, at "
        "most |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]


def _rows(record: Record, ours: str, label: str) -> list[str]:
    """One row a task, from the fresh seeds of each repetition."""
    lines = []
    for env, found in record["envs"].items():
        pairs = [_beside(env, row["everything"], row[ours]) for row in found["repetitions"]]
        count, differences = len(pairs), [pair["difference"] for pair in pairs]
        shown = estimate(_mean(pairs, "difference"), means.interval([differences]), "+.3g")
        lines.append(
            f"| {env}, {si(found['env_steps'])} steps | {label} | {count} | "
            f"{_mean(pairs, 'whole'):.4g} | {_mean(pairs, 'other'):.4g} | "
            f"{shown} | "
            f"{sum(pair['is_within'] for pair in pairs)} of {count} | "
            f"{sum(difference > 0 for difference in differences)} of {count} | "
            f"{max(pair['share_trained'] for pair in pairs):.0%} | "
            f"{max(pair['share_of_steps'] for pair in pairs):.0%} |"
        )
    return lines


def _beside(env: str, whole: Record, other: Record) -> Record:
    """Compare two winners by the means of their fresh seeds, as `selection.py` does."""
    fresh, limits = [side["fresh"]["per_seed"] for side in (whole, other)], ranges.limits(env)
    scores = [stats.summarise(each, statistic=np.mean, limits=limits) for each in fresh]
    low = (scores[0]["ci95"] or [scores[0]["mean"]])[0]
    return {
        "whole": scores[0]["mean"],
        "other": scores[1]["mean"],
        "difference": scores[1]["mean"] - scores[0]["mean"],
        "is_within": scores[1]["mean"] >= low,
        "share_trained": other["env_steps"] / whole["env_steps"],
        "share_of_steps": (other["env_steps"] + other.get("evaluation_env_steps", 0))
        / whole["env_steps"],
    }


def _mean(pairs: list[Record], name: str) -> float:
    return float(np.mean([pair[name] for pair in pairs]))
