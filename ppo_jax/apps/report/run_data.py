"""The data of a page of runs: read from their folders, checked, and thinned for a screen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.analysis import plots, ranges, stats
from ppo_jax.analysis.thinning import strided, thinned_rows
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import with_new_fields
from ppo_jax.config.reading import read_record
from ppo_jax.rl.metrics import CHANGE, ENV_PREFIX, FILE, METRICS, describe
from ppo_jax.storage import jsonl, run_list
from ppo_jax.storage.files import to_json
from ppo_jax.storage.manifest import MANIFEST
from ppo_jax.storage.run_folder import FORMAT, SUMMARY

_CONFIG = {
    "config": {"env": str, "objective": str},
    "hyper": {"learning_rate": (float, str), "env?": (dict, None)},
    "options": {"seeds": int, "seed?": int},
}
MAX_RUNS = 24  # limit of a page, whose size grows with them
MANY_RUNS = 6  # from here on curves have fewer points, and single seeds are not drawn
DIAGNOSTIC_POINTS = 60
LARGEST = 1e150  # a larger number overflows where curves are averaged and drawn
MAX_TIMES = 1_000  # rows of timing.jsonl in memory, of which a chart shows fewer
MAX_COMPARED = 6  # runs in a table of everyone against everyone
# The charts of a page. Training returns have a section of their own.
DIAGNOSTICS = tuple(
    name for name, metric in METRICS.items() if metric.shown != FILE and name != "episode_return"
)


def collect(folders: Sequence[Path], most: int | None = MAX_RUNS) -> dict[str, Any]:
    """Collect the data of a page of runs.

    Args:
        most: limit on their number; None for as many as there are.

    Raises:
        InputError: too many, the same one twice, or one whose files are missing or damaged.
    """
    if most is not None and len(folders) > most:
        raise InputError(f"{len(folders)} runs are too many for a page: give at most {most}.")
    places = [folder.resolve() for folder in folders]
    twice = next((f for i, f in enumerate(folders) if places[i] in places[:i]), None)
    if twice is not None:
        raise InputError(f"The run {str(twice)!r} is named twice: name every run once.")
    names = [place.name for place in places]
    labels = [
        name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders)
    ]
    many = len(folders) > MANY_RUNS
    return {
        "kind": "runs",
        "defaults": to_json({"config": vars(Config()), "hyper": vars(Hyper())}),
        "runs": [read(folder, label, many) for folder, label in zip(folders, labels)],
    }


def read(folder: Path, label: str, is_one_of_many: bool = False) -> dict[str, Any]:
    """Read one run: settings, summary, machine, curves and diagnostics.

    Raises:
        InputError: a file that is missing, cannot be read, or contradicts itself.
    """
    described = read_record(folder / "config.json", {"format": int})
    if described["format"] != FORMAT:
        raise InputError(
            f"{str(folder / 'config.json')!r} has format {described.get('format')!r}; this version "
            f"reads {FORMAT}."
        )
    described = read_record(folder / "config.json", _CONFIG)
    tables = {name: described[name] for name in ("config", "hyper", "options")}
    config, hyper, options = with_new_fields(tables).values()
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        raise InputError(
            f"The run {str(folder)!r} has no metrics.jsonl: nothing was logged in it, or it was "
            "removed."
        )
    rows, last_step = _rows(metrics, options)
    limits = ranges.limits(config["env"], hyper["env"])
    summary = _summary(folder, config)
    manifest = folder / "manifest.json"
    env_steps = last_step if summary is None else summary["env_steps"]
    return {
        "label": label,
        "env": str(config["env"]) if summary is None else str(summary["env"]),
        "objective": str(config["objective"]),
        "num_seeds": int(options["seeds"]),
        "env_steps": env_steps,
        "total_env_steps": options["seeds"] * env_steps,
        "summary": summary,
        "curve": curve(rows, not is_one_of_many, limits),
        "diagnostics": diagnostics(rows),
        "speed": speed(folder / "timing.jsonl"),
        "config": config,
        "hyper": hyper,
        "options": options,
        "manifest": read_record(manifest, MANIFEST) if manifest.is_file() else {},
    }


def curve(
    rows: Sequence[Mapping[str, Any]], with_seeds: bool, limits: tuple[float, float]
) -> dict[str, Any]:
    """IQM over seeds of the training return and its 95% interval, by environment steps."""
    steps, returns = plots.curves(rows)
    if not with_seeds:
        steps, returns = thinned(steps, returns, DIAGNOSTIC_POINTS)
    middle, low, high = plots.summary_curve(returns, limits)
    found = {"env_steps": steps, "iqm": middle, "low": low, "high": high}
    if with_seeds and returns.shape[1] > 1:
        found["per_seed"] = returns.T
    return {name: short(values) for name, values in found.items()}


def diagnostics(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Curves of the other metrics that a report shows, as far as the run logged them."""
    found = {}
    for name in _shown(rows[0]):
        known = [row for row in rows if name in row]
        renamed = [{"env_steps": r["env_steps"], "episode_return": r[name]} for r in known]
        steps, values = plots.curves(renamed)
        finite = values[np.isfinite(values)]
        is_constant = finite.size > 0 and finite.min() == finite.max()
        if not finite.size or (is_constant and describe(name).shown == CHANGE):
            continue
        steps, values = thinned(steps, values, DIAGNOSTIC_POINTS)
        middle, low, high = plots.summary_curve(values)
        parts = {"env_steps": steps, "iqm": middle, "low": low, "high": high}
        found[name] = {key: short(part) for key, part in parts.items()}
    return found


def _shown(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The charts' metrics: those of every run, and the environment's own that a row has."""
    return (*DIAGNOSTICS, *sorted(name for name in row if name.startswith(ENV_PREFIX)))


def thinned(steps: np.ndarray, values: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Thin curves to at most `points`: means of neighbours over the known values of each seed."""
    group = -(-len(steps) // points)
    if group <= 1:
        return steps, values
    edges = range(0, len(steps), group)
    blocks = [values[edge : edge + group] for edge in edges]
    counts = [np.isfinite(block).sum(axis=0) for block in blocks]
    means = [
        np.where(count > 0, np.nansum(block, axis=0) / np.maximum(count, 1), np.nan)
        for block, count in zip(blocks, counts)
    ]
    return np.array([steps[edge : edge + group].mean() for edge in edges]), np.array(means)


def speed(path: Path) -> dict[str, Any] | None:
    """Environment steps per second of all seeds over the training."""
    rows = jsonl.stream_jsonl(path) if path.is_file() else iter(())
    known = strided((row for row in rows if _is_timed(row)), MAX_TIMES)
    if not known:
        return None
    every = -(-len(known) // DIAGNOSTIC_POINTS)
    return {
        "env_steps": [row["env_steps"] for row in known[::every]],
        "env_steps_per_second": short([row["env_steps_per_second"] for row in known[::every]]),
    }


def short(values: Any) -> Any:
    """Round each number of an array to six digits; None if it is not finite."""
    if isinstance(values, np.ndarray | list):
        return [short(value) for value in values]
    return float(f"{float(values):.6g}") if math.isfinite(values) else None


def is_number(value: Any) -> bool:
    is_plain = isinstance(value, int | float) and not isinstance(value, bool)
    return is_plain and abs(value) < LARGEST


def _is_timed(row: Mapping[str, Any]) -> bool:
    return is_number(row.get("env_steps")) and is_number(row.get("env_steps_per_second"))


def _rows(path: Path, options: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Read and thin metrics.jsonl; also return the steps of its last row."""
    steps = [0]
    first = next(_whole_rows(path, options, steps), {})
    names = (*_shown(first), "episode_return")
    rows = thinned_rows(_whole_rows(path, options, steps), names)
    if not rows:
        raise InputError(f"{str(path)!r} has no rows yet: the run has logged nothing.")
    return rows, steps[0]


def _whole_rows(
    path: Path, options: Mapping[str, Any], steps: list[int]
) -> Iterator[dict[str, Any]]:
    """Read rows one by one: each has a number or None for every seed.

    Args:
        steps: its one number becomes that of the newest row.
    """
    for number, row in enumerate(jsonl.stream_jsonl(path), 1):
        returns = row.get("episode_return")
        lists = [row[name] for name in _shown(row) if name in row] + [returns]
        is_whole = is_number(row.get("env_steps")) and all(
            isinstance(values, list)
            and len(values) == options.get("seeds")
            and all(value is None or is_number(value) for value in values)
            for values in lists
        )
        if not is_whole:
            raise InputError(
                f"{str(path)!r} is damaged: line {number} lacks a number for each of the run's "
                "seeds."
            )
        steps[0] = row["env_steps"]
        yield row


def _summary(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read summary.json, whose statistics must follow from its seeds; None of a run in training."""
    path = folder / "summary.json"
    if not path.is_file():
        return None
    summary = read_record(path, SUMMARY)
    final = summary["final_return"]
    per_seed = final["per_seed"]
    ends = final.get("ci95") or [0.0, 0.0]
    known = [value for value in [*per_seed, *ends] if value is not None]
    if not per_seed or not all(map(is_number, known)):
        raise InputError(f"{str(path)!r} is damaged: it has no return of each seed.")
    again = stats.summarise(per_seed)
    for name in ("iqm", "mean"):
        stored, computed = final.get(name), again[name]
        if name == "mean" and name not in final:
            final[name] = stored = computed  # an older file has no mean
        is_same = stored == computed or (
            stored is not None
            and computed is not None
            and is_number(stored)
            and math.isclose(stored, computed, rel_tol=1e-6)
        )
        if not is_same:
            raise InputError(
                f"{str(path)!r} is damaged: its {name} is {stored}, but its seeds give {computed}."
            )
    return None if run_list.is_outdated(folder, summary, config) else summary
