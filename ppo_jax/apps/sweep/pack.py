"""Training of one pack: chunks until the budget is spent, rows in a file, checkpoints in between.

A pack's folder describes itself. `pack.json` holds settings and members. `metrics.jsonl` has a line
per logged point, with a list of one number per member for each metric. `checkpoints/` exists while
the pack trains, and `result.json` from its end on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ppo_jax.apps.sweep import engine as engines
from ppo_jax.apps.sweep.axes import Values
from ppo_jax.apps.sweep.engine import Engine
from ppo_jax.apps.sweep.groups import Member
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.reading import read_record
from ppo_jax.distributed import population
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import progress, windows
from ppo_jax.runtime.chunk_loop import chunks, until
from ppo_jax.runtime.signals import StopRequest
from ppo_jax.runtime.windows import Rows
from ppo_jax.storage import checkpoint, files, jsonl
from ppo_jax.storage.files import write_json

# The shape of result.json, see `reading.expect`.
_RESULT = {
    "members": [[int]],
    "final_return": [(float, None)],
    "env_steps": int,
    "train_seconds": float,
}


def ignore(*messages: Any) -> None:
    """Ignore all messages."""
    del messages


class Listener(NamedTuple):
    """Functions that print a sweep's progress."""

    tell: Callable[[str], None] = ignore  # sentences
    show: Callable[[float, str], None] = ignore  # share that is trained, and in words


class Control(NamedTuple):
    """The request that may end a sweep early, and its `Listener`'s functions."""

    stop: StopRequest
    tell: Callable[[str], None]
    show: Callable[[float, str], None]


class PackJob(NamedTuple):
    """One pack to be trained, and its folder."""

    folder: Path
    config: Config
    hyper: Hyper  # the sweep's base
    settings: dict[int, Values]  # the settings of this pack
    members: list[Member]
    label: str  # shown to the user


class PackResult(NamedTuple):
    """The result of a finished pack."""

    members: list[Member]
    final_return: list[float | None]  # per member, None if it failed
    env_steps: int  # per member
    train_seconds: float


class PackState(NamedTuple):
    """All that a stopped pack goes on from."""

    state: TrainState
    pending: windows.Window | None  # iterations since the last logged point
    iteration: int
    train_seconds: float


class Outcome(NamedTuple):
    """The result of training all settings of a sweep."""

    settings: dict[int, Values]
    returns: dict[int, list[float | None]]  # final return of each seed, of settings that finished
    env_steps: int  # in all
    train_seconds: float
    compile_seconds: float
    compilations: list[int]  # training programs, by compile group
    more: dict[str, Any]  # a sampler's own entries of the summary
    built: list[Engine]  # compiled programs, one of which may fit the winner
    reruns_winner: bool = True  # False for a worker of a study if another one does
    # Trains the winner on fresh seeds, unless that is done with its constant values.
    replay: Callable[[PackJob, Engine], PackResult | None] | None = None
    packs: Sequence[Path] | None = None  # folders with the rows of the table; None for all


def is_finished(folder: Path) -> bool:
    return (folder / "result.json").is_file()


def read_result(folder: Path) -> PackResult:
    """The result in a finished pack's folder."""
    content = read_record(folder / "result.json", _RESULT)
    members = [Member(*pair) for pair in content.pop("members")]
    return PackResult(members=members, **{name: content[name] for name in PackResult._fields[1:]})


def write_pack(job: PackJob) -> None:
    """Write the pack's own description, so that its folder can be read without the sweep's."""
    files.refuse_links(job.folder.parent, job.folder, job.folder / "checkpoints")
    job.folder.mkdir(parents=True, exist_ok=True)
    content = {
        "settings": {str(place): values for place, values in job.settings.items()},
        "members": [list(member) for member in job.members],
        "batch_size": job.config.batch_size,
        "label": job.label,
    }
    write_json(job.folder / "pack.json", content)


def finish_pack(job: PackJob, result: PackResult) -> None:
    """Write the result of a pack that is done, and remove its checkpoints."""
    write_json(job.folder / "result.json", result._asdict())
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)


def train_pack(
    engine: Engine, job: PackJob, options: SweepOptions, control: Control
) -> PackResult | None:
    """Train a pack from its last state on; None if a signal stopped it, with all of it saved."""
    if is_finished(job.folder):
        return read_result(job.folder)
    write_pack(job)
    hypers = engines.hypers_of(job.config, job.hyper, job.settings, job.members)
    hyper = engines.stacked(job.config, hypers, engine.layout)
    begun = restore_pack(engine, job, hyper)
    if begun is None:
        state = engines.start(engine, hyper, [member.seed for member in job.members])
        begun = PackState(state, None, 0, 0.0)
    reached = _loop(engine, job, hyper, begun, options, control)
    if reached.iteration < job.config.num_iterations:
        return None
    returns, _ = engines.final_returns(engine, hyper, reached.state)
    result = PackResult(
        members=job.members,
        final_return=returns[: len(job.members)],
        env_steps=reached.iteration * job.config.batch_size,
        train_seconds=reached.train_seconds,
    )
    finish_pack(job, result)
    return result


def _loop(
    engine: Engine,
    job: PackJob,
    hyper: Hyper,
    reached: PackState,
    options: SweepOptions,
    control: Control,
) -> PackState:
    config, count = job.config, len(job.members)
    last, every = config.num_iterations, log_iterations(config, options)
    metrics = jsonl.JsonlLog(job.folder / "metrics.jsonl")
    saved_at = reached.train_seconds
    advance = partial(engines.advance_all, engine, hyper, count)
    for chunk in chunks(advance, reached.state, until(last), start=reached.iteration):
        rows = {name: value[:count] for name, value in chunk.rows.items()}
        iteration = reached.iteration + chunk.length
        points, pending = windows.windows(reached.pending, rows, iteration, every, last)
        for point, window in points:
            metrics.write({"env_steps": point * config.batch_size, **windows.aggregate(window)})
        train_seconds = reached.train_seconds + chunk.seconds
        reached = PackState(chunk.state, pending, iteration, train_seconds)
        is_stopped = iteration < last and bool(control.stop)  # asked once
        if is_stopped or train_seconds - saved_at > options.save_seconds:
            metrics.sync()
            save_pack(engine, job, reached)
            saved_at = train_seconds
        if is_stopped:
            break
        control.show(iteration / last, _progress(job, iteration / last, train_seconds, rows))
    metrics.close()
    return reached


def log_iterations(config: Config, options: SweepOptions) -> int:
    """Iterations between logged points."""
    steps = options.log_every or config.trained_env_steps // 100
    return max(1, -(-steps // config.batch_size))


def _progress(job: PackJob, done: float, train_seconds: float, fresh: Rows) -> str:
    means = member_returns(fresh)
    known = means[np.isfinite(means)]
    best = f", returns up to {known.max():.4g}" if known.size else ""
    left = progress.format_seconds(train_seconds * (1 - done) / max(done, 1e-9))
    return f"{job.label}: {done:.0%}, {left} left{best}"


def member_returns(fresh: Rows) -> np.ndarray:
    """Mean return of each member's episodes over some rows, [W]; NaN if none ended."""
    count = fresh["num_episodes"].sum(axis=1, dtype=np.float64)
    total = fresh["episode_return_sum"].sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def save_pack(engine: Engine, job: PackJob, reached: PackState) -> None:
    """Save a checkpoint; the newest is enough, and one before it in case it is damaged."""
    env_steps = reached.iteration * job.config.batch_size
    tree = {"state": population.trimmed(reached.state, engine.layout)}
    done = {
        "iteration": reached.iteration,
        "train_seconds": reached.train_seconds,
        "pending": windows.to_json(reached.pending),
    }
    checkpoint.save(
        checkpoint.checkpoint_folder(job.folder, env_steps), tree, {**done, "env_steps": env_steps}
    )
    checkpoint.prune(job.folder, keep=2)


def restore_pack(engine: Engine, job: PackJob, hyper: Hyper) -> PackState | None:
    """Load the newest state of an unfinished pack and cut its rows back; None for a new start."""
    newest, _ = checkpoint.latest(job.folder)
    metrics = job.folder / "metrics.jsonl"
    if newest is None:
        metrics.unlink(missing_ok=True)
        return None
    whole = population.abstract_population(job.config, hyper, engine.layout)
    like = {"state": of_width(whole, engine.width)}
    tree, metadata = checkpoint.load(newest, like)
    jsonl.rewind_jsonl(metrics, metadata["env_steps"])
    return PackState(
        state=population.place(population.padded(tree["state"], engine.layout), engine.layout),
        pending=windows.from_json(metadata["pending"]),
        iteration=metadata["iteration"],
        train_seconds=metadata["train_seconds"],
    )


def of_width(state: TrainState, width: int) -> TrainState:
    """Shapes of a pack's members, without the padding that fills up the devices."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((width, *leaf.shape[1:]), leaf.dtype), state
    )


def by_setting(
    members: Sequence[Member], values: Sequence[float | None]
) -> dict[int, list[float | None]]:
    """Values of members gathered by setting, in the order of the seeds."""
    found: dict[int, list[float | None]] = {}
    for member, value in sorted(zip(members, values, strict=True)):
        found.setdefault(member.setting, []).append(value)
    return found
