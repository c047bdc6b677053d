"""Checkpoints of a run: its whole state and its status, written and read back."""

from __future__ import annotations

from typing import Any

from ppo_jax.apps.run.session import METRICS, TIMING, RunStatus, Session, writing
from ppo_jax.config import reading
from ppo_jax.distributed import hosts, population
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import windows
from ppo_jax.runtime.background import Background
from ppo_jax.storage import checkpoint, resume_point
from ppo_jax.storage.jsonl import Position

_METADATA = {
    "iteration": int,
    "pending": (dict, None),
    "train_seconds": float,
    "ended_by": (str, None),
    "stop_at_return": (float, None),
    "score": (float, None),
    "best_score": (float, None),
    "confirmed?": int,
    "config": dict,
    "hyper": dict,
    "fingerprint": dict,
    "logs": {name: {"num_bytes": int, "sha256": str} for name in (METRICS, TIMING)},
}


def save_run(
    session: Session, state: TrainState, status: RunStatus, writer: Background | None = None
) -> RunStatus:
    """Save the state of all seeds and the status as a checkpoint, and prune older checkpoints.

    Args:
        writer: writes it during training; None to return when it is on the disk.
    """
    if status.saved == (status.iteration, status.ended_by):
        return status
    env_steps = status.iteration * session.config.batch_size
    logs = {METRICS: session.metrics, TIMING: session.timing}
    with writing(session, status):
        for file in logs.values():
            file.check()
        metadata = metadata_of(session, status)
        if writer is not None:
            writer.wait()  # before another copy of the state takes memory
        # Slicing would copy all of it on the devices first.
        is_padded = session.layout.num_members > session.options.seeds
        taken = checkpoint.snapshot(
            population.trimmed(state, session.layout) if is_padded else state
        )

        if not hosts.is_first():
            return status._replace(saved=(status.iteration, status.ended_by))

        def write() -> None:
            keep = session.options.keep
            resume_point.write(session.folder, env_steps, taken, metadata, logs.values(), keep)

        write() if writer is None else writer.start(write)
    return status._replace(saved=(status.iteration, status.ended_by))


def metadata_of(session: Session, status: RunStatus) -> dict[str, Any]:
    """The metadata of a checkpoint, from which `read_status` reads the status back."""
    logs = {METRICS: session.metrics, TIMING: session.timing}
    return {
        "env_steps": status.iteration * session.config.batch_size,
        "num_seeds": session.options.seeds,
        "iteration": status.iteration,
        "pending": windows.to_json(status.pending),
        "train_seconds": status.train_seconds,
        "ended_by": status.ended_by,
        "stop_at_return": session.options.stop_at_return,
        "score": status.score,
        "best_score": status.best,
        "confirmed": status.confirmed,
        "logs": {name: file.position()._asdict() for name, file in logs.items()},
        **session.identity,
    }


def read_status(metadata: dict[str, Any]) -> tuple[RunStatus, dict[str, Position]]:
    """The status that `save_run` wrote beside the state, and the positions of the logs.

    Raises:
        KeyError, TypeError, ValueError: it was not written by `save_run`.
    """
    reading.expect(metadata, _METADATA)
    status = RunStatus(
        iteration=metadata["iteration"],
        pending=windows.from_json(metadata["pending"]),
        train_seconds=metadata["train_seconds"],
        ended_by=metadata["ended_by"],
        score=metadata["score"],
        best=metadata["best_score"],
        confirmed=metadata.get("confirmed", 0),  # 0.1.0 did not write it
        saved=(metadata["iteration"], metadata["ended_by"]),
    )
    return status, {name: Position(**place) for name, place in metadata["logs"].items()}
