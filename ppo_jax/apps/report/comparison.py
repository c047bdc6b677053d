"""Groups of runs side by side: difference, interval, probability of improvement, seeds needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
        InputError: fewer than two groups, several environments, a run without a final return, or
            files that are missing or damaged.
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
    runs = run_data.collect(folders)["runs"]
    for run in runs:
        if final_return(run) is None:
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

    Args:
        groups: places of each group's runs.
        places: places of the environment's runs.

    Raises:
        InputError: a group has runs of this environment and of another one.
    """
    own = [group for group in groups if set(group) & set(places)]
    for group, name in zip(own, named(runs, own), strict=True):
        if not set(group) <= set(places):
            raise InputError(f"The group {name.label!r} has several environments: group one's.")
    known = [group for group in own if all(final_return(runs[i]) is not None for i in group)]
    if not 2 <= len(known) <= run_data.MAX_COMPARED:
        return None
    return compared(runs, named(runs, known))


def final_return(run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The final return of a run; None if it has none, or every seed failed."""
    final = (run["summary"] or {}).get("final_return")
    return final if final is not None and final["iqm"] is not None else None


def compared(
    runs: Sequence[Mapping[str, Any]], groups: Sequence[Group], margin: float | None = None
) -> dict[str, Any]:
    """Compare each group with the first; a failed seed counts as the lowest return of all.

    The first group has no verdict, and its difference, interval and probability are None.
    """
    samples = [
        [score for i in group.places for score in runs[i]["summary"]["final_return"]["per_seed"]]
        for group in groups
    ]
    living = [score for sample in samples for score in stats.known(sample)]
    low, high, source = range_of(runs, groups, living)
    every = [runs[i] for group in groups for i in group.places]
    changed = {name: x for run in every for name, x in run["hyper"]["env"].items()}
    limits = ranges.limits(every[0]["env"], changed)
    chosen = verdicts.margin_of(low, high) if margin is None else margin
    worst = min(living)
    whole = [[worst if score is None else score for score in sample] for sample in samples]
    rows = []
    for group, sample, scores in zip(groups, samples, whole, strict=True):
        rows.append(
            {
                "label": group.label,
                "runs": list(group.places),
                "num_seeds": len(sample),
                **stats.summarise(sample, limits=limits),
                "margin": chosen,
                **beside(scores, whole[0] if rows else None, chosen),
            }
        )
    return {
        "env": every[0]["env"],
        "groups": rows,
        "margin": chosen,
        "range": None if margin is not None else {"low": low, "high": high, "source": source},
        "notes": notes(runs, groups, rows),
    }


NOTHING = ("word", "difference", "difference_ci95", "seeds_needed", "verdict", "probability")


def beside(scores: Sequence[float], first: Sequence[float] | None, margin: float) -> dict[str, Any]:
    """Compare a group's scores [S] with the first group's; all is None for the first itself."""
    if first is None:
        return dict.fromkeys(NOTHING)
    found = verdicts.between([scores], [first], margin)
    return {
        "word": found.word,
        "difference": found.difference,
        "difference_ci95": found.ci95,
        "seeds_needed": found.seeds_needed,
        "verdict": verdicts.described(found),
        "probability": stats.probability_of_improvement(scores, first),
    }


def range_of(
    runs: Sequence[Mapping[str, Any]], groups: Sequence[Group], living: Sequence[float]
) -> tuple[float, float, str]:
    """Range of returns, and the words for its two ends.

    An environment that ranges.csv does not know ranges from the lowest return at the start of
    training to the best seed.
    """
    known = ranges.ranges().get(runs[groups[0].places[0]]["env"])
    if known is not None:
        return known.random, known.best, f"random actions to {known.source}"
    curves = [runs[i]["curve"]["iqm"] for group in groups for i in group.places]
    starts = [next((x for x in curve if x is not None), None) for curve in curves]
    low = min([x for x in starts if x is not None], default=min(living))
    return low, max(living), "the start of training to the best seed"


def notes(
    runs: Sequence[Mapping[str, Any]], groups: Sequence[Group], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Sentences on what makes the groups unlike, and on failed seeds."""
    every = [runs[i] for group in groups for i in group.places]
    found = []
    steps = sorted({run["env_steps"] for run in every})
    if steps[-1] > 1.05 * steps[0]:
        found.append(f"The runs took {steps[0]:,} to {steps[-1]:,} environment steps a seed.")
    modes = sorted({run["summary"]["policy_mode"] for run in every})
    if len(modes) > 1:
        found.append(f"The policies acted by several modes: {', '.join(modes)}.")
    failed = sum(row["num_failed"] for row in rows)
    if failed:
        found.append(f"Failed seeds count as the lowest return of all: {failed}.")
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
