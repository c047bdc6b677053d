"""The end of a run, or of one process's work on it: the summary, the curve and the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.analysis import plots, ranges
from ppo_jax.analysis.thinning import thinned_rows
from ppo_jax.apps.run.session import METRICS, RunStatus, Session, writing
from ppo_jax.distributed import population
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import evaluation, signals
from ppo_jax.storage import jsonl, run_folder
from ppo_jax.storage.files import replacing, write_json


class RunResult(NamedTuple):
    """The result of a run."""

    summary: dict[str, Any]  # the content of summary.json
    folder: Path
    state: TrainState  # [S, ...], a leading axis of seeds on every leaf
    exit_code: int  # 0 done, 1 every seed failed, 75 or 130 stopped: run it again


def conclude(
    session: Session, state: TrainState, status: RunStatus, compile_seconds: float
) -> RunResult:
    """Evaluate the final policies, and write the summary and the learning curve."""
    options, layout = session.options, session.layout
    alive = evaluation.alive_seeds(state, layout)
    session.progress.phase("evaluating")
    played = session.play(state, evaluation.FINAL)
    curve, logged = curve_of(session)
    summary = summary_of(
        session,
        status,
        compile_seconds,
        evaluation.summary(session.config, session.hyper, played, alive, options),
        learning_curve=str(curve) if curve else None,
    )
    with writing(session, status):
        draw_curve(session, curve, logged)
        write_json(session.folder / "summary.json", summary)
    # A signal that came meanwhile sets the exit code, although the run is complete.
    code = session.stop.exit_code or exit_code_of(summary)
    return RunResult(summary, session.folder, population.trimmed(state, layout), code)


def conclude_stopped(
    session: Session, state: TrainState, status: RunStatus, compile_seconds: float
) -> RunResult:
    """Write the summary of a run that goes on later; it has no evaluation yet."""
    seeds = session.options.seeds
    alive = evaluation.alive_seeds(state, session.layout)
    unknown = {
        "final_return": {"per_seed": [None] * seeds, "iqm": None, "ci95": None},
        "num_failed": int(np.sum(~alive)),
        "policy_mode": evaluation.policy_mode(session.config, session.options.policy_mode),
        "episodes_per_seed": 0,
        "episodes_cut": 0,
        "episodes_stalled": 0,
        "episode_length_mean": None,
    }
    curve, logged = curve_of(session)
    place = str(curve) if curve else None
    summary = summary_of(session, status, compile_seconds, unknown, learning_curve=place)
    with writing(session, status):
        draw_curve(session, curve, logged)
        write_json(session.folder / "summary.json", summary)
    code = session.stop.exit_code or signals.STOPPED
    return RunResult(summary, session.folder, population.trimmed(state, session.layout), code)


def curve_of(session: Session) -> tuple[Path | None, list[dict[str, Any]]]:
    """The file of the learning curve and its rows; no file if nothing is logged yet."""
    logged = thinned_rows(jsonl.stream_jsonl(session.folder / METRICS), ("episode_return",))
    return session.folder / "learning_curve.svg" if logged else None, logged


def draw_curve(session: Session, curve: Path | None, logged: list[dict[str, Any]]) -> None:
    """Write the learning curve, if there is one."""
    if curve is None:
        return
    seeds = session.options.seeds
    name = run_folder.env_name(session.config)
    with replacing(curve) as path:
        plots.learning_curve(
            logged,
            path,
            title=f"{name}, {session.config.objective}",
            subtitle=f"return while training, {seeds} seed{'s' * (seeds > 1)}",
            limits=ranges.limits(name, session.hyper.env),
        )


def summary_of(
    session: Session,
    status: RunStatus,
    compile_seconds: float,
    evaluated: dict[str, Any],
    learning_curve: str | None,
) -> dict[str, Any]:
    """The content of summary.json."""
    config, seeds = session.config, session.options.seeds
    env_steps = status.iteration * config.batch_size
    was_evaluated = evaluated["episodes_per_seed"] > 0
    return {
        "env": run_folder.env_name(config),
        "objective": config.objective,
        "num_seeds": seeds,
        "env_steps": env_steps,
        **evaluated,
        "compile_seconds": round(compile_seconds, 3),
        "train_seconds": round(status.train_seconds, 3),
        "env_steps_per_second": round(env_steps * seeds / max(status.train_seconds, 1e-9)),
        "stopped_early": env_steps < config.trained_env_steps,
        "stopped_by": None if status.is_over(config) and was_evaluated else session.stop.reason,
        "run": str(session.folder),
        "learning_curve": learning_curve,
    }


def exit_code_of(summary: dict[str, Any]) -> int:
    """0, or 1 if every seed failed."""
    return 1 if summary["num_failed"] == summary["num_seeds"] else 0
