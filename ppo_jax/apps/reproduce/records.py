"""A cell's result as data: returns, curves and settings of every seed, and their machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppo_jax.analysis import stats
from ppo_jax.apps.reproduce import scoring, store, unfinished
from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.apps.reproduce.training import DIAGNOSTICS, Trained
from ppo_jax.apps.reproduce.unfinished import Job
from ppo_jax.distributed.layout import Layout, local_devices
from ppo_jax.runtime import evaluation
from ppo_jax.storage.fingerprint import fingerprint
from ppo_jax.storage.manifest import cores_in_words, make_manifest

CURVE_POINTS = 50
_MACHINE = ("platform", "device kind", "cores", "processor")


def record(
    job: Job, trained: Trained, members: slice, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Make the content of a cell's file: the seeds just run, added to those it already held."""
    cell = job.cell
    rows = {name: value[members] for name, value in trained.rows.items()}
    alive = rows["alive"][:, -1] > 0
    scores, training_returns = scores_of(cell, trained, rows, members, alive)
    edges = curve_edges(cell.config.num_iterations)
    curves = episode_curves(rows, edges)
    fresh = [
        {
            "seed": seed,
            "score": scores[i],
            "training_return": training_returns[i],
            "is_alive": bool(alive[i]),
            "curve": curves[i],
        }
        for i, seed in enumerate(job.seeds)
    ]
    batch = {
        "seeds": list(job.seeds),
        "diagnostics": diagnostics(rows, edges),
        "compile_seconds": round(trained.compile_seconds, 3),
        "train_seconds": round(trained.train_seconds, 3),
        "train_cpu_seconds": round(trained.train_cpu_seconds, 3),
        "evaluation_seconds": round(trained.evaluation_seconds, 3),
        "runs_side_by_side": len(trained.rows["alive"]),
        "env_steps_per_second": round(
            len(trained.rows["alive"]) * cell.config.trained_env_steps / trained.train_seconds
        ),
        "fingerprint": trained.fingerprint,
        "manifest": make_manifest(local_devices()),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    return {
        "format": store.FORMAT,
        "suite": cell.suite,
        "task": cell.task,
        "variant": cell.variant,
        "env": cell.config.env,
        "objective": cell.config.objective,
        "is_quick": cell.is_quick,
        "env_steps": cell.config.trained_env_steps,
        "full_env_steps": cell.full_env_steps,
        "protocol": protocol_words(cell),
        "seeds": sorted([*(before or {}).get("seeds", []), *fresh], key=lambda each: each["seed"]),
        "curve_env_steps": [int(edge) * cell.config.batch_size for edge in edges],
        "setting": store.setting_of(cell),
        "random": cell.random,
        "best": cell.best,
        "published": [reference._asdict() for reference in cell.published],
        "note": cell.note,
        "batches": [*(before or {}).get("batches", []), batch],
    }


def protocol_words(cell: Cell) -> str:
    """The rule for a seed's score, in words."""
    if cell.protocol == "training":
        return f"mean return of the last {cell.episodes} training episodes"
    return f"mean return of {cell.episodes} {cell.protocol} episodes after training"


def scores_of(
    cell: Cell, trained: Trained, rows: Mapping[str, np.ndarray], members: slice, alive: np.ndarray
) -> tuple[list[float | None], list[float | None]]:
    """Each seed's score by the cell's protocol, and its mean return at the end of training.

    A seed that turned non-finite has failed, and its score is None. Its mean return at the end of
    training is kept: it went on acting with its last finite parameters.
    """
    at_end = [
        scoring.last_episodes(returns, counts, cell.episodes)
        for returns, counts in zip(rows["episode_return_sum"], rows["num_episodes"], strict=True)
    ]
    if trained.played is None:
        return [x if ok else None for x, ok in zip(at_end, alive, strict=True)], at_end
    played = jax.tree.map(lambda leaf: leaf[members], trained.played)
    return evaluation.mean_returns(played, alive), at_end


def curve_edges(num_iterations: int) -> np.ndarray:
    """The last iteration of each of at most `CURVE_POINTS` windows of a run."""
    count = min(CURVE_POINTS, num_iterations)
    return np.round(np.arange(1, count + 1) * num_iterations / count).astype(int)


def episode_curves(rows: Mapping[str, np.ndarray], edges: np.ndarray) -> list[list[float | None]]:
    """Mean return of the episodes that ended in each window, None if none did; seed by seed."""
    starts = np.r_[0, edges[:-1]]
    totals = np.add.reduceat(rows["episode_return_sum"].astype(np.float64), starts, axis=1)
    counts = np.add.reduceat(rows["num_episodes"].astype(np.float64), starts, axis=1)
    return [
        [_short(total / count) if count else None for total, count in zip(*pair, strict=True)]
        for pair in zip(totals, counts, strict=True)
    ]


def diagnostics(rows: Mapping[str, np.ndarray], edges: np.ndarray) -> dict[str, list[float | None]]:
    """IQM over these seeds of the trainer's diagnostics, window by window."""
    starts = np.r_[0, edges[:-1]]
    widths = np.diff(np.r_[0, edges])
    found = {}
    for name in DIAGNOSTICS:
        if name in rows:
            means = np.add.reduceat(rows[name].astype(np.float64), starts, axis=1) / widths
            found[name] = [_short(middle) for middle in stats.iqm(means, axis=0)]
    return found


def _short(value: float) -> float | None:
    """Round to six digits; None for a number that is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def machine_here() -> dict[str, Any]:
    """The class of this machine."""
    layout = Layout("vmap", local_devices(), 1)
    return _machine(fingerprint(layout))


def machine_of(folder: Path) -> dict[str, Any] | None:
    """The class of the machine that made a folder's results; None for several classes."""
    found = [*unfinished.machines(folder), *store.fingerprints(folder)]
    found = [_machine(each) for each in found]
    return found[0] if found and all(each == found[0] for each in found) else None


def _machine(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given.get(name) for name in _MACHINE}


def machines(contents: Iterable[Mapping[str, Any]]) -> list[str]:
    """Describe the machines of some results, each in words."""
    words = set()
    for content in contents:
        for batch in content["batches"]:
            given = batch["fingerprint"]
            device = given.get("device kind") or given["platform"]
            kind = "" if given["platform"] == "cpu" else f", {device}"
            words.add(f"{given['processor']}, {cores_in_words(given['cores'])}{kind}")
    return sorted(words)
