"""The host's loop: compiled chunks, and between them rows, evaluations and checkpoints.

Nothing here knows whether a run has just begun or goes on: a `Point` says where it stands, and is
what a checkpoint holds beside the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ppo_jax.analysis import stats
from ppo_jax.apps.run import quarantine, ratio_check
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import RunError
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import programs
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import evaluation, text, windows
from ppo_jax.runtime.background import Background
from ppo_jax.runtime.loggers import LogFanout
from ppo_jax.runtime.progress import Progress, Silence
from ppo_jax.runtime.signals import StopRequest
from ppo_jax.storage import checkpoint
from ppo_jax.storage.jsonl import JsonlLog, Position
from ppo_jax.training import trainer

CHUNK_SECONDS = 0.5  # how long the host waits between looks at the device
METRICS, TIMING = "metrics.jsonl", "timing.jsonl"

Callback = Callable[[dict[str, Any]], bool | None]


class Session(NamedTuple):
    """What stays the same from the first chunk of a process to its last."""

    config: Config
    hyper: Hyper  # as arrays
    options: RunOptions
    callbacks: Sequence[Callback]
    layout: layouts.Layout
    folder: Path
    identity: dict[str, Any]  # whose checkpoints these are: run_id, config, hyper, fingerprint
    chunk: Callable[..., Any]
    play: evaluation.Play
    metrics: JsonlLog
    timing: JsonlLog
    logs: LogFanout
    progress: Progress | Silence
    stop: StopRequest


class Point(NamedTuple):
    """Where a run stands between two chunks."""

    iteration: int = 0
    pending: windows.Window | None = None  # iterations since the last logged row
    train_seconds: float = 0.0
    ended_by: str | None = None  # "return" or "callback", where the budget was not spent
    score: float | None = None  # of the evaluation at this very iteration
    best: float | None = None  # the highest score so far
    saved: tuple[int, str | None] | None = None  # iteration and end at the newest checkpoint


class Cadence(NamedTuple):
    """When what is due, in iterations; 0 for never."""

    last: int
    log: int
    evaluate: int
    save: int
    stops_at: int  # chunks end at multiples of it, where a decision to stop is taken

    @staticmethod
    def of(config: Config, options: RunOptions, has_stop: bool) -> Cadence:
        """Environment steps rounded up to iterations; evaluations fall on logged points."""
        log_iterations = max(1, -(-log_steps(config, options) // config.batch_size))
        evaluate = -(-options.eval_every // config.batch_size)
        evaluate = -(-evaluate // log_iterations) * log_iterations
        stops = has_stop or options.stop_at_return is not None
        return Cadence(
            last=config.num_iterations,
            log=log_iterations,
            evaluate=evaluate,
            save=-(-options.checkpoint_every // config.batch_size),
            stops_at=log_iterations if stops else 0,
        )

    def is_due(self, every: int, iteration: int) -> bool:
        return bool(every) and iteration % every == 0

    def is_logged(self, iteration: int) -> bool:
        return iteration == self.last or self.is_due(self.log, iteration)

    def next_length(self, iteration: int, wanted: int) -> int:
        """`wanted` iterations, but no further than the next point where the host must look."""
        bounds = [self.last] + [
            (iteration // every + 1) * every
            for every in (self.evaluate, self.save, self.stops_at)
            if every
        ]
        return min(wanted, programs.ROWS, *(bound - iteration for bound in bounds))


def log_steps(config: Config, options: RunOptions) -> int:
    """Environment steps between rows: some hundred rows a run."""
    return options.log_every or config.trained_env_steps // 100


def train(session: Session, state: TrainState, point: Point) -> tuple[TrainState, Point]:
    """Chunks until the budget is spent, a stop is requested, or a callback or return ends the run.

    Checkpoints are written on a thread beside it; none is under way any more at the end.

    Raises:
        RunError: the folder cannot be written.
    """
    writer = Background()
    try:
        state, point = _train(session, state, point, writer)
    except KeyboardInterrupt:  # Ctrl-C for the second time waits for nothing
        raise
    except BaseException:
        with suppress(Exception):  # the run ends by the error that came first
            writer.wait()
        raise
    with writing(session, point):
        writer.wait()
    return state, point


def _train(
    session: Session, state: TrainState, point: Point, writer: Background
) -> tuple[TrainState, Point]:
    config, options = session.config, session.options
    cadence = Cadence.of(config, options, has_stop=bool(session.callbacks))
    if point.pending is not None and cadence.is_logged(point.iteration):
        # The row that a stop did not wait for: its evaluation was due.
        held, point = point.pending, point._replace(pending=None)
        point = write_row(session, cadence, state, point, point.iteration, held)
    length, saved_at = 1, time.monotonic()
    while point.iteration < cadence.last and point.ended_by is None and not session.stop:
        length = cadence.next_length(point.iteration, length)
        start = time.perf_counter()
        state, fresh = session.chunk(session.hyper, state, np.int32(length))
        fresh = jax.device_get(fresh)
        seconds = time.perf_counter() - start
        fresh = {name: value[: options.seeds, :length] for name, value in fresh.items()}
        if point.iteration == 0:
            look_at_first_ratios(session, state, fresh["log_ratio_abs_first"][:, 0])
        keep_frozen(session, state, fresh["alive"][:, -1], point)
        iteration = point.iteration + length
        points, pending = windows.windows(
            point.pending, fresh, iteration, cadence.log, config.num_iterations
        )
        point = point._replace(
            iteration=iteration,
            pending=pending,
            train_seconds=point.train_seconds + seconds,
            score=None,
        )
        speed = length * config.batch_size * options.seeds / seconds
        shown = windows.aggregate(
            points[-1][1] if points else pending or windows.extended(None, fresh)
        )
        clock = {"env_steps": iteration * config.batch_size, "env_steps_per_second": speed}
        session.progress.update(iteration, {**shown, **clock})
        for at, window in points:
            point = write_row(session, cadence, state, point, at, window)
        with writing(session, point):
            writer.check()
            session.timing.write({**clock, "wall_seconds": point.train_seconds})
        minutes = (time.monotonic() - saved_at) / 60
        is_time = 0 < options.checkpoint_minutes <= minutes
        is_best = point.score is not None and point.score == point.best
        if iteration < cadence.last and (
            is_time or is_best or cadence.is_due(cadence.save, iteration)
        ):
            point = save(session, state, point, writer)
            saved_at = time.monotonic()
        # Twice as many iterations where the chunk was short, and fewer where it was long: the
        # length of a chunk changes no bit of the result.
        length = max(1, int(length * min(2.0, CHUNK_SECONDS / max(seconds, 1e-3))))
    return state, point


def look_at_first_ratios(session: Session, state: TrainState, found: np.ndarray) -> None:
    """Say what is wrong where the ratios of a seed's very first minibatch are not 1.

    Args:
        found: [S], largest |log-ratio| of that minibatch.
    """
    wrong = [k for k, value in enumerate(found) if not ratio_check.is_one(session.config, value)]
    if wrong:
        member = jax.tree.map(lambda leaf: leaf[wrong[0]], state)
        sentence = ratio_check.complaint(session.config, member, float(found[wrong[0]]))
        session.progress.message(f"warning: {sentence}")


def keep_frozen(session: Session, state: TrainState, alive: np.ndarray, point: Point) -> None:
    """Save what explains why a member was frozen, once for each, and say so.

    Args:
        alive: [S], zero for the frozen ones.
    """
    if alive.all():
        return
    config, hyper, folder = session.config, session.hyper, session.folder
    frozen = np.flatnonzero(alive == 0.0).tolist()
    with writing(session, point):
        kept = quarantine.keep(folder, config, hyper, session.layout, state, frozen)
    for member, there in kept.items():
        session.progress.message(
            f"seed {session.options.seed + member} is frozen: {trainer.MAX_FAILURES} updates in a "
            f"row would have written numbers that are not finite. Its last good state and the "
            f"samples are in {there}; ppo-jax debug {folder} --member {member} names the operation."
        )


def write_row(
    session: Session,
    cadence: Cadence,
    state: TrainState,
    point: Point,
    iteration: int,
    window: windows.Window,
) -> Point:
    """One row of `metrics.jsonl`, with the evaluation that is due there.

    Where a stop is requested, an evaluation is not begun: the row waits in `point.pending`.
    """
    config, options = session.config, session.options
    env_steps = iteration * config.batch_size
    row = {"env_steps": env_steps, **windows.aggregate(window)}
    goal = options.stop_at_return
    if iteration == point.iteration and cadence.is_due(cadence.evaluate, iteration):
        if session.stop:
            return point._replace(pending=window)
        played = session.play(state, iteration)
        alive = evaluation.alive_seeds(state, session.layout)
        row["eval_return"] = evaluation.mean_returns(played, alive)
        score = score_of(row["eval_return"])
        best = max((x for x in (score, point.best) if x is not None), default=None)
        point = point._replace(score=score, best=best)
        has_ended = has_reached(row["eval_return"], goal)
        session.progress.message(text.evaluation_line(env_steps, score))
    else:
        has_ended = not cadence.evaluate and has_reached(row["episode_return"], goal)
    with writing(session, point):
        session.metrics.write(row)
    session.logs.write(row, env_steps)
    if has_ended:
        point = point._replace(ended_by="return")
    if any([callback(row) is True for callback in session.callbacks]):
        point = point._replace(ended_by="callback")
    return point


def save(
    session: Session, state: TrainState, point: Point, writer: Background | None = None
) -> Point:
    """The whole state of all seeds and the point, as a checkpoint; older ones are thinned out.

    Args:
        writer: writes it while training goes on; None to return when it is on the disk.
    """
    if point.saved == (point.iteration, point.ended_by):
        return point
    env_steps = point.iteration * session.config.batch_size
    logs = {METRICS: session.metrics, TIMING: session.timing}
    with writing(session, point):
        for file in logs.values():
            file.check()
        metadata = {
            "env_steps": env_steps,
            "num_seeds": session.options.seeds,
            "iteration": point.iteration,
            "pending": windows.to_json(point.pending),
            "train_seconds": point.train_seconds,
            "ended_by": point.ended_by,
            "stop_at_return": session.options.stop_at_return,
            "score": point.score,
            "best_score": point.best,
            "logs": {name: file.position()._asdict() for name, file in logs.items()},
            **session.identity,
        }
        if writer is not None:
            writer.wait()  # before another copy of the state takes memory
        # Slicing would copy all of it on the devices first.
        is_padded = session.layout.num_members > session.options.seeds
        taken = checkpoint.snapshot(programs.trimmed(state, session.layout) if is_padded else state)

        def write() -> None:
            for file in logs.values():
                file.sync()
            checkpoint.save(
                checkpoint.checkpoint_folder(session.folder, env_steps), taken, metadata
            )
            checkpoint.prune(session.folder, session.options.keep)

        write() if writer is None else writer.start(write)
    return point._replace(saved=(point.iteration, point.ended_by))


def point_of(metadata: dict[str, Any]) -> tuple[Point, dict[str, Position]]:
    """What `save` wrote beside the state.

    Raises:
        KeyError, TypeError, ValueError: it was not written by `save`.
    """
    point = Point(
        iteration=metadata["iteration"],
        pending=windows.from_json(metadata["pending"]),
        train_seconds=metadata["train_seconds"],
        ended_by=metadata["ended_by"],
        score=metadata["score"],
        best=metadata["best_score"],
        saved=(metadata["iteration"], metadata["ended_by"]),
    )
    return point, {name: Position(**place) for name, place in metadata["logs"].items()}


@contextmanager
def writing(session: Session, point: Point) -> Iterator[None]:
    """Say in one sentence why the run's folder cannot be written, and end the run."""
    try:
        yield
    except OSError as error:
        env_steps = point.iteration * session.config.batch_size
        raise RunError(
            f"Stopped after {env_steps:,} environment steps a seed, because the run's folder "
            f"{str(session.folder)!r} cannot be written ({error.strerror or error}): what is in it "
            "is untouched; mend that, then ppo-jax resume goes on from its newest checkpoint."
        ) from error


def score_of(returns: list[float | None]) -> float | None:
    """The IQM over the seeds that have a return."""
    known = [value for value in returns if value is not None and np.isfinite(value)]
    return stats.iqm(known) if known else None


def has_reached(returns: list[float | None], goal: float | None) -> bool:
    """Whether the score is at least `goal`."""
    score = score_of(returns)
    return goal is not None and score is not None and score >= goal
