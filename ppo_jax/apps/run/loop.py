"""The loop of a run: compiled chunks, and between them rows, evaluations and checkpoints.

A new run and a resumed one take the same path: `RunStatus` is all that the loop knows about the
past beside the state, and a checkpoint holds both.
"""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np

from ppo_jax.analysis import stats
from ppo_jax.apps.run import quarantine, ratio_check, saving
from ppo_jax.apps.run.cadence import Cadence
from ppo_jax.apps.run.callbacks import Moment, called
from ppo_jax.apps.run.session import RunStatus, Session, writing
from ppo_jax.config.options import RunOptions
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import evaluation, text, windows
from ppo_jax.runtime.background import Background
from ppo_jax.runtime.chunk_loop import Chunk, advance_by, chunks
from ppo_jax.runtime.signals import Stopped


def train_run(
    session: Session, state: TrainState, status: RunStatus
) -> tuple[TrainState, RunStatus]:
    """Train until the budget is spent, a stop is requested, or a callback or return ends the run.

    A thread writes the checkpoints meanwhile; all of them are on the disk at the end.

    Raises:
        RunError: the folder cannot be written.
    """
    writer = Background()
    try:
        state, status = _train(session, state, status, writer)
    except KeyboardInterrupt:  # Ctrl-C for the second time waits for nothing
        raise
    except BaseException:
        with suppress(Exception):  # the run ends by the error that came first
            writer.wait()
        raise
    with writing(session, status):
        writer.wait()
    return state, status


def _train(
    session: Session, state: TrainState, status: RunStatus, writer: Background
) -> tuple[TrainState, RunStatus]:
    options = session.options
    cadence = Cadence.of(session.config, options, has_stop=bool(session.callbacks))
    status = write_held_row(session, cadence, state, status)
    if status.ended_by is not None:
        return state, status
    advance = advance_by(session.chunk, session.hyper, options.seeds)
    begun, saved_at = status.iteration, 0.0
    for chunk in chunks(advance, state, cadence.next_length, start=begun, stop=session.stop):
        state = chunk.state
        if status.iteration == 0:
            check_first_ratios(session, state, chunk.rows["log_ratio_abs_first"][:, 0])
        keep_frozen(session, state, chunk.rows["alive"][:, -1], status)
        session.stop.progress()
        status = log_chunk(session, cadence, chunk, status)
        if not chunk.rows["alive"][:, -1].any():  # nobody is left to train
            status = status._replace(ended_by="failure")
        with writing(session, status):
            writer.check()
        if is_save_due(cadence, options, status, chunk.clock - saved_at):
            status = saving.save_run(session, state, status, writer)
            saved_at = chunk.clock
        if status.ended_by is not None:
            break
    return state, status


def write_held_row(
    session: Session, cadence: Cadence, state: TrainState, status: RunStatus
) -> RunStatus:
    """Write the row that a stop did not wait for, if there is one: its evaluation was due."""
    if status.pending is None or not cadence.is_logged(status.iteration):
        return status
    held, status = status.pending, status._replace(pending=None)
    return write_row(session, cadence, state, status, status.iteration, held)


def log_chunk(session: Session, cadence: Cadence, chunk: Chunk, status: RunStatus) -> RunStatus:
    """Count a chunk, write the rows of its logged points, and show the newest numbers."""
    config = session.config
    iteration = status.iteration + chunk.length
    points, pending = windows.windows(
        status.pending, chunk.rows, iteration, cadence.log, config.num_iterations
    )
    status = status._replace(
        iteration=iteration,
        pending=pending,
        train_seconds=status.train_seconds + chunk.seconds,
        score=None,
    )
    speed = chunk.length * config.batch_size * session.options.seeds / chunk.seconds
    clock = {"env_steps": iteration * config.batch_size, "env_steps_per_second": speed}
    newest = points[-1][1] if points else pending or windows.extended(None, chunk.rows)
    session.progress.update(iteration, {**windows.aggregate(newest), **clock})
    for at, window in points:
        status = write_row(session, cadence, chunk.state, status, at, window)
    with writing(session, status):
        session.timing.write({**clock, "wall_seconds": status.train_seconds})
    return status


def is_save_due(
    cadence: Cadence, options: RunOptions, status: RunStatus, seconds_since: float
) -> bool:
    """Check whether a checkpoint is due: by steps, by time, or for the best score so far.

    Args:
        seconds_since: the last checkpoint was begun.
    """
    if status.iteration >= cadence.last:  # the one at the end is the caller's
        return False
    is_time = 0 < options.checkpoint_minutes <= seconds_since / 60
    is_best = status.score is not None and status.score == status.best
    return is_time or is_best or cadence.is_due(cadence.save, status.iteration)


def check_first_ratios(session: Session, state: TrainState, found: np.ndarray) -> None:
    """Warn if the ratios of a seed's very first minibatch are not 1.

    Args:
        found: [S], largest |log-ratio| of that minibatch.
    """
    wrong = [k for k, value in enumerate(found) if not ratio_check.is_one(session.config, value)]
    if wrong:
        member = quarantine.alone(state, wrong[0])
        sentence = ratio_check.complaint(session.config, member, float(found[wrong[0]]))
        session.progress.message(f"warning: {sentence}")


def keep_frozen(session: Session, state: TrainState, alive: np.ndarray, status: RunStatus) -> None:
    """Put frozen members into quarantine, once each, and print the folder.

    Args:
        alive: [S], zero for frozen members.
    """
    if alive.all():
        return
    config, hyper, folder = session.config, session.hyper, session.folder
    frozen = np.flatnonzero(alive == 0.0).tolist()
    with writing(session, status):
        kept = quarantine.keep_frozen(folder, config, hyper, session.layout, state, frozen)
    for member, path in kept.items():
        session.progress.message(
            f"seed {session.options.seed + member} is frozen: too many of its updates would have "
            f"written numbers that are not finite (--max-failures). Its last good state and the "
            f"samples are in {path}; ppo-jax debug {text.quoted(str(folder))} --member {member} "
            "names the operation. If single rewards or observations are not finite, "
            "--drop-bad-transitions leaves them out."
        )


def write_row(
    session: Session,
    cadence: Cadence,
    state: TrainState,
    status: RunStatus,
    iteration: int,
    window: windows.Window,
) -> RunStatus:
    """Write one row of `metrics.jsonl`, with the evaluation that is due there.

    If a stop is requested, no evaluation begins or goes on: the row waits in `status.pending`.
    """
    config = session.config
    env_steps = iteration * config.batch_size
    row = {"env_steps": env_steps, **windows.aggregate(window)}
    has_ended = False
    is_hint = is_goal_near(session, status, row["episode_return"]) and not cadence.evaluate
    if iteration == status.iteration and (cadence.is_due(cadence.evaluate, iteration) or is_hint):
        try:
            session.stop.check()
            played = session.play(state, iteration)
        except Stopped:
            return status._replace(pending=window)
        alive = evaluation.alive_seeds(state, session.layout)
        row["eval_return"] = evaluation.mean_returns(played, alive)
        score = score_of(row["eval_return"])
        best = max((x for x in (score, status.best) if x is not None), default=None)
        status = status._replace(score=score, best=best, confirmed=iteration)
        has_ended = has_reached(row["eval_return"], session.options.stop_at_return)
        session.progress.evaluated(score, best)
        session.progress.message(text.evaluation_line(env_steps, score))
    with writing(session, status):
        session.metrics.write(row)
    session.logs.write(row, env_steps)
    if has_ended:
        status = status._replace(ended_by="return")
    moment = Moment(
        config, session.hyper, session.folder, iteration, env_steps, session.layout, state
    )
    if session.callbacks and called(session.callbacks, row, moment):
        status = status._replace(ended_by="callback")
    return status


def is_goal_near(session: Session, status: RunStatus, episode_return: list[float | None]) -> bool:
    """Check whether the training episodes hint that `stop_at_return` has been reached.

    They cannot decide it: the episodes that end first are the short ones. An evaluation of whole
    episodes does. After one that fails, the next follows a quarter of the iterations later. No hint
    may ever come, if exploration keeps the returns of training low; so `Cadence` has evaluations
    of its own.
    """
    is_soon = status.iteration < 1.25 * status.confirmed
    return not is_soon and has_reached(episode_return, session.options.stop_at_return)


def score_of(returns: list[float | None]) -> float | None:
    """The IQM over all seeds, in which one without a return counts as the worst.

    None if such seeds reach the middle half. An IQM over the living seeds would rise as bad ones
    fail.
    """
    known = stats.known(returns)
    dead = [-math.inf] * (len(returns) - len(known))
    score = float(stats.iqm([*dead, *known])) if known else -math.inf
    return score if math.isfinite(score) else None


def has_reached(returns: list[float | None], goal: float | None) -> bool:
    """Check whether the score is at least `goal`."""
    score = score_of(returns)
    return goal is not None and score is not None and score >= goal
