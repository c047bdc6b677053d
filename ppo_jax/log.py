"""What a run tells while it runs: rows in files, optional logging services, the live display.

`JsonlLog` holds the results and may fail a run; everything behind `LogFanout` is a courtesy and
may not: a service that raises, hangs or fills up is reported once and left behind.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from ppo_jax.config import InputError
from ppo_jax.stats import bootstrap_interval

Row = Mapping[str, Any]


def to_json(value: Any) -> Any:
    """`value` as plain JSON data: arrays become lists, numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's and jax's arrays and scalars
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class JsonlLog:
    """One JSON object a line, flushed at once; opening an old file drops its torn last line."""

    def __init__(self, path: Path | str) -> None:
        rewind_jsonl(path)
        self._file = Path(path).open("a", encoding="utf-8", newline="\n")  # noqa: SIM115

    def write(self, row: Row) -> None:
        self._file.write(json.dumps(to_json(row), allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Wait until all rows are on the disk: before a checkpoint that comes after them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a file; a last line without an end was torn by a kill and is passed over.

    Raises:
        InputError: any other line is no JSON object.
    """
    return [_parse(Path(path), n, line) for n, line in enumerate(_whole_lines(Path(path)), 1)]


def rewind_jsonl(path: Path | str, env_steps: int | None = None) -> None:
    """Drop a torn last line, and the rows after `env_steps`: those of a run beyond its checkpoint.

    What stays, stays byte for byte; the file is replaced in one step. No file is no rows.
    """
    path = Path(path)
    if not path.exists():
        return
    kept = [
        line
        for number, line in enumerate(_whole_lines(path), 1)
        if env_steps is None or _parse(path, number, line)["env_steps"] <= env_steps
    ]
    data = b"".join(kept)
    if len(data) == path.stat().st_size:
        return
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _whole_lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        if isinstance(row := json.loads(line), dict):
            return row
    raise InputError(
        f"{path}: line {number} is not a JSON object, so the file is damaged: restore it or "
        "delete the line."
    )


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

    def __init__(self, folder: Path | str) -> None:
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError(_missing("TensorBoard", "tensorboardX", "tensorboard")) from None
        self._writer = SummaryWriter(str(folder))

    def write(self, row: Row, env_steps: int) -> None:
        for name, value in _means(row).items():
            self._writer.add_scalar(name, value, env_steps)

    def close(self) -> None:
        self._writer.close()


class WandbLog:
    """Scalars for Weights & Biases, means over seeds; mode "offline" needs no network."""

    def __init__(
        self, project: str, mode: str, config: Mapping[str, Any], folder: Path | str = "."
    ) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError(_missing("Weights & Biases", "wandb", "wandb")) from None
        self._run = wandb.init(project=project, mode=mode, config=to_json(config), dir=str(folder))

    def write(self, row: Row, env_steps: int) -> None:
        self._run.log(_means(row), step=env_steps)

    def close(self) -> None:
        self._run.finish()


def _missing(service: str, package: str, extra: str) -> str:
    return (
        f"logging to {service} needs the package {package}, which is not installed: install it "
        f"with pip install 'ppo-jax[{extra}]', or leave this log out."
    )


class LogFanout:
    """Hands rows to several services, each on a thread of its own, and never waits for one.

    Args:
        backends: name -> service.
        report: called once, on the caller's thread, with a sentence for each service left behind.
        capacity: rows that may wait for a service before it counts as hanging.
    """

    def __init__(
        self, backends: Mapping[str, Backend], report: Callable[[str], None], capacity: int = 1000
    ) -> None:
        self._workers = {
            name: _Worker(name, backend, capacity) for name, backend in backends.items()
        }
        self._report = report

    def write(self, row: Row, env_steps: int) -> None:
        for worker in self._workers.values():
            worker.put((to_json(row), env_steps))
        self._leave_failed_behind()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Let every service finish, for at most `timeout_seconds` each."""
        for worker in self._workers.values():
            worker.put(None)
        for worker in self._workers.values():
            worker.join(timeout_seconds)
        self._leave_failed_behind()
        self._workers = {}

    def _leave_failed_behind(self) -> None:
        for name, worker in list(self._workers.items()):
            if worker.failure is not None:
                del self._workers[name]
                self._report(f"logging to {name} stopped, the run goes on: {worker.failure}")


class _Worker:
    """One service on one daemon thread, which a hanging service may keep without harm."""

    def __init__(self, name: str, backend: Backend, capacity: int) -> None:
        self.failure: str | None = None
        self._backend = backend
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
            self.failure = f"it did not finish within {timeout_seconds:g} seconds."

    def _work(self) -> None:
        try:
            while (item := self._waiting.get()) is not None:
                self._backend.write(*item)
            self._backend.close()
        except Exception as error:  # whatever a service throws, the run is not its concern
            self.failure = f"{type(error).__name__}: {error}"


class Progress:
    """The live display of a run on stderr; where that is no terminal, some twenty plain lines.

    Args:
        total_iterations: of the run.
        total_env_steps: of one seed over the whole run.
        num_seeds: S.
    """

    def __init__(
        self,
        total_iterations: int,
        total_env_steps: int,
        num_seeds: int,
        stream: TextIO | None = None,
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._total_iterations = total_iterations
        self._total_env_steps = total_env_steps
        self._num_seeds = num_seeds
        self._stream = sys.stderr if stream is None else stream
        self._lines_told = 0
        console = Console(file=self._stream)
        self._bar = None
        if console.is_terminal:
            self._bar = Bar(
                BarColumn(bar_width=24), TextColumn("{task.description}"), console=console
            )
            self._task = self._bar.add_task("compiling", total=total_iterations)
            self._bar.start()

    def update(self, iteration: int, row: Row) -> None:
        """Show the state after `iteration` iterations.

        Args:
            row: env_steps (per seed), episode_return and kl_old_new ([S], None where unknown),
                env_steps_per_second (summed over seeds).
        """
        text = self.describe(iteration, row)
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration, description=text)
            return
        twentieth = 20 * iteration // max(self._total_iterations, 1)
        if twentieth >= self._lines_told or iteration >= self._total_iterations:
            self._lines_told = twentieth + 1
            self.message(text)

    def describe(self, iteration: int, row: Row) -> str:
        """One line: iterations, percent, time left, speed, mean return and its interval, KL."""
        parts = [
            f"{iteration}/{self._total_iterations}",
            f"{100 * iteration / max(self._total_iterations, 1):.0f}%",
        ]
        rate = row.get("env_steps_per_second")
        if rate:
            steps_left = (self._total_env_steps - row["env_steps"]) * self._num_seeds
            parts += [f"{format_seconds(max(steps_left, 0) / rate)} left"]
            parts += [f"{format_steps(rate)} env steps/s"]
        known = _known(row.get("episode_return"))
        if known:
            told = f"return {np.mean(known):.4g}"
            interval = bootstrap_interval(
                known, np.mean, resamples=500, generator=np.random.default_rng(0)
            )
            parts += [
                told if interval is None else f"{told} ({interval[0]:.4g} to {interval[1]:.4g})"
            ]
        divergence = _known(row.get("kl_old_new"))
        if divergence:
            parts += [f"KL {np.mean(divergence):.2g}"]
        return "  ".join(parts)

    def message(self, text: str) -> None:
        """A line of its own, above the live display."""
        with contextlib.suppress(OSError, ValueError):  # a closed stderr must not end a run
            if self._bar is not None:
                self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                self._stream.write(f"{text}\n")
                self._stream.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _known(values: Sequence[float | None] | None) -> list[float]:
    return [x for x in values or () if x is not None and math.isfinite(x)]


def format_steps(number: float) -> str:
    """Three significant digits with an SI unit: 950, 12.3k, 1.5M, 2.04G."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.3g}"


def format_seconds(seconds: float) -> str:
    """45s, 3m05s or 2h07m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
