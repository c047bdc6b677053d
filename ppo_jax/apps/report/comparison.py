"""Groups of runs side by side: difference, interval, probability of improvement, seeds needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.analysis import ranges, stats, verdicts
from ppo_jax.apps.report import run_data
from ppo_jax.apps.reproduce.tables import aligned, interval, number
from ppo_jax.config.errors import InputError
from ppo_jax.storage.run_folder import is_run

HEAD = ("runs", "IQM [95%]", "mean", "seeds", "difference [95%]", "P(better)", "verdict")


class Group(NamedTuple):
    """Runs of one method: the seeds of all of them are compared as one sample."""

    label: str
    places: tuple[int, ...]  # in the list of runs


def compare(words: Sequence[str], margin: float | None = None) -> dict[str, Any]:
    """Compare groups of runs with the first one.

    Args:
        words: a run's folder each, or several folders of one group with commas between them.
        margin: half-width of equality in returns; None for 5% of the environment's range.

    Raises:
        InputError: fewer than two groups, several environments, a run that was not evaluated, the
            same seeds of a setting twice in a group, no seed that has not failed, or files that are
            missing or damaged.
    """
    if len(words) < 2:
        raise InputError(
            "compare needs two runs or more, for example: ppo-jax compare runs/a runs/b."
        )
    parts = [members(word) for word in words]
    folders = [Path(part) for group in parts for part in group]
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{str(folder)!r} is no run's folder (there is no config.json in it): name the "
                "folders of runs."
            )
    runs = run_data.collect(folders, most=None)["runs"]
    for run in runs:
        if not is_evaluated(run):
            raise InputError(
                f"The run {run['label']!r} has no final return yet: go on with it by `ppo-jax "
                "resume`, or leave it out."
            )
    envs = sorted({run["env"] for run in runs})
    if len(envs) > 1:
        raise InputError(f"The runs have several environments ({', '.join(envs)}): compare one.")
    return compared(runs, named(runs, places_of(parts)), margin)


def members(word: str) -> list[str]:
    """The folders of a group: parts between commas, or the word itself if there is such a file.

    Raises:
        InputError: there is nothing between the commas.
    """
    if is_run(word) or Path(word).exists():
        return [word]
    parts = [part for part in word.split(",") if part]
    if not parts:
        raise InputError("A group without a run is named: write the folders between the commas.")
    return parts


def places_of(parts: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
    """The places of each group's folders in the list of all of them."""
    ends = [sum(map(len, parts[: i + 1])) for i in range(len(parts))]
    return [tuple(range(end - len(part), end)) for part, end in zip(parts, ends, strict=True)]


def named(runs: Sequence[Mapping[str, Any]], groups: Sequence[tuple[int, ...]]) -> list[Group]:
    return [Group(", ".join(runs[i]["label"] for i in places), places) for places in groups]


def by_group(
    runs: Sequence[Mapping[str, Any]], groups: Sequence[tuple[int, ...]], places: Sequence[int]
) -> dict[str, Any] | None:
    """Compare the groups of an environment whose runs are all evaluated; None if too few.

    A note names the groups that are left out.

    Args:
        groups: places of each group's runs.
        places: places of the environment's runs.

    Raises:
        InputError: a group has runs of this environment and of another one, or the same seeds of a
            setting twice.
    """
    own = [group for group in groups if set(group) & set(places)]
    for group, name in zip(own, named(runs, own), strict=True):
        if not set(group) <= set(places):
            raise InputError(f"The group {name.label!r} has several environments: group one's.")
    known = [group for group in own if all(is_evaluated(runs[i]) for i in group)]
    if not 2 <= len(known) <= run_data.MAX_COMPARED or not living(runs, known):
        return None
    found = compared(runs, named(runs, known))
    for group in named(runs, [group for group in own if group not in known]):
        found["notes"].append(f"{group.label} is left out: it has no final return yet.")
    return found


def is_evaluated(run: Mapping[str, Any]) -> bool:
    """True of a run with a final return, also if every seed failed."""
    summary = run["summary"]
    return summary is not None and (
        summary["final_return"]["iqm"] is not None or summary["episodes_per_seed"] > 0
    )


def improvements(runs: Sequence[Mapping[str, Any]], places: Sequence[int]) -> dict[str, Any] | None:
    """P(a seed of one run returns more than a seed of another), for all pairs of runs.

    Args:
        places: places of an environment's runs.
    """
    known = [i for i in places if is_evaluated(runs[i])]
    groups = [(i,) for i in known]
    if not 2 <= len(known) <= run_data.MAX_COMPARED or not living(runs, groups):
        return None
    least = min(range_of(runs, groups)[0], *living(runs, groups))
    whole = [verdicts.completed(sample, least) for sample in samples(runs, groups)]
    pairs = [
        [None if x is y else stats.probability_of_improvement(x, y) for y in whole] for x in whole
    ]
    return {"env": runs[places[0]]["env"], "runs": known, "probability": pairs}


def samples(
    runs: Sequence[Mapping[str, Any]], groups: Sequence[tuple[int, ...]]
) -> list[list[float | None]]:
    """The final returns of each group's seeds; None of a failed one."""
    return [
        [score for i in group for score in runs[i]["summary"]["final_return"]["per_seed"]]
        for group in groups
    ]


def living(runs: Sequence[Mapping[str, Any]], groups: Sequence[tuple[int, ...]]) -> list[float]:
    """The final returns of all seeds that have not failed."""
    return [score for sample in samples(runs, groups) for score in stats.known(sample)]


def compared(
    runs: Sequence[Mapping[str, Any]], groups: Sequence[Group], margin: float | None = None
) -> dict[str, Any]:
    """Compare each group with the first.

    A failed seed counts as the lower end of the range, or as the lowest return if that is less.
    If any seed failed, all differences are those of the means, because an IQM leaves out up to a
    quarter of failed seeds. The first group has no verdict, and its difference, interval and
    probability are None.

    Raises:
        InputError: the same seeds of a setting twice in a group, or every seed failed.
    """
    places = [group.places for group in groups]
    for group in groups:
        _refuse_repeated(runs, group)
    if not living(runs, places):
        raise InputError("Every seed of every run failed: there is nothing to compare.")
    low, high, source = range_of(runs, places)
    least = min(low, *living(runs, places))
    every = [runs[i] for group in places for i in group]
    limits = ranges.limits(every[0]["env"], _changed(every))
    chosen = verdicts.margin_of(low, high) if margin is None else margin
    found = samples(runs, places)
    has_failed = any(None in sample for sample in found)
    statistic = np.mean if has_failed else stats.iqm
    first, *_ = whole = [verdicts.completed(sample, least) for sample in found]
    rows = []
    for group, sample, scores in zip(groups, found, whole, strict=True):
        rows.append(
            {
                "label": group.label,
                "runs": list(group.places),
                "num_seeds": len(sample),
                **stats.summarise(sample, limits=limits),
                "margin": chosen,
                **beside(scores, first if rows else None, chosen, statistic),
            }
        )
    return {
        "env": every[0]["env"],
        "groups": rows,
        "margin": chosen,
        "range": None if margin is not None else {"low": low, "high": high, "source": source},
        "notes": notes(every, rows, least),
    }


def _refuse_repeated(runs: Sequence[Mapping[str, Any]], group: Group) -> None:
    """Refuse the same seeds of a setting twice: they are no further evidence.

    Raises:
        InputError: two runs of the group have the same setting and a seed in common.
    """
    for k, i in enumerate(group.places):
        for j in group.places[:k]:
            first, second = runs[j], runs[i]
            starts = [run["options"].get("init_from") for run in (first, second)]
            is_same = all(first[part] == second[part] for part in ("config", "hyper"))
            if is_same and starts[0] == starts[1]:
                shared = set(_seeds(first)) & set(_seeds(second))
                if shared:
                    raise InputError(
                        f"The runs {first['label']!r} and {second['label']!r} of a group have the "
                        f"same setting and the same seed {min(shared)}: name one of them, or train "
                        "other seeds with --seed."
                    )


def _seeds(run: Mapping[str, Any]) -> range:
    first = run["options"].get("seed", 0)
    return range(first, first + run["options"]["seeds"])


NOTHING = ("word", "difference", "difference_ci95", "seeds_needed", "verdict", "probability")


def beside(
    scores: Sequence[float], first: Sequence[float] | None, margin: float, statistic: Any
) -> dict[str, Any]:
    """Compare a group's scores [S] with the first group's; all is None for the first itself."""
    if first is None:
        return dict.fromkeys(NOTHING)
    found = verdicts.between([scores], [first], margin, statistic)
    return {
        "word": found.word,
        "difference": found.difference,
        "difference_ci95": found.ci95,
        "seeds_needed": found.seeds_needed,
        "verdict": verdicts.described(found),
        "probability": stats.probability_of_improvement(scores, first),
    }


def range_of(
    runs: Sequence[Mapping[str, Any]], groups: Sequence[tuple[int, ...]]
) -> tuple[float, float, str]:
    """Range of returns, and the words for its two ends.

    An environment that ranges.csv does not know, or knows with other parameters, ranges from the
    lowest return at the start of training to the best seed.
    """
    every = [runs[i] for group in groups for i in group]
    known = ranges.ranges().get(every[0]["env"])
    if known is not None and all(run["hyper"]["env"] == known.parameters for run in every):
        return known.random, known.best, f"random actions to {known.source}"
    scores = living(runs, groups)
    starts = [next((x for x in run["curve"]["iqm"] if x is not None), None) for run in every]
    low = min([x for x in starts if x is not None], default=min(scores))
    return low, max(scores), "the start of training to the best seed"


def _changed(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The environment's parameters that a run changed."""
    return {name: x for run in every for name, x in run["hyper"]["env"].items()}


def notes(
    every: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], least: float
) -> list[str]:
    """Sentences on what makes the groups unlike, and on failed seeds."""
    found = []
    steps = sorted({run["env_steps"] for run in every})
    if steps[-1] > 1.05 * steps[0]:
        found.append(f"The runs took {steps[0]:,} to {steps[-1]:,} environment steps a seed.")
    modes = sorted({run["summary"]["policy_mode"] for run in every})
    if len(modes) > 1:
        found.append(f"The policies acted by several modes: {', '.join(modes)}.")
    unlike = [
        name
        for name in _changed(every)
        if any(run["hyper"]["env"].get(name) != every[0]["hyper"]["env"].get(name) for run in every)
    ]
    if unlike:
        found.append(f"The runs' environments have several values of {', '.join(unlike)}.")
    failed = sum(row["num_failed"] for row in rows)
    if failed:
        found.append(
            f"{failed} seed{'s' * (failed > 1)} failed and counted as {number(least)}. All "
            "differences are those of the means, since an IQM may leave failed seeds out."
        )
    return found


def lines(found: Mapping[str, Any]) -> list[str]:
    """Describe a comparison in lines of text."""
    rows: list[tuple[str, ...]] = [HEAD]
    for place, row in enumerate(found["groups"]):
        ends = interval(row["ci95"])
        failed = f" ({row['num_failed']} failed)" if row["num_failed"] else ""
        shown = (
            ("–", "–", "compared with")
            if place == 0
            else (
                f"{row['difference']:+.4g} {interval_of(found, place)}".rstrip(),
                f"{row['probability']:.2f}",
                row["verdict"],
            )
        )
        mean = f"{number(row['iqm'])} {ends}".rstrip()
        seeds = f"{row['num_seeds']}{failed}"
        rows.append((row["label"], mean, number(row["mean"]), seeds, *shown))
    told = [found["env"], "", *aligned(rows), ""]
    told.append(f"margin    {found['margin']:.4g}{margin_words(found)}")
    return [*told, *(f"note      {note}" for note in found["notes"])]


def margin_words(found: Mapping[str, Any]) -> str:
    """Name the source of the margin."""
    ends = found["range"]
    if ends is None:
        return ", as given"
    return (
        f", {verdicts.MARGIN:.0%} of the range {number(ends['low'])} to {number(ends['high'])} "
        f"({ends['source']}); --margin sets it"
    )


def interval_of(found: Mapping[str, Any], place: int) -> str:
    ends = found["groups"][place]["difference_ci95"]
    return "" if ends is None else f"[{ends[0]:+.4g}, {ends[1]:+.4g}]"
