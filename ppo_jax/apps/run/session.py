"""The folder, open files and programs of a run, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from ppo_jax.apps.run.callbacks import Heard
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError, RunError
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import hosts
from ppo_jax.distributed.layout import Layout
from ppo_jax.runtime import evaluation, windows
from ppo_jax.runtime.loggers import LogFanout
from ppo_jax.runtime.progress import Progress, Silence
from ppo_jax.runtime.signals import StopRequest
from ppo_jax.storage import lock, run_folder
from ppo_jax.storage.jsonl import JsonlLog

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"


class Session(NamedTuple):
    """All that stays the same from the first chunk of a process to its last."""

    config: Config
    hyper: Hyper  # as arrays
    options: RunOptions
    callbacks: Sequence[Heard]
    layout: Layout
    folder: Path
    identity: dict[str, Any]  # written into each checkpoint: run_id, config, hyper, fingerprint
    chunk: Callable[..., Any]
    play: evaluation.Play
    metrics: JsonlLog
    timing: JsonlLog
    logs: LogFanout
    progress: Progress | Silence
    stop: StopRequest


class RunStatus(NamedTuple):
    """The progress of a run between two chunks."""

    iteration: int = 0
    pending: windows.Window | None = None  # iterations since the last logged row
    train_seconds: float = 0.0
    ended_by: str | None = None  # "return", "callback" or "failure"; None for a spent budget
    score: float | None = None  # the evaluation at this very iteration
    best: float | None = None  # the highest score so far
    confirmed: int = 0  # iteration of the last evaluation that was to confirm `stop_at_return`
    saved: tuple[int, str | None] | None = None  # iteration and end at the newest checkpoint

    def is_over(self, config: Config) -> bool:
        return self.iteration >= config.num_iterations or self.ended_by is not None


@contextmanager
def writing(session: Session, status: RunStatus) -> Iterator[None]:
    """End the run with one sentence if its folder cannot be written.

    Raises:
        RunError: an OSError came from within; the sentence has the environment steps so far.
    """
    try:
        yield
    except OSError as error:
        env_steps = status.iteration * session.config.batch_size
        raise RunError(
            f"Stopped after {env_steps:,} environment steps a seed, because the run's folder "
            f"{str(session.folder)!r} cannot be written ({error.strerror or error}): what is in it "
            "is untouched; mend that, then ppo-jax resume goes on from its newest checkpoint."
        ) from error


@contextmanager
def claimed(
    config: Config, hyper: Hyper, options: RunOptions, devices: Sequence[Any]
) -> Iterator[Path]:
    """A new run's folder; on the other hosts one that is thrown away."""
    given = (config, hyper, options, list(devices))
    with on_first_host(lambda: run_folder.claimed(*given)) as folder:
        yield folder


@contextmanager
def kept(folder: Path) -> Iterator[Path]:
    """A run's folder that goes on, with its lock; on the other hosts one that is thrown away."""
    with on_first_host(lambda: locked(folder)) as own:
        yield own or folder


@contextmanager
def on_first_host(claim: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """A folder that the first host claims; the others get one that is thrown away."""
    with ExitStack() as stack:
        found: list[Any] = []
        hosts.on_first(lambda: found.append(stack.enter_context(claim())))
        if not found:
            found.append(Path(stack.enter_context(TemporaryDirectory(prefix="ppo_jax-"))))
        yield found[0]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only writer of a run's folder.

    Raises:
        InputError: another process writes there, the folder cannot be written, or a symbolic link
            is where the run writes.
    """
    with ExitStack() as stack:
        try:
            run_folder.refuse_links(folder)
            stack.enter_context(lock.held(folder))
        except OSError as error:
            raise InputError(
                f"{str(folder)!r} cannot be written ({error.strerror}), so its run cannot go on: "
                "make it writable, or copy it to a place that is."
            ) from error
        yield
