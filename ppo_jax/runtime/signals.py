"""Requests to stop: signals and a time limit, remembered until a run can save everything.

No jax here: the command line listens before it imports any, so that no moment of a run is deaf.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

INTERRUPTED = 130  # exit code of Ctrl-C
STOPPED = 75  # exit code of every other signal and of the time limit: "run it again"

_NAMES = {"SIGINT": INTERRUPTED, "SIGTERM": STOPPED, "SIGUSR1": STOPPED}
EXIT_CODES = {getattr(signal, name): code for name, code in _NAMES.items() if hasattr(signal, name)}


class StopRequest:
    """A request to stop, with its reason and exit code; the first reason counts."""

    def __init__(self) -> None:
        self.reason: str | None = None  # "SIGTERM", "Ctrl-C", "the time limit of 60 seconds"
        self.exit_code: int | None = None
        self.tell: Callable[[str], None] = lambda sentence: None
        self._started = time.monotonic()
        self._limit: float | None = None

    def __bool__(self) -> bool:
        late = self._limit is not None and time.monotonic() - self._started >= self._limit
        if late and self.reason is None:
            self.request(f"the time limit of {self._limit:g} seconds", STOPPED)
        return self.reason is not None

    def limit(self, seconds: float | None) -> None:
        """Ask for a stop so many seconds after this request began to listen; None for never."""
        self._limit = seconds

    def request(self, reason: str, exit_code: int) -> None:
        if self.reason is None:
            self.reason, self.exit_code = reason, exit_code

    def on_signal(self, number: int, frame: Any = None) -> None:
        """A signal handler. A Ctrl-C after any other request means it: KeyboardInterrupt."""
        del frame
        name = signal.Signals(number).name
        if self.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.request("Ctrl-C" if name == "SIGINT" else name, EXIT_CODES[signal.Signals(number)])
        with suppress(Exception):  # the display may have been interrupted in the middle of a line
            self.tell(
                f"{self.reason}: stopping as soon as everything is saved (Ctrl-C once more leaves "
                "at once)"
            )


_listening: StopRequest | None = None


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Remember Ctrl-C, SIGTERM and SIGUSR1 instead of dying; nested, it is the outer request.

    Outside the main thread signals are not ours: there only a time limit can stop a run.
    """
    global _listening
    if _listening is not None:
        yield _listening
        return
    stop = StopRequest()
    before: dict[int, Any] = {}
    try:
        for number in EXIT_CODES:
            before[number] = signal.signal(number, stop.on_signal)
    except ValueError:  # only the main thread may set handlers
        yield stop
        return
    _listening = stop
    try:
        yield stop
    finally:
        _listening = None
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
