"""Training of one pack: chunks until the budget is spent, rows in a file, checkpoints in between.

The files are those of `pack_files`, the checkpoints those of `storage/resume_point`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.apps.sweep import engine as engines
from ppo_jax.apps.sweep.axes import Values
from ppo_jax.apps.sweep.engine import Engine
from ppo_jax.apps.sweep.groups import Member
from ppo_jax.apps.sweep.options import SweepOptions, log_iterations
from ppo_jax.apps.sweep.pack_files import (
    METRICS,
    PackJob,
    PackResult,
    finish_pack,
    is_finished,
    owner_of,
    read_result,
    write_pack,
)
from ppo_jax.config.config import Hyper
from ppo_jax.distributed import hosts, population
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import text, windows
from ppo_jax.runtime.chunk_loop import Chunk, chunks, until
from ppo_jax.runtime.signals import Stopped, StopRequest
from ppo_jax.runtime.windows import Rows
from ppo_jax.storage import resume_point
from ppo_jax.storage.jsonl import LogFiles
from ppo_jax.storage.resume_point import Owner


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
    # Folders with the rows of the table, and the settings that each has; None for all.
    packs: Mapping[Path, Container[int]] | None = None


def train_pack(
    engine: Engine, job: PackJob, options: SweepOptions, control: Control
) -> PackResult | None:
    """Train a pack from its last state on; None if a signal stopped it, with all of it saved.

    Raises:
        InputError: the folder is damaged, or holds another pack.
    """
    was_begun = hosts.on_first(lambda: write_pack(job, control.tell))
    if (known := finished_result(job)) is not None:
        return known
    phases = list(phases_of(engine, job))
    owner = owner_of(job, engine.layout)
    logs = LogFiles(job.folder, (METRICS,) if hosts.is_first() else ())
    reached = None
    try:
        reached = restore_state(engine, owner, phases[0][1], control.tell)
        if reached is None:
            if was_begun:
                control.tell(f"{job.label} had no checkpoint yet: its training begins anew")
            state = engines.start(engine, phases[0][1], [member.seed for member in job.members])
            reached = PackState(state, None, 0, 0.0)
            save_state(engine, job, owner, reached, logs)
        reached = _loop(engine, job, (owner, logs, phases), reached, options, control)
        if reached.iteration < job.config.num_iterations:
            return None
        returns = engines.final_returns(engine, phases[-1][1], reached.state)
        result = PackResult(
            members=job.members,
            final_return=returns[: len(job.members)],
            env_steps=reached.iteration * job.config.batch_size,
            train_seconds=reached.train_seconds,
        )
        if hosts.is_first():
            finish_pack(job, result, logs)
    except Stopped:  # at the start there is nothing to save yet
        if reached is not None:
            save_state(engine, job, owner, reached, logs)
        return None
    finally:
        logs.close()
    return result


def finished_result(job: PackJob) -> PackResult | None:
    """The result of a pack that is finished, as the first host finds it; None if it is not."""

    def found() -> dict[str, Any] | None:
        return read_result(job.folder, job)._asdict() if is_finished(job.folder) else None

    known = hosts.on_first(found)
    return known and PackResult(
        **{**known, "members": [Member(*pair) for pair in known["members"]]}
    )


def phases_of(engine: Engine, job: PackJob) -> Iterator[tuple[int, Hyper]]:
    """The numbers of all members and the iteration up to which they hold: one pair, or more."""
    config, members = job.config, job.members
    if job.schedule is None:
        hypers = engines.hypers_of(config, job.hyper, job.settings, members)
        yield config.num_iterations, engines.stacked(config, hypers, engine.layout)
        return
    ends = [begin for begin, _ in job.schedule[1:]] + [config.num_iterations]
    for (_, values), end in zip(job.schedule, ends, strict=True):
        same = dict.fromkeys(job.settings, values)
        hypers = engines.hypers_of(config, job.hyper, same, members)
        yield end, engines.stacked(config, hypers, engine.layout)


def _loop(
    engine: Engine,
    job: PackJob,
    place: tuple[Owner, LogFiles, Sequence[tuple[int, Hyper]]],
    reached: PackState,
    options: SweepOptions,
    control: Control,
) -> PackState:
    owner, logs, phases = place
    config, count, last = job.config, len(job.members), job.config.num_iterations
    every, saved = log_iterations(config, options), reached
    for chunk in _trained(engine, phases, count, reached, control.stop):
        rows = {name: value[:count] for name, value in chunk.rows.items()}
        iteration = reached.iteration + chunk.length
        points, pending = windows.windows(reached.pending, rows, iteration, every, last)
        for point, window in points if hosts.is_first() else ():
            row = {"env_steps": point * config.batch_size, **windows.aggregate(window)}
            logs.write(METRICS, row)
        train_seconds = reached.train_seconds + chunk.seconds
        reached = PackState(chunk.state, pending, iteration, train_seconds)
        if train_seconds - saved.train_seconds > options.save_seconds:
            save_state(engine, job, owner, reached, logs)
            saved = reached
        control.show(iteration / last, _progress(job, iteration / last, train_seconds, rows))
    if saved.iteration < reached.iteration < last:  # a stop
        save_state(engine, job, owner, reached, logs)
    return reached


def _trained(
    engine: Engine,
    phases: Sequence[tuple[int, Hyper]],
    count: int,
    reached: PackState,
    stop: StopRequest,
) -> Iterator[Chunk]:
    """Train the first `count` members chunk by chunk to the end of the last phase or to a stop."""
    state, iteration = reached.state, reached.iteration
    for end, hyper in phases:
        advance = partial(engines.advance_all, engine, hyper, count)
        for chunk in chunks(advance, state, until(end), start=iteration, stop=stop):
            state, iteration = chunk.state, iteration + chunk.length
            yield chunk


def _progress(job: PackJob, done: float, train_seconds: float, fresh: Rows) -> str:
    means = member_returns(fresh)
    known = means[np.isfinite(means)]
    best = f", returns up to {known.max():.4g}" if known.size else ""
    left = text.format_seconds(train_seconds * (1 - done) / max(done, 1e-9))
    return f"{job.label}: {done:.0%}, {left} left{best}"


def member_returns(fresh: Rows) -> np.ndarray:
    """Mean return of each member's episodes over some rows, [W]; NaN if none ended."""
    count = fresh["num_episodes"].sum(axis=1, dtype=np.float64)
    total = fresh["episode_return_sum"].sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def save_state(
    engine: Engine, job: PackJob, owner: Owner, reached: PackState, logs: LogFiles
) -> None:
    """Save a checkpoint of a pack."""
    progress = {
        "iteration": reached.iteration,
        "train_seconds": reached.train_seconds,
        "pending": windows.to_json(reached.pending),
    }
    env_steps = reached.iteration * job.config.batch_size
    tree = {"state": population.trimmed(reached.state, engine.layout)}
    resume_point.save_pack(owner, env_steps, tree, progress, logs)


def restore_state(
    engine: Engine, owner: Owner, hyper: Hyper, tell: Callable[[str], None]
) -> PackState | None:
    """Load the newest state of an unfinished pack and cut its rows back; None for a new start.

    Raises:
        InputError: no checkpoint can be read, or it is of another pack.
    """
    whole = population.abstract_population(engine.config, hyper, engine.layout)
    like = {"state": population.of_width(whole, engine.width)}
    found = resume_point.restore_pack(owner, lambda metadata: like, (METRICS,))
    if found is None:
        return None
    for note in found.notes:
        tell(note)
    state = population.padded(found.tree["state"], engine.layout)
    return PackState(
        state=population.place(state, engine.layout),
        pending=windows.from_json(found.metadata["pending"]),
        iteration=found.metadata["iteration"],
        train_seconds=found.metadata["train_seconds"],
    )


def by_setting(
    members: Sequence[Member], values: Sequence[float | None]
) -> dict[int, list[float | None]]:
    """Values of members gathered by setting, in the order of the seeds."""
    found: dict[int, list[float | None]] = {}
    for member, value in sorted(zip(members, values, strict=True)):
        found.setdefault(member.setting, []).append(value)
    return found
