"""Optional logging services, outside a run's critical path.

Each service works on a thread of its own behind a bounded queue. A service that raises, hangs or
fills its disk is reported once and dropped. The run neither waits nor changes.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ppo_jax.config.errors import InputError, install
from ppo_jax.config.options import RunOptions
from ppo_jax.rl.metrics import MAX, METRICS, reduction_of
from ppo_jax.storage import run_folder
from ppo_jax.storage.files import to_strict_json
from ppo_jax.storage.jsonl import Row

Mode = Literal["online", "offline", "disabled", "shared"]


def _scalars(row: Row) -> dict[str, float]:
    """Reduce the seeds to one number a name: the largest of largest values, else the mean."""
    scalars = {}
    for name, value in to_strict_json(row).items():
        values = value if isinstance(value, list) else [value]
        known = [x for x in values if isinstance(x, (int, float))]
        if known:
            over_seeds = np.max if reduction_of(name) == MAX else np.mean
            scalars[name] = float(over_seeds(known))
    return scalars


def _description(name: str) -> str:
    """The metric's meaning and unit; empty for a name outside the table of metrics."""
    if name not in METRICS:
        return ""
    _, meaning, unit, *_ = METRICS[name]
    return f"{meaning} ({unit})" if unit else meaning


class Service(Protocol):
    """A logging service."""

    def write(self, row: Row, env_steps: int) -> None: ...

    def close(self) -> None: ...


class TensorBoardLog:
    """Scalars for TensorBoard, reduced over seeds, by environment steps per seed."""

    def __init__(self, folder: Path | str, env_steps: int = 0) -> None:
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError(_missing("TensorBoard", "tensorboardX", "tensorboard")) from None
        # TensorBoard does not draw rows that an earlier process wrote beyond its checkpoint.
        purge_step = env_steps + 1 if env_steps else None
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def write(self, row: Row, env_steps: int) -> None:
        for name, value in _scalars(row).items():
            self._writer.add_scalar(name, value, env_steps, summary_description=_description(name))

    def close(self) -> None:
        self._writer.close()


class WandbLog:
    """Scalars for Weights & Biases, reduced over seeds, by environment steps per seed.

    Args:
        mode: "offline" needs no network; None follows the variable WANDB_MODE.
        run_id: the project's run to begin, or to resume if it exists. Rows beyond the checkpoint
            are logged again with the same numbers, and the service ignores them.
    """

    def __init__(
        self,
        project: str,
        mode: Mode | None,
        config: Mapping[str, Any],
        folder: Path | str = ".",
        run_id: str | None = None,
    ) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError(_missing("Weights & Biases", "wandb", "wandb")) from None
        os.environ.setdefault("WANDB_QUIET", "true")  # no table of results on our stderr
        self._run = wandb.init(
            project=project,
            mode=mode,
            config=to_strict_json(config),
            dir=str(folder),
            id=run_id,
            resume="allow",
            allow_val_change=True,  # a resumed run may have a larger budget
        )
        for name, metric in METRICS.items():
            if metric.reduction == MAX:
                self._run.define_metric(name, summary="max")

    def write(self, row: Row, env_steps: int) -> None:
        self._run.log(_scalars(row), step=env_steps)

    def close(self) -> None:
        self._run.finish()


def _missing(service: str, package: str, extra: str) -> str:
    return (
        f"logging to {service} needs the package {package}, which is not installed: install it "
        f"with {install(extra)}, or leave this log out."
    )


def require(options: RunOptions) -> None:
    """Refuse a logging service whose package is missing, before anything is written."""
    for is_wanted, service, package, extra in (
        (options.tensorboard, "TensorBoard", "tensorboardX", "tensorboard"),
        (options.wandb, "Weights & Biases", "wandb", "wandb"),
    ):
        if is_wanted and find_spec(package) is None:
            raise InputError(_missing(service, package, extra))


def openers(
    folder: Path, options: RunOptions, described: Mapping[str, Any], env_steps: int
) -> dict[str, Callable[[], Service]]:
    """Functions that start the services a run asks for.

    Args:
        described: the content of config.json.
        env_steps: the run resumes here; a service should drop its rows of later steps.
    """
    found: dict[str, Callable[[], Service]] = {}
    if options.tensorboard:
        found["tensorboard"] = lambda: TensorBoardLog(folder / "tensorboard", env_steps)
    if project := options.wandb:
        run_id = run_folder.run_id(folder)  # a resumed run is the same run there, too
        found["wandb"] = lambda: WandbLog(project, None, described, folder, run_id)
    return found


class LogFanout:
    """Hands rows to several services, each on a thread of its own, and never waits for one.

    Args:
        openers: name -> function that starts the service. It runs on the service's thread, because
            a start may hang, too.
        report: called on the caller's thread with one sentence for each dropped service.
        capacity: rows that may wait for a service before it counts as hanging.
    """

    def __init__(
        self,
        openers: Mapping[str, Callable[[], Service]],
        report: Callable[[str], None],
        capacity: int = 1000,
    ) -> None:
        self._workers = {name: _Worker(name, opener, capacity) for name, opener in openers.items()}
        self._report = report

    def write(self, row: Row, env_steps: int) -> None:
        for worker in self._workers.values():
            worker.put((to_strict_json(row), env_steps))
        self._drop_failed()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Let the services finish, for at most `timeout_seconds` altogether."""
        until = time.monotonic() + timeout_seconds
        for worker in self._workers.values():
            worker.put(None)
        for worker in self._workers.values():
            worker.join(max(0.0, until - time.monotonic()))
        self._drop_failed()
        self._workers = {}

    def _drop_failed(self) -> None:
        for name, worker in list(self._workers.items()):
            if worker.failure is not None:
                del self._workers[name]
                self._report(f"logging to {name} stopped, the run goes on: {worker.failure}")


class _Worker:
    """One service on a daemon thread, so that a hanging service does not hold the process."""

    def __init__(self, name: str, opener: Callable[[], Service], capacity: int) -> None:
        self.failure: str | None = None
        self._opener = opener
        self._waiting: queue.Queue[tuple[Row, int] | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._work, name=f"log-{name}", daemon=True)
        self._thread.start()

    def put(self, item: tuple[Row, int] | None) -> None:
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self.failure = f"{self._waiting.maxsize} rows are waiting for it."

    def join(self, timeout_seconds: float) -> None:
        self._thread.join(timeout_seconds)
        if self._thread.is_alive() and self.failure is None:
            self.failure = "it did not finish in time."

    def _work(self) -> None:
        try:
            backend = self._opener()
            while (item := self._waiting.get()) is not None:
                backend.write(*item)
            backend.close()
        except Exception as error:  # no failure of a service may end the run
            self.failure = f"{type(error).__name__}: {error}"
