"""Resuming: the settings, state and status of a saved run, and notes for the user."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.apps.run.cadence import log_steps
from ppo_jax.apps.run.saving import read_status
from ppo_jax.apps.run.session import METRICS, TIMING, RunStatus
from ppo_jax.config import layers, reading
from ppo_jax.config.config import Config, Hyper, Schedule, whole
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.options import CHANGEABLE, RunOptions, validate_options
from ppo_jax.config.reading import MAX_INT
from ppo_jax.config.trust import Trust
from ppo_jax.config.validate import check_count, validate
from ppo_jax.distributed import hosts
from ppo_jax.envs.registration import find
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime.saved_run import load_checkpoint, saved_like
from ppo_jax.runtime.text import quoted
from ppo_jax.storage import checkpoint, resume_point, run_folder
from ppo_jax.storage.files import to_json, write_json
from ppo_jax.storage.fingerprint import recorded_blocks
from ppo_jax.storage.manifest import MANIFEST
from ppo_jax.training import schedules

BUDGET = ("total_env_steps", "schedule_env_steps")
# Options of one start only, which a resumed run does not take over.
_NOT_INHERITED = {"max_seconds": None, "quiet": False, "resume": "never", "hosts": "none"}
_NOT_INHERITED |= {"coordinator": None, "num_hosts": None, "host_index": None}


class ResumedRun(NamedTuple):
    """A saved run with the settings that it goes on with."""

    config: Config
    hyper: Hyper
    options: RunOptions
    run_id: str | None
    is_changed: bool  # config.json must be written anew
    notes: list[str]  # for the user


def read_run(
    folder: Path,
    changes: dict[str, Any],
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
) -> ResumedRun:
    """The settings of a run with the allowed changes applied; nothing is written.

    Args:
        changes: fields by name: those of `options.CHANGEABLE`, total_env_steps (upwards only) and
            schedule_env_steps.

    Raises:
        InputError: no run folder, or a change that a run cannot go on with.
    """
    found = run_folder.read_settings(folder, env, network, trust)
    refuse_fixed_names(changes)
    host_changes = {name: value for name, value in changes.items() if name in CHANGEABLE}
    options = dataclasses.replace(
        found.options, **{**_NOT_INHERITED, **host_changes, "out": str(folder)}
    )
    config, hyper, options, notes = with_budget(found.config, found.hyper, options, changes)
    validate(config, hyper)
    validate_options(options)
    is_changed = (config, hyper) != (found.config, found.hyper)
    return ResumedRun(config, hyper, options, run_folder.run_id(folder), is_changed, notes)


def refuse_fixed_names(changes: dict[str, Any]) -> None:
    """Refuse a change of a setting that stays the same when a run goes on."""
    allowed = (*BUDGET, *CHANGEABLE)
    for name in changes:
        if name not in allowed:
            raise InputError(
                f"{name} cannot be changed when a run is resumed (only {', '.join(allowed)} can): "
                f"start a new run, with init_from where it should begin with this one's policy."
                + nearest(name, allowed)
            )


def with_budget(
    config: Config, hyper: Hyper, options: RunOptions, changes: dict[str, Any]
) -> tuple[Config, Hyper, RunOptions, list[str]]:
    """The settings with a raised budget and a moved end of schedules, and notes about both."""
    notes = []
    total = whole(changes.get("total_env_steps", config.total_env_steps))
    check_count("total_env_steps", total, 1, MAX_INT)
    if total < config.total_env_steps:
        raise InputError(
            f"total_env_steps={total} is less than the run's {config.total_env_steps}: a budget "
            "can only be raised."
        )
    horizon = hyper.schedule_env_steps or float(config.trained_env_steps)
    if total > config.total_env_steps:
        # The rows and the end of the schedules stay as they were planned.
        options = dataclasses.replace(options, log_every=log_steps(config, options))
        hyper = dataclasses.replace(hyper, schedule_env_steps=horizon)
        config = dataclasses.replace(config, total_env_steps=total)
        if _has_schedule(hyper) and "schedule_env_steps" not in changes:
            notes.append(
                f"The budget is raised to {config.trained_env_steps:,} environment steps a seed; "
                f"schedules still end at {horizon:,.0f} and keep their last value from there on "
                "(--schedule-env-steps moves their end)."
            )
    if "schedule_env_steps" in changes:
        end = changes["schedule_env_steps"]
        if shape := getattr(end, "shape", ()):
            raise InputError(f"schedule_env_steps has shape {shape}: give one number.")
        hyper = dataclasses.replace(hyper, schedule_env_steps=end)
        validate(config, hyper)  # it may be no number
        end = hyper.schedule_env_steps or float(config.trained_env_steps)  # 0: the whole budget
        if end != horizon:
            notes.append(
                f"Schedules end at {end:,.0f} environment steps from now on, and not at "
                f"{horizon:,.0f}."
            )
    return config, hyper, options, notes


def refuse_other_settings(
    saved_at: Path, config: Config, hyper: Hyper, options: RunOptions
) -> dict[str, Any]:
    """The changes that make the run in a folder the one asked for, for `--resume auto`.

    Raises:
        InputError: another run is there; the settings that differ are named.
    """
    given = [None if isinstance(x, str) else x for x in (config.env, config.network)]
    # Nothing of it is loaded before it is found to be the run that was asked for.
    found = run_folder.read_settings(saved_at, *given, trusted=True)
    there = run_folder.describe_run(found.config, found.hyper, found.options)
    asked = run_folder.describe_run(config, hyper, options)
    skipped = {*CHANGEABLE, *BUDGET, "out", "resume"}
    if found.config.total_env_steps != config.total_env_steps:
        skipped |= {"log_every"}  # a raised budget keeps its old rows
    # 0.1.0 had no such settings, and its runs go on without
    skipped |= {name for name in layers.BEFORE["config"] if not getattr(found.config, name)}
    changed = [
        f"{name} is {asked[table][name]} and was {there[table][name]}"
        for table in ("config", "hyper", "options")
        for name in there[table]
        if name not in skipped and to_json(asked[table][name]) != to_json(there[table][name])
    ]
    if changed:
        raise InputError(
            f"--resume auto finds another run in {str(saved_at)!r} ({'; '.join(changed[:4])}): "
            "name a folder of its own with --out, or give the settings of that run."
        )
    changes = {name: getattr(options, name) for name in CHANGEABLE}
    if config.total_env_steps != found.config.total_env_steps:
        changes["total_env_steps"] = config.total_env_steps
    if hyper.schedule_env_steps not in (0, found.hyper.schedule_env_steps):
        changes["schedule_env_steps"] = hyper.schedule_env_steps
    return changes


def find_point(folder: Path, saved: ResumedRun) -> resume_point.Found | None:
    """The newest undamaged checkpoint, None if the run was killed before it had one.

    Raises:
        InputError: no checkpoint can be read.
    """
    record = quoted(str(folder / "config.json"))
    remedy = f"Start anew in another folder: ppo-jax train --config {record} --out ..."
    known: list[resume_point.Found | None] = []

    def chosen() -> str | None:
        known.append(resume_point.find(folder, saved.run_id, (METRICS,), remedy))
        return known[0] and known[0].path.name

    name = hosts.on_first(chosen)  # the others may not see the newest one yet
    if known or name is None:
        return known[0] if known else None
    path = folder / "checkpoints" / name
    return resume_point.Found(path, checkpoint.metadata_of(path), [])


def blocks_of(found: resume_point.Found | None) -> int | None:
    """The blocks of environments that a run goes on with, None for one that begins."""
    recorded = found.metadata.get("fingerprint") if found else None
    return recorded_blocks(recorded) if isinstance(recorded, dict) else None


def restore_run(
    folder: Path,
    saved: ResumedRun,
    found: resume_point.Found | None,
    fingerprint: dict[str, Any],
) -> tuple[TrainState | None, RunStatus, list[str]]:
    """The state [S, ...] of a checkpoint, its status, and notes; the logs are cut to it.

    The state is None if there is no checkpoint: the run begins anew.

    Raises:
        InputError: the checkpoint does not belong to this config.json.
    """
    if found is None:
        return None, RunStatus(), ["The run had not begun yet: it begins now."]
    newest, metadata, notes = found
    arrays = schedules.as_arrays(saved.config, saved.hyper)
    try:
        status, positions = read_status(metadata)
        refuse_other_config(newest, metadata, saved)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{newest} was not saved by a run that can be resumed: a new run can begin with its "
            "policy, with --init-from."
        ) from None
    like = saved_like(saved.config, arrays, saved.options.seeds)
    state, _ = load_checkpoint(newest, like, saved.config)
    if hosts.is_first():
        notes += resume_point.rewind(folder, {name: positions[name] for name in (METRICS, TIMING)})
    notes += resume_point.fingerprint_notes(metadata, fingerprint)
    environment = find(saved.config.env)
    if environment.host is not None:
        notes.append(
            f"The environments of {environment.name} start anew, as a checkpoint holds nothing of "
            "them: from here on the numbers are not those of a run that was never stopped."
        )
    if status.ended_by == "callback" or (
        status.ended_by == "return" and metadata["stop_at_return"] != saved.options.stop_at_return
    ):
        status = status._replace(ended_by=None)
    return state, status, notes


def refuse_other_config(newest: Path, metadata: dict[str, Any], saved: ResumedRun) -> None:
    """Refuse a config.json other than that of the checkpoint's training."""
    described = to_json(run_folder.describe_run(saved.config, saved.hyper, saved.options))
    trained = layers.with_new_fields(metadata)
    for table in ("config", "hyper"):
        for name, value in trained[table].items():
            if name not in BUDGET and described[table].get(name) != value:
                raise InputError(
                    f"config.json has {name}={described[table].get(name)} and {newest} was trained "
                    f"with {value}: give config.json back its value; a run with another one is a "
                    "new run (--init-from begins it with this one's policy)."
                )


def record_resume(
    folder: Path, saved: ResumedRun, fingerprint: dict[str, Any], env_steps: int
) -> None:
    """Record that the run goes on, and with which settings."""
    if saved.is_changed:
        run_folder.write_config(folder, saved.config, saved.hyper, saved.options, saved.run_id)
    path = folder / "manifest.json"
    try:
        content = reading.expect(reading.read_json(path), MANIFEST)
        resumed = list(content.get("resumed", []))
    except (OSError, ValueError):
        content, resumed = {}, []
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    resumed.append({"at": now, "env_steps": env_steps, "fingerprint": fingerprint})
    write_json(path, {**content, "resumed": resumed})


def finished_summary(folder: Path, env_steps: int) -> dict[str, Any] | None:
    """The summary of a run that is over, None if it was not written for this status."""
    try:
        summary = reading.expect(reading.read_json(folder / "summary.json"), run_folder.SUMMARY)
        is_whole = summary["env_steps"] == env_steps and summary.get("stopped_by") is None
    except (OSError, ValueError):
        return None
    return summary if is_whole else None


def _has_schedule(hyper: Hyper) -> bool:
    return any(isinstance(getattr(hyper, f.name), Schedule) for f in dataclasses.fields(hyper))
