"""Training one pack: chunks until the budget is spent, rows in a file, checkpoints in between.

A pack's folder says by itself what it holds:
`pack.json` (settings, members), `metrics.jsonl` (a line a logged point, a list with one number per
member for each metric), `checkpoints/` while it trains, and `result.json` once it is done.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
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
from ppo_jax.distributed import programs
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import progress, windows
from ppo_jax.runtime.signals import StopRequest
from ppo_jax.runtime.windows import Rows
from ppo_jax.storage import checkpoint, jsonl
from ppo_jax.storage.files import write_json

CHUNK_SECONDS = 0.5  # how long the host waits between looks at the device


def nobody(*told: Any) -> None:
    """Hears, and does nothing."""
    del told


class Listener(NamedTuple):
    """Who hears of a sweep's progress."""

    tell: Callable[[str], None] = nobody  # sentences
    show: Callable[[float, str], None] = nobody  # share of what is being trained, and in words


class Control(NamedTuple):
    """What may end a sweep early, and who hears of its progress."""

    stop: StopRequest
    tell: Callable[[str], None]
    show: Callable[[float, str], None]


class Work(NamedTuple):
    """One pack to be trained, and the folder that belongs to it."""

    folder: Path
    config: Config
    hyper: Hyper  # the sweep's base
    settings: dict[int, Values]  # those of this pack
    members: list[Member]
    label: str  # for people


class Result(NamedTuple):
    """What a finished pack leaves."""

    members: list[Member]
    final_return: list[float | None]  # per member, None where it failed
    env_steps: int  # per member
    train_seconds: float


class Saved(NamedTuple):
    """Everything that a stopped pack goes on from."""

    state: TrainState
    pending: windows.Window | None  # what came since the last logged point
    iteration: int
    train_seconds: float


def is_finished(folder: Path) -> bool:
    return (folder / "result.json").is_file()


def read_result(folder: Path) -> Result:
    """What a finished pack left."""
    content = json.loads((folder / "result.json").read_text("utf-8"))
    members = [Member(*pair) for pair in content.pop("members")]
    return Result(members=members, **{name: content[name] for name in Result._fields[1:]})


def write_pack(work: Work) -> None:
    """The pack's own description, so that its folder can be read without the sweep's."""
    work.folder.mkdir(parents=True, exist_ok=True)
    content = {
        "settings": {str(place): values for place, values in work.settings.items()},
        "members": [list(member) for member in work.members],
        "batch_size": work.config.batch_size,
        "label": work.label,
    }
    write_json(work.folder / "pack.json", content)


def finish(work: Work, result: Result) -> None:
    """The result, and no checkpoint any more: the pack is done."""
    write_json(work.folder / "result.json", result._asdict())
    shutil.rmtree(work.folder / "checkpoints", ignore_errors=True)


def train(engine: Engine, work: Work, options: SweepOptions, control: Control) -> Result | None:
    """Train a pack from where it stands; None where a signal stopped it, with all saved."""
    if is_finished(work.folder):
        return read_result(work.folder)
    write_pack(work)
    hypers = engines.hypers_of(work.config, work.hyper, work.settings, work.members)
    hyper = engines.stacked(work.config, hypers, engine.layout)
    saved = restore(engine, work, hyper)
    if saved is None:
        state = engines.start(engine, hyper, [member.seed for member in work.members])
        saved = Saved(state, None, 0, 0.0)
    saved = _loop(engine, work, hyper, saved, options, control)
    if saved.iteration < work.config.num_iterations:
        return None
    returns, _ = engines.final_returns(engine, hyper, saved.state)
    result = Result(
        members=work.members,
        final_return=returns[: len(work.members)],
        env_steps=saved.iteration * work.config.batch_size,
        train_seconds=saved.train_seconds,
    )
    finish(work, result)
    return result


def _loop(
    engine: Engine, work: Work, hyper: Hyper, saved: Saved, options: SweepOptions, control: Control
) -> Saved:
    config, count = work.config, len(work.members)
    state, pending, iteration, train_seconds = saved
    every = log_iterations(config, options)
    metrics = jsonl.JsonlLog(work.folder / "metrics.jsonl")
    length, last_saved = 1, train_seconds
    while iteration < config.num_iterations:
        length = max(1, min(length, programs.ROWS, config.num_iterations - iteration))
        begin = time.perf_counter()
        state, fresh = engines.advance(engine, hyper, state, [length] * count)
        seconds = time.perf_counter() - begin
        train_seconds += seconds
        iteration += length
        fresh = {name: value[:count] for name, value in fresh.items()}
        points, pending = windows.windows(pending, fresh, iteration, every, config.num_iterations)
        for point, window in points:
            metrics.write({"env_steps": point * config.batch_size, **windows.aggregate(window)})
        is_stopped = iteration < config.num_iterations and bool(control.stop)  # asked once
        if is_stopped or train_seconds - last_saved > options.save_seconds:
            metrics.sync()
            save(engine, work, Saved(state, pending, iteration, train_seconds))
            last_saved = train_seconds
        if is_stopped:
            break
        done = iteration / config.num_iterations
        control.show(done, _progress(work, done, train_seconds, fresh))
        length = max(1, int(length * min(2.0, CHUNK_SECONDS / max(seconds, 1e-3))))
    metrics.close()
    return Saved(state, pending, iteration, train_seconds)


def log_iterations(config: Config, options: SweepOptions) -> int:
    """Iterations between logged points."""
    steps = options.log_every or config.trained_env_steps // 100
    return max(1, -(-steps // config.batch_size))


def _progress(work: Work, done: float, train_seconds: float, fresh: Rows) -> str:
    means = member_returns(fresh)
    known = means[np.isfinite(means)]
    best = f", returns up to {known.max():.4g}" if known.size else ""
    left = progress.format_seconds(train_seconds * (1 - done) / max(done, 1e-9))
    return f"{work.label}: {done:.0%}, {left} left{best}"


def member_returns(fresh: Rows) -> np.ndarray:
    """Mean return of each member's episodes over some rows, [W]; NaN where none ended."""
    count = fresh["num_episodes"].sum(axis=1, dtype=np.float64)
    total = fresh["episode_return_sum"].sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def save(engine: Engine, work: Work, saved: Saved) -> None:
    """A checkpoint of the pack; the newest is enough, and one before it in case it is torn."""
    env_steps = saved.iteration * work.config.batch_size
    tree = {"state": programs.trimmed(saved.state, engine.layout)}
    done = {
        "iteration": saved.iteration,
        "train_seconds": saved.train_seconds,
        "pending": windows.to_json(saved.pending),
    }
    checkpoint.save(
        checkpoint.checkpoint_folder(work.folder, env_steps), tree, {**done, "env_steps": env_steps}
    )
    checkpoint.prune(work.folder, keep=2)


def restore(engine: Engine, work: Work, hyper: Hyper) -> Saved | None:
    """The newest state of an unfinished pack, its rows cut back to it; None for a new start."""
    newest, _ = checkpoint.latest(work.folder)
    metrics = work.folder / "metrics.jsonl"
    if newest is None:
        metrics.unlink(missing_ok=True)
        return None
    whole = programs.abstract_population(work.config, hyper, engine.layout)
    like = {"state": of_width(whole, engine.width)}
    tree, metadata = checkpoint.load(newest, like)
    jsonl.rewind_jsonl(metrics, metadata["env_steps"])
    return Saved(
        state=programs.place(programs.padded(tree["state"], engine.layout), engine.layout),
        pending=windows.from_json(metadata["pending"]),
        iteration=metadata["iteration"],
        train_seconds=metadata["train_seconds"],
    )


def of_width(state: TrainState, width: int) -> TrainState:
    """Shapes of a pack's members alone, without what fills up the devices."""
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
