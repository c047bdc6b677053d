"""Work beside the training loop: one piece at a time, on a thread, nothing of it lost silently."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """One piece of work at a time on a thread; its error is raised by the next `check` or `wait`.

    The thread does not keep the process alive: whoever leaves without `wait` (a second Ctrl-C)
    leaves the work where a SIGKILL would.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin `work` as soon as the piece before it is done.

        Raises:
            whatever the piece before it raised; `work` is not begun then.
        """
        self.wait()
        self._thread = threading.Thread(target=self._carry_out, args=(work,), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what the work raised, once; does not wait."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def wait(self) -> None:
        """Until nothing is under way; raises what the work raised, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _carry_out(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # whatever it is, it belongs to the loop's thread
            self._failure = error
