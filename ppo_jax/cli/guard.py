"""A process that watches one of several hosts and reports how it ended.

jax ends a host at once, with an abort and a long log, if it hears that another one is gone. The
watching process turns that into a sentence and an exit code.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from ppo_jax.cli.answer import BAD_INPUT
from ppo_jax.runtime import signals

_FLAGS = ("--coordinator", "--hosts")
_DEATH = 1  # PR_SET_PDEATHSIG of Linux: the signal that a process gets when its parent ends


def has_hosts(words: Sequence[str]) -> bool:
    """Check whether a command is to be one of several hosts."""
    return any(word.split("=")[0] in _FLAGS for word in words) and hasattr(os, "fork")


def watched() -> int | None:
    """Go on in a new process: None there, and in this one the exit code when it has ended.

    Signals are passed on. If this process is killed, so is the other.
    """
    heard = {*signals.EXIT_CODES, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    has_joined = mmap.mmap(-1, 1)  # shared by both processes
    parent, child = os.getpid(), os.fork()
    if child == 0:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DEATH, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(signals.STOPPED)
        os.setpgid(0, 0)  # a Ctrl-C of the terminal comes once, by the parent
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signals.after_join = lambda: has_joined.__setitem__(0, 1)
        own_stdout()
        return None
    while True:
        number = signal.sigwait(heard)
        if number != signal.SIGCHLD:
            with suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return exit_code_of(os.waitstatus_to_exitcode(status), bool(has_joined[0]))


def own_stdout() -> None:
    """Leave stdout to the answer: libraries that print there, as gloo does, print to stderr."""
    sys.stdout.flush()
    answers = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(answers, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def exit_code_of(found: int, has_joined: bool) -> int:
    """Exit code for the end of the other process; prints a sentence if jax ended it."""
    if found != -signal.SIGABRT:
        return found if found >= 0 else 128 - found
    sentence, code = (
        "Stopped by the end of another host: what was saved before is kept; run the command again "
        "to go on.",
        signals.STOPPED,
    )
    if not has_joined:
        sentence, code = (
            "The hosts of this run did not come together: start all of them within five minutes, "
            "and let each reach the coordinator's address and port.",
            BAD_INPUT,
        )
    print(f"ppo-jax: {sentence}", file=sys.stderr, flush=True)
    return code
