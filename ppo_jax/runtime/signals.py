"""Requests to stop: signals and a time limit, remembered until a run can save everything.

No jax here: the command line listens before it imports any, so that no moment of a run is deaf.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

INTERRUPTED = 130  # exit code of Ctrl-C
STOPPED = 75  # exit code of every other signal and of the time limit: "run it again"

PATIENCE = 2.0  # seconds that a step has to end by itself after a request
# Seconds after which a SIGTERM is a second one: `timeout` sends each to the process and its group.
REPEATED_AFTER = 0.1

# The process runs one command and nothing else: `ppo-jax`, and no program of the user's.
owns_process = False
leaves_at_once = False  # other hosts may wait for this process: its end waits for none of them
after_join: Callable[[], None] | None = None  # informs the process that watches this one
prints = True  # False on the other hosts of a run on several

# Signals that ask for a stop. A system without one of them has no entry for it.
_NAMES = {
    "SIGINT": INTERRUPTED,
    "SIGTERM": STOPPED,
    "SIGHUP": STOPPED,  # the terminal or its ssh is gone
    "SIGXCPU": STOPPED,  # the limit of CPU time of a batch system
    "SIGUSR1": STOPPED,
    "SIGUSR2": STOPPED,
}
EXIT_CODES = {getattr(signal, name): code for name, code in _NAMES.items() if hasattr(signal, name)}


class Stopped(Exception):
    """A stop was requested while nothing had to be saved."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(
            f"Stopped by {reason}: what was saved before is kept; run the command again to go on."
        )
        self.exit_code = exit_code


class Terms:
    """The SIGTERMs that one listener has heard; the second one ends the process."""

    def __init__(self) -> None:
        self._first_at = math.inf

    def hear(self) -> None:
        now = time.monotonic()
        if now - self._first_at >= REPEATED_AFTER:
            end_process(STOPPED)
        self._first_at = min(self._first_at, now)


class StopRequest:
    """A request to stop, with its reason and exit code; the first reason counts."""

    def __init__(self) -> None:
        self.reason: str | None = None  # "SIGTERM", "Ctrl-C", "the time limit of 60 seconds"
        self.exit_code: int | None = None
        self.tell: Callable[[str], None] = lambda sentence: None
        self._started = time.monotonic()
        self._limit: float | None = None
        self._has_progress = False
        self._requested_at = math.inf
        self._terms = Terms()
        self.is_free = False  # nothing has to be saved: code may be left anywhere

    def __bool__(self) -> bool:
        limit = math.inf if self._limit is None else self._limit
        is_counted = self._has_progress or limit <= 0.0
        late = is_counted and time.monotonic() - self._started >= limit
        if late and self.reason is None:
            self.request(f"the time limit of {self._limit:g} seconds", STOPPED)
        return self.reason is not None

    def limit(self, seconds: float | None) -> None:
        """Ask for a stop so many seconds after this request began to listen; None for never.

        0 is a request at once.
        The limit counts from the first `progress` on. So a limit below the time of the start-up
        stops each start after some training, and a loop of restarts comes to an end.
        """
        self._limit = seconds

    def progress(self) -> None:
        """Record that this process has done work that a later one need not repeat."""
        self._has_progress = True

    def agree(self, *numbers: float) -> Sequence[float]:
        """The numbers of the first host, after an exchange of requests; there is no other here."""
        return numbers

    def request(self, reason: str, exit_code: int) -> None:
        if self.reason is None:
            self.reason, self.exit_code = reason, exit_code
            self._requested_at = time.monotonic()

    def check(self, patience: float = 0.0) -> None:
        """Raise `Stopped` if a stop was requested `patience` seconds ago or earlier."""
        if self and time.monotonic() - self._requested_at >= patience:
            raise Stopped(self.reason or "", self.exit_code or STOPPED)

    def on_signal(self, number: int, frame: Any = None) -> None:
        """A signal handler. A Ctrl-C after any other request means it: KeyboardInterrupt."""
        del frame
        name = signal.Signals(number).name
        if self.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGTERM:
            self._terms.hear()
        if self.reason is not None:
            if self.is_free:
                self.check(PATIENCE)
            return
        self.request("Ctrl-C" if name == "SIGINT" else name, EXIT_CODES[signal.Signals(number)])
        with suppress(Exception):  # the display may have been interrupted in the middle of a line
            self.tell(
                f"{self.reason}: stopping as soon as everything is saved (Ctrl-C or a second "
                "SIGTERM leaves at once)"
            )


class SharedStop(StopRequest):
    """The stop of several hosts: a request to one of them is one to all, once they have agreed.

    All hosts call `agree` at the same points of their common loop, so all stop at the same one.
    """

    def __init__(self, own: StopRequest, exchange: Callable[[Any], list[Any]]) -> None:
        self._own, self._exchange = own, exchange
        super().__init__()

    def __bool__(self) -> bool:
        return self.reason is not None

    @property
    def tell(self) -> Callable[[str], None]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._own.tell

    @tell.setter
    def tell(self, tell: Callable[[str], None]) -> None:
        self._own.tell = tell

    def limit(self, seconds: float | None) -> None:
        self._own.limit(seconds)

    def progress(self) -> None:
        self._own.progress()

    def agree(self, *numbers: float) -> Sequence[float]:
        """Exchange the requests to stop; return the first host's numbers."""
        is_asked = bool(self._own)  # looks at the time limit, too
        reason = f"{self._own.reason}"[:200] if is_asked else None
        found = self._exchange([reason, self._own.exit_code, *numbers])
        for host, (reason, code, *_) in enumerate(found):
            if reason is not None:
                self.request(f"{reason} on host {host}", code)
        return found[0][2:]

    @contextmanager
    def taking_over(self) -> Iterator[None]:
        """Keep single steps of this host from being left behind: the others would wait for it."""
        global _listening
        before, _listening = _listening, self
        try:
            yield
        finally:
            _listening = before


def is_shared(stop: StopRequest) -> bool:
    """Check whether several hosts stop together."""
    return isinstance(stop, SharedStop)


_listening: StopRequest | None = None


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Remember the signals of `EXIT_CODES` instead of dying; nested, it is the outer request.

    A second SIGTERM ends the process at once. A SIGHUP that is ignored stays so, as under nohup.
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
            if number == getattr(signal, "SIGHUP", None) and is_ignored(number):
                continue
            before[number] = signal.signal(number, stop.on_signal)
    except ValueError:  # only the main thread may set handlers
        yield stop
        return
    _listening = stop
    try:
        with _watching(stop):
            yield stop
    finally:
        _listening = None
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def check() -> None:
    """End a long step that has nothing to save, if a stop of this process was requested.

    Short steps come to their end, so that as much as possible is saved.

    Raises:
        Stopped: a stop was requested at least `PATIENCE` seconds ago.
    """
    if _listening is not None and not is_shared(_listening):
        _listening.check(PATIENCE)


@contextmanager
def free() -> Iterator[None]:
    """Mark code that has nothing to save, such as tracing: a stop leaves it wherever it is.

    Raises:
        Stopped: a stop was requested `PATIENCE` seconds ago, and the code has not ended since.
    """
    stop = _listening
    if stop is None:
        yield
        return
    before, stop.is_free = stop.is_free, True
    try:
        yield
    finally:
        stop.is_free = before


def end_process(exit_code: int) -> None:
    """End the process at once; like a SIGKILL it leaves files as they are."""
    os._exit(exit_code)


@contextmanager
def _watching(stop: StopRequest) -> Iterator[None]:
    """Watch for signals on a thread of its own.

    Handlers of Python run on the main thread, and only when a call into XLA has returned. This
    thread hears the signals meanwhile.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    if before != -1:  # somebody else listens in this way, such as asyncio
        signal.set_wakeup_fd(before)
    thread = threading.Thread(target=_watch, args=(ours, stop), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if before == -1:
            signal.set_wakeup_fd(-1)
        theirs.close()
        thread.join()
        ours.close()


def _watch(numbers: socket.socket, stop: StopRequest) -> None:
    """Read numbers of signals until the other end is closed.

    End the process at a second SIGTERM. Remind the main thread of a request now and then, so that
    code that is `free` ends.
    """
    terms = Terms()
    while True:
        try:
            heard = numbers.recv(64)
        except TimeoutError:
            if stop.reason is not None and stop.is_free:
                os.kill(os.getpid(), signal.SIGUSR1)  # any signal that is not counted
            continue
        if not heard:
            return
        numbers.settimeout(PATIENCE + 0.1)
        if int(signal.SIGTERM) in heard:
            terms.hear()
