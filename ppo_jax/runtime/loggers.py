"""Optional logging services, outside a run's critical path.

Each works on a thread of its own, from its start on, behind a bounded queue: one that raises, hangs
or fills its disk is reported once and left behind, and the run neither waits nor changes.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.storage import run_folder
from ppo_jax.storage.jsonl import Row, to_json


def _means(row: Row) -> dict[str, float]:
    """One number a name, for services that draw scalars: per-seed lists by their mean."""
    means = {}
    for name, value in to_json(row).items():
        values = value if isinstance(value, list) else [value]
        known = [x for x in values if isinstance(x, (int, float))]
        if known:
            means[name] = float(np.mean(known))
    return means


class Backend(Protocol):
    """A logging service."""

    def write(self, row: Row, env_steps: int) -> None: ...

    def close(self) -> None: ...


class TensorBoardLog:
    """Scalars for TensorBoard, means over seeds, against environment steps per seed."""

    def __init__(self, folder: Path | str, env_steps: int = 0) -> None:
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError(_missing("TensorBoard", "tensorboardX", "tensorboard")) from None
        # What an earlier process wrote beyond its checkpoint is not drawn.
        purge_step = env_steps + 1 if env_steps else None
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def write(self, row: Row, env_steps: int) -> None:
        for name, value in _means(row).items():
            self._writer.add_scalar(name, value, env_steps)

    def close(self) -> None:
        self._writer.close()


class WandbLog:
    """Scalars for Weights & Biases, means over seeds; mode "offline" needs no network.

    Args:
        run_id: of this project's run that is begun, or gone on with if it is there already. Rows
            that were logged beyond the checkpoint come again with the same numbers, and the service
            leaves out what is not newer than what it has.
    """

    def __init__(
        self,
        project: str,
        mode: str,
        config: Mapping[str, Any],
        folder: Path | str = ".",
        run_id: str | None = None,
    ) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError(_missing("Weights & Biases", "wandb", "wandb")) from None
        self._run = wandb.init(
            project=project,
            mode=mode,
            config=to_json(config),
            dir=str(folder),
            id=run_id,
            resume="allow",
            allow_val_change=True,  # a resumed run's budget may be another
        )

    def write(self, row: Row, env_steps: int) -> None:
        self._run.log(_means(row), step=env_steps)

    def close(self) -> None:
        self._run.finish()


def _missing(service: str, package: str, extra: str) -> str:
    return (
        f"logging to {service} needs the package {package}, which is not installed: install it "
        f"with pip install 'ppo-jax[{extra}]', or leave this log out."
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
) -> dict[str, Callable[[], Backend]]:
    """What starts the services that a run wants.

    Args:
        described: the content of config.json.
        env_steps: where the run goes on; what a service has of later steps it should drop.
    """
    found: dict[str, Callable[[], Backend]] = {}
    if options.tensorboard:
        found["tensorboard"] = lambda: TensorBoardLog(folder / "tensorboard", env_steps)
    if project := options.wandb:
        mode = os.environ.get("WANDB_MODE", "online")
        # The id that config.json keeps: a resumed run is the same run there, too.
        run_id = run_folder.run_id(folder)
        found["wandb"] = lambda: WandbLog(project, mode, described, folder, run_id)
    return found


class LogFanout:
    """Hands rows to several services, each on a thread of its own, and never waits for one.

    Args:
        openers: name -> what starts the service, called on its thread: also a start may hang.
        report: called once, on the caller's thread, with a sentence for each service left behind.
        capacity: rows that may wait for a service before it counts as hanging.
    """

    def __init__(
        self,
        openers: Mapping[str, Callable[[], Backend]],
        report: Callable[[str], None],
        capacity: int = 1000,
    ) -> None:
        self._workers = {name: _Worker(name, opener, capacity) for name, opener in openers.items()}
        self._report = report

    def write(self, row: Row, env_steps: int) -> None:
        for worker in self._workers.values():
            worker.put((to_json(row), env_steps))
        self._leave_failed_behind()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Let the services finish, for at most `timeout_seconds` altogether."""
        until = time.monotonic() + timeout_seconds
        for worker in self._workers.values():
            worker.put(None)
        for worker in self._workers.values():
            worker.join(max(0.0, until - time.monotonic()))
        self._leave_failed_behind()
        self._workers = {}

    def _leave_failed_behind(self) -> None:
        for name, worker in list(self._workers.items()):
            if worker.failure is not None:
                del self._workers[name]
                self._report(f"logging to {name} stopped, the run goes on: {worker.failure}")


class _Worker:
    """One service on one daemon thread, which a hanging service may keep without harm."""

    def __init__(self, name: str, opener: Callable[[], Backend], capacity: int) -> None:
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
        except Exception as error:  # whatever a service throws, the run is not its concern
            self.failure = f"{type(error).__name__}: {error}"
