"""The live display of a run."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np

from ppo_jax.analysis.stats import bootstrap_interval
from ppo_jax.analysis.terminal import sparkline
from ppo_jax.rl.metrics import METRICS, SCREEN
from ppo_jax.runtime.text import format_seconds, format_steps, visible

Row = Mapping[str, Any]
BAR = 24  # width of the bar
MIN_SEEDS = 4  # fewer have an interval as wide as all returns
MOST_POINTS = 512  # limit of the curve, an even number


class Screen:
    """One line that changes, with a bar, on a terminal; elsewhere nothing but plain lines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, ProgressColumn, Task
        from rich.progress import Progress as Bar
        from rich.text import Text

        class Words(ProgressColumn):
            """The text of the line, with a clock while nothing else changes."""

            def render(self, task: Task) -> Text:
                since = task.fields["since"]
                clock = f" {format_seconds(time.monotonic() - since)}" if since else ""
                return Text(f"{task.description}{clock}", overflow="ellipsis", no_wrap=True)

        self._stream = stream or sys.stderr or open(os.devnull, "w")  # noqa: SIM115, it was closed
        console = Console(file=self._stream)
        self._bar = None
        self._shown: str | None = None
        if console.is_terminal:
            self._bar = Bar(BarColumn(bar_width=BAR), Words(), console=console)
            self._task = self._bar.add_task(
                "starting", start=False, total=1.0, since=time.monotonic()
            )
            self._bar.start()

    @property
    def is_live(self) -> bool:
        return self._bar is not None

    @property
    def is_drawable(self) -> bool:
        """True on a terminal that knows the signs of a curve."""
        return self.is_live and "utf" in str(getattr(self._stream, "encoding", "")).lower()

    @property
    def columns(self) -> int:
        """Signs that fit beside the bar."""
        return 10_000 if self._bar is None else self._bar.console.width - BAR - 2

    def phase(self, text: str) -> None:
        """Show on a terminal, with a clock, that something has begun."""
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.update(self._task, description=text, since=time.monotonic())

    def show(self, share: float, text: str) -> None:
        """Change the line on a terminal: `share` of the work is done."""
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.start_task(self._task)  # the bar is no wave any more
                self._bar.update(self._task, completed=share, description=text, since=None)
                self._shown = text

    def message(self, text: str) -> None:
        """A line of its own, above the one that changes."""
        text = visible(text)
        with contextlib.suppress(OSError, ValueError):  # a closed stderr must not end a run
            if self._bar is not None:
                self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                self._stream.write(f"{text}\n")
                self._stream.flush()

    def close(self) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
                if self._shown is not None:  # it stays on the screen in place of a phase
                    self._bar.update(self._task, description=self._shown, since=None)
                self._bar.stop()


class Progress:
    """The live display of a run on stderr; without a terminal, some twenty plain lines.

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
        self._total_iterations = total_iterations
        self._total_env_steps = total_env_steps
        self._num_seeds = num_seeds
        self._lines_told = 0
        self._is_planned = False
        self._returns: Sequence[float | None] = ()  # the newest that are known
        self._curve: list[float] = []  # mean returns so far
        self._evaluated = ""
        self._screen = Screen(stream)
        self.message = self._screen.message
        self.phase = self._screen.phase
        self.close = self._screen.close

    def plan(self, lines: Sequence[str]) -> None:
        """Print the plan of the run, once."""
        for line in () if self._is_planned else lines:
            self.message(line)
        self._is_planned = True

    def evaluated(self, score: float | None, best: float | None) -> None:
        """Keep the newest evaluation and the best one on the line."""
        words = [] if score is None else [f"eval {score:.4g}"]
        words += [f"best {best:.4g}"] if best not in (None, score) else []
        self._evaluated = ", ".join(words)

    def update(self, iteration: int, row: Row) -> None:
        """Show the state after `iteration` iterations.

        Args:
            row: env_steps (per seed), env_steps_per_second (summed over seeds), and the metrics
                that `rl.metrics` shows on the screen ([S], None if unknown).
        """
        total = max(self._total_iterations, 1)
        if known := _known(row.get("episode_return")):
            self._returns = known
            self._curve.append(float(np.mean(known)))
            if len(self._curve) > MOST_POINTS:
                self._curve = np.reshape(self._curve, (-1, 2)).mean(1).tolist()
        text = self.describe(iteration, {**row, "episode_return": self._returns})
        if self._screen.is_live:
            self._screen.show(iteration / total, text)
            return
        twentieth = 20 * iteration // total
        if twentieth >= self._lines_told or iteration >= self._total_iterations:
            self._lines_told = twentieth + 1
            self.message(text)

    def describe(self, iteration: int, row: Row) -> str:
        """One line: iterations, percent, time left, speed, mean return and its interval, KL.

        On a terminal a curve of the return follows it, and the last and the best evaluation.
        """
        percent = f"{100 * iteration / max(self._total_iterations, 1):.0f}%"
        parts = [(9, f"{iteration}/{self._total_iterations}"), (9, percent)]
        rate = row.get("env_steps_per_second")
        if rate:
            steps_left = (self._total_env_steps - row["env_steps"]) * self._num_seeds
            parts += [(7, f"{format_seconds(max(steps_left, 0) / rate)} left")]
            parts += [(3, f"{format_steps(rate)} env steps/s")]
        for name, metric in METRICS.items():
            known = _known(row.get(name)) if metric.shown == SCREEN else []
            if known and name == "episode_return":
                parts += [(8, f"{metric.title} {_mean_and_interval(known)}")]
                parts += [(4, sparkline(self._curve))] if self._screen.is_drawable else []
            elif known:
                parts += [(2, f"{metric.title} {np.mean(known):.2g}")]
        parts += [(5, self._evaluated)]
        return _fitting([part for part in parts if part[1]], self._screen.columns)


class SweepProgress:
    """The live display of a sweep on stderr; without a terminal, a line now and then."""

    def __init__(self, stream: TextIO | None = None, every_seconds: float = 10.0) -> None:
        self._every_seconds = every_seconds
        self._told_at = time.monotonic()
        self._screen = Screen(stream)
        self.message = self._screen.message
        self.close = self._screen.close

    def update(self, share: float, text: str) -> None:
        """Show how far what is being trained has come: `share` of it, in words `text`."""
        if self._screen.is_live:
            self._screen.show(share, text)
        elif time.monotonic() - self._told_at >= self._every_seconds:
            self._told_at = time.monotonic()
            self.message(text)


def _fitting(parts: Sequence[tuple[int, str]], columns: int) -> str:
    """Join the parts, without the least important ones if all do not fit."""
    left = list(parts)
    while len(text := "  ".join(words for _, words in left)) > columns and len(left) > 1:
        left.remove(min(left))
    return text


def _mean_and_interval(values: list[float]) -> str:
    mean = f"{np.mean(values):.4g}"
    if len(values) < MIN_SEEDS:
        return mean
    interval = bootstrap_interval(
        values, np.mean, resamples=500, generator=np.random.default_rng(0)
    )
    return mean if interval is None else f"{mean} ({interval[0]:.4g} to {interval[1]:.4g})"


def _known(values: Sequence[float | None] | None) -> list[float]:
    return [x for x in values or () if x is not None and math.isfinite(x)]


class Silence(NamedTuple):
    """A display that shows nothing."""

    def update(self, done: float, shown: Any) -> None:
        del done, shown

    def message(self, text: str) -> None:
        del text

    def phase(self, text: str) -> None:
        del text

    def plan(self, lines: Sequence[str]) -> None:
        del lines

    def evaluated(self, score: float | None, best: float | None) -> None:
        del score, best


@contextlib.contextmanager
def display(
    total_iterations: int, total_env_steps: int, num_seeds: int, is_quiet: bool
) -> Iterator[Progress | Silence]:
    """The live display, or none if `quiet`."""
    if is_quiet:
        yield Silence()
        return
    shown = Progress(total_iterations, total_env_steps, num_seeds)
    try:
        yield shown
    finally:
        shown.close()


@contextlib.contextmanager
def sweep_display(is_quiet: bool) -> Iterator[SweepProgress | Silence]:
    """The live display of a sweep, or none if `quiet`."""
    if is_quiet:
        yield Silence()
        return
    shown = SweepProgress()
    try:
        yield shown
    finally:
        shown.close()
