"""Work on a thread beside the caller's: nothing of it is lost silently."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp

from ppo_jax.runtime import signals

Result = TypeVar("Result")


class Aside(Generic[Result]):
    """A call into XLA on a thread, so that the caller hears signals meanwhile.

    A caller that stops leaves the call behind. The end of a Python program waits for it, as a
    thread that is killed within XLA aborts the process; the command line ends without waiting.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._found: list[Result] = []
        self._failure: BaseException | None = None
        self._work = work
        self._is_done = threading.Event()
        threading.Thread(target=self._carry_out).start()

    def result(self) -> Result:
        """Wait for the result.

        Raises:
            Stopped: a stop was requested first.
            whatever the work raised.
        """
        while not self._is_done.wait(0.1):
            signals.check()
        if self._failure is not None:
            raise self._failure
        return self._found[0]

    def _carry_out(self) -> None:
        try:
            self._found.append(self._work())
        except BaseException as error:  # whatever it is, it belongs to the caller's thread
            self._failure = error
        self._is_done.set()


def compiled(lowered: Any) -> Any:
    """Return `lowered.compile()`.

    Raises:
        Stopped: a stop was requested first.
    """
    return Aside(lowered.compile).result()


def called(executable: Callable[..., Result], *arguments: Any) -> Result:
    """Call a compiled program and wait until its results are computed.

    Raises:
        Stopped: a stop was requested first.
    """
    is_double = jnp.result_type(float) == jnp.float64  # each thread has its own setting

    def work() -> Result:
        with jax.enable_x64(is_double):
            return jax.block_until_ready(executable(*arguments))

    return Aside(work).result()


def interruptible(program: Any) -> Callable[..., Any]:
    """A jitted program as a function that waits for its result and hears requests to stop.

    It is compiled once for all arguments of the same shapes, which must have the same placement.
    """
    executables: dict[Any, Any] = {}

    def call(*arguments: Any) -> Any:
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(arguments))
        if shapes not in executables:
            executables[shapes] = compiled(program.lower(*arguments))
        return called(executables[shapes], *arguments)

    return call


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
