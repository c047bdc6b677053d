"""Runs in a folder, newest first, read from their files alone."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.config import reading
from ppo_jax.config.errors import InputError
from ppo_jax.storage import lock
from ppo_jax.storage.run_folder import RUNS, SUMMARY

_TAIL = 1 << 18  # bytes at the end of a log that are looked at
_TOUCHED = ("config.json", "timing.jsonl", "summary.json")  # the newest of them dates a run
_SHAPE = {"config": dict, "options": dict}


class RunRow(NamedTuple):
    """One run of a list."""

    run: str
    state: str  # training, done, failed, stopped, killed or damaged
    env: str | None
    objective: str | None
    seeds: int | None
    env_steps: int  # so far, of one seed
    total_env_steps: int | None
    score: float | None  # IQM of the final returns
    training_return: float | None  # mean of the newest row, if there is no score yet
    seconds_ago: float  # since its files last changed


def newest_first(parent: Path) -> list[Path]:
    """The folders of runs in `parent`, by the time of their last change."""
    with suppress(OSError):
        found = [(_changed(path.parent), path.parent) for path in parent.glob("*/config.json")]
        return [path for _, path in sorted(found, reverse=True)]
    return []


def newest(parent: Path = RUNS) -> Path:
    """The newest run.

    Raises:
        InputError: there is none.
    """
    found = newest_first(parent)
    if not found:
        raise InputError(
            f"There is no run in {str(parent)!r}: name a run's folder, or start one, for example: "
            "ppo-jax train CartPole-v1."
        )
    return found[0]


def describe(folder: Path) -> RunRow:
    """The state of one run, whatever its files hold."""
    changed = max(0.0, time.time() - _changed(folder))
    try:
        record = reading.expect(reading.read_json(folder / "config.json"), _SHAPE)
    except (OSError, ValueError):
        return RunRow(str(folder), "damaged", None, None, None, 0, None, None, None, changed)
    config, options = record["config"], record["options"]
    summary, steps = _summary(folder), _last_row(folder / "timing.jsonl").get("env_steps")
    if summary is not None and is_outdated(folder, summary, config):
        summary = None
    is_done = summary is not None and summary.get("stopped_by") is None
    if lock.is_held(folder):
        state = "training"
    elif summary is None:
        state = "killed"
    elif not is_done:
        state = "stopped"
    else:
        state = "failed" if summary["num_failed"] == summary["num_seeds"] else "done"
    score = summary["final_return"]["iqm"] if summary is not None and is_done else None
    row = {} if score is not None else _last_row(folder / "metrics.jsonl")
    return RunRow(
        run=str(folder),
        state=state,
        env=_text(config.get("env")),
        objective=_text(config.get("objective")),
        seeds=_whole(options.get("seeds")),
        env_steps=summary["env_steps"] if summary and is_done else _whole(steps) or 0,
        total_env_steps=_whole(config.get("total_env_steps")),
        score=score,
        training_return=_mean(row.get("episode_return")),
        seconds_ago=changed,
    )


def is_outdated(folder: Path, summary: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Check whether a run went on after its summary was written, and is not over again.

    One that ended early is over before its budget: only later training shows that it went on.

    Args:
        config: the table `config` of its config.json.
    """
    done, last = summary["env_steps"], _last_row(folder / "timing.jsonl").get("env_steps")
    budget = _whole(config.get("total_env_steps")) or 0
    is_raised = summary.get("stopped_early") is False and done < budget
    return is_raised or (_whole(last) or 0) > done


def _changed(folder: Path) -> float:
    """The time of the last change of a run's own files."""
    times = [0.0]
    for name in _TOUCHED:
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times)


def _summary(folder: Path) -> dict[str, Any] | None:
    try:
        return reading.expect(reading.read_json(folder / "summary.json"), SUMMARY)
    except (OSError, ValueError):
        return None


def _last_row(path: Path) -> Mapping[str, Any]:
    """The last whole row of a log, empty if there is none that can be read."""
    try:
        with reading.open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read(_TAIL).split(b"\n")[:-1]  # after the last newline a row is not whole
        row = reading.parse_json(lines[-1]) if lines else {}
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def _text(value: Any) -> str | None:
    return " ".join(value.split()) if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _mean(values: Any) -> float | None:
    if not isinstance(values, list):
        return None
    known = [x for x in values if isinstance(x, int | float) and math.isfinite(x)]
    return sum(known) / len(known) if known else None
