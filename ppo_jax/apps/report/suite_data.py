"""The data of a suite's page, from its stored results: tables, curves, settings, machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.analysis import plots, stats
from ppo_jax.apps.report.run_data import short
from ppo_jax.apps.reproduce import comparison, scoring, specs, store, tables
from ppo_jax.apps.reproduce.specs import Suite
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import with_new_fields
from ppo_jax.config.reading import expect, read_json

PROFILE_POINTS = 61
PROFILE_RESAMPLES = 1000
_SPEED = (
    *("compile_seconds", "train_seconds", "train_cpu_seconds", "evaluation_seconds"),
    *("runs_side_by_side", "env_steps_per_second", "date"),
)


class Place(NamedTuple):
    """A suite, and the folder that holds its results."""

    suite: Suite
    folder: Path


def find(word: str, results: Path | None, is_quick: bool) -> Place:
    """Find the suite that a word means: its name, a FILE.toml, or the folder of its results.

    Args:
        results: the folder of the results; None for the newest one in benchmarks/results,
            or in the package.

    Raises:
        InputError: no such suite, or no results of it.
    """
    path = Path(word)
    if path.is_dir():
        if results is not None:
            raise InputError(
                f"{word!r} is a folder itself: name the suite, or leave out --results."
            )
        name, was_quick = _named_in(path)
        if name not in specs.names():
            raise InputError(
                f"{word!r} holds results of {name!r}, which is no suite of the package: give its "
                f"file, `ppo-jax report FILE.toml --results {word}`."
            )
        return Place(specs.load(name, was_quick), path)
    suite = specs.load(word, is_quick)
    if results is None:
        there = [
            folder
            for platform in ("cpu", "gpu", "tpu")
            for folder in store.readable(suite.name, platform, is_quick)
        ]
        if not there:
            quick = " --quick" if is_quick else ""
            raise InputError(
                f"There are no results of {word!r} in {str(store.RESULTS)!r}: run `ppo-jax "
                f"reproduce {word}{quick}` first, or name their folder with --results."
            )
        # A folder's name ends with its date: SUITE_PLATFORM_DATE.
        results = max(there, key=lambda folder: folder.name.split("_")[2:])
    elif not results.is_dir():
        raise InputError(f"results={str(results)!r} is no folder.")
    return Place(suite, results)


def _named_in(folder: Path) -> tuple[str, bool]:
    """Read the suite of a folder's files, and if they have the smaller budget."""
    for path in sorted(folder.glob("*__*.json")):
        try:
            content = expect(read_json(path), {"suite": str, "is_quick": bool})
            return content["suite"], content["is_quick"]
        except (OSError, ValueError):
            continue
    raise InputError(f"{str(folder)!r} holds no result of a suite that can be read.")


def collect(place: Place) -> dict[str, Any]:
    """Collect the data of a suite's page; statistics are computed from the seeds again.

    Raises:
        InputError: no result is valid.
    """
    suite, folder = place
    notes = [f"{suite.name}/{name} has no setting: no preset" for name in suite.missing]
    found = [(cell, store.read_result(folder, cell)) for cell in suite.cells]
    problems = [f"{stored.problem}: it is not used." for _, stored in found if stored.problem]
    rows, lacking, machines = comparison.measured_rows(folder, suite)
    if not rows:
        why = f" {problems[0]}" if problems else ""
        raise InputError(f"{str(folder)!r} holds no result of {suite.name} that can be used.{why}")
    judged = [scoring.judge(suite, rows, claim) for claim in suite.claims]
    variants = scoring.variants(suite, rows) if suite.is_normalised else []
    table = tables.Table(
        suite, rows, variants, judged, lacking, [*notes, *problems], machines, str(folder)
    )
    data = tables.table_data(table)
    contents = {cell.name: stored.content for cell, stored in found if stored.content}
    wanted = {cell.name: scoring.wanted_seeds(cell) for cell in suite.cells}
    recorded = {name: with_new_fields(content["setting"]) for name, content in contents.items()}
    settings = common_and_own(recorded)
    for cell in data["cells"]:
        content = contents[cell["cell"]]
        cell.update(_more(content, wanted[cell["cell"]]), own_setting=settings[1][cell["cell"]])
    return {
        "kind": "suite",
        **data,
        "title": suite.title,
        "about": suite.about,
        "folder": folder.name,
        "setting": settings[0],
        "variant_published": {
            name: reference._asdict() for name, reference in suite.variant_published.items()
        },
        "profiles": profiles(suite, rows, variants),
        "manifests": _manifests(contents.values()),
    }


def _more(content: Mapping[str, Any], wanted: range) -> dict[str, Any]:
    """The other contents of a cell's file, over the seeds that its scores count."""
    seeds = sorted(
        (each for each in content["seeds"] if each["seed"] in wanted), key=lambda each: each["seed"]
    )
    steps = np.array(content["curve_env_steps"], np.float64)
    curves = [each["curve"] for each in seeds]
    returns = np.array(curves, np.float64).T  # null becomes NaN
    middle, low, high = plots.summary_curve(returns.reshape(len(steps), len(curves)))
    return {
        "task": content["task"],
        "variant": content["variant"],
        "protocol": content["protocol"],
        "note": content["note"],
        "random": content["random"],
        "best": content["best"],
        "seeds": [each["seed"] for each in seeds],
        "wanted_seeds": len(wanted),
        "curve": {
            "env_steps": [int(step) for step in steps],
            "iqm": short(middle),
            "low": short(low),
            "high": short(high),
        },
        "batches": [{name: batch.get(name) for name in _SPEED} for batch in content["batches"]],
    }


def profiles(
    suite: Suite, rows: Sequence[scoring.Measured], variants: Sequence[scoring.Variant]
) -> dict[str, dict[str, Any]]:
    """Share of runs above each normalised score, with pointwise 95% intervals by task.

    Agarwal et al. 2021, section 4.2.
    """
    groups = {each.name: scoring.scores_of(suite, rows, each.name) or {} for each in variants}
    every = [score for tasks in groups.values() for group in tasks.values() for score in group]
    if not every:
        return {}
    low, high = max(-0.5, min(0.0, min(every))), max(1.0, max(every))
    thresholds = np.linspace(low, high, PROFILE_POINTS)
    found = {}
    for name, tasks in groups.items():
        scores = list(tasks.values())
        middle = stats.performance_profile(np.concatenate(scores), thresholds)
        entry = {"score": short(thresholds), "share": short(middle)}
        if min(len(group) for group in scores) > 1:
            generator = np.random.default_rng(0)
            drawn = stats.stratified_resamples(scores, PROFILE_RESAMPLES, generator)
            shares = np.array([(drawn > threshold).mean(axis=1) for threshold in thresholds])
            ends = np.quantile(shares, [0.025, 0.975], axis=1)
            entry |= {"low": short(ends[0]), "high": short(ends[1])}
        found[name] = entry
    return found


def common_and_own(
    settings: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Split settings into those that all cells share and those of each cell."""
    flat = {name: flattened(setting) for name, setting in settings.items()}
    names = list(dict.fromkeys(key for each in flat.values() for key in each))
    common = {}
    for key in names:
        values = [json.dumps(each.get(key)) for each in flat.values()]
        if len(set(values)) == 1 and all(key in each for each in flat.values()):
            common[key] = next(iter(flat.values()))[key]
    own = {
        name: {key: value for key, value in each.items() if key not in common}
        for name, each in flat.items()
    }
    return common, own


def flattened(table: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten config and hyper to one table; the environment's parameters become env.NAME."""
    flat = {}
    for name, value in table.items():
        if name in ("config", "hyper") and isinstance(value, Mapping):
            params = value.get("env") if name == "hyper" else None
            flat |= {k: v for k, v in value.items() if not (name == "hyper" and k == "env")}
            flat |= {f"env.{k}": v for k, v in (params or {}).items()}
        else:
            flat[name] = value
    return flat


def _manifests(contents: Any) -> list[dict[str, Any]]:
    """The versions and machines of the results, each once."""
    found = {}
    for content in contents:
        for batch in content["batches"]:
            manifest = batch["manifest"]
            entry = {
                **{name: manifest.get(name) for name in ("versions", "python", "machine", "cores")},
                "devices": manifest.get("devices"),
                "xla_flags": manifest.get("xla_flags"),
                "processor": batch["fingerprint"].get("processor"),
            }
            key = json.dumps(entry, sort_keys=True)
            kept = found.setdefault(key, {**entry, "git": [], "dates": []})
            for name, value in (("git", manifest.get("git")), ("dates", batch.get("date"))):
                if value and value not in kept[name]:
                    kept[name].append(value)
    return list(found.values())
