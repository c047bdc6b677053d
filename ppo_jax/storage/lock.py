"""One writer a run folder: a lock that names the process and the host which hold it.

The lock is the kernel's (flock) on the file `run.lock`, so it ends with its process: a file left by
a process that was killed on this host blocks nobody. The kernel's locks may not reach other hosts
that see the same folder. For them the file's content and age decide: its holder touches it every
ten seconds, and a file that was not touched for a minute is dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ppo_jax.config import reading
from ppo_jax.config.errors import InputError
from ppo_jax.storage import files

try:
    import fcntl
except ImportError:  # Windows: content and age alone
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
_SHAPE = {"pid?": int, "host?": str, "since?": str}
TOUCH_SECONDS = 10.0
STALE_SECONDS = 60.0
_ANNOUNCE_SECONDS = 0.5  # a holder that has just won may not have written its name yet


class LockedError(InputError):
    """Another process writes into the folder."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Be the folder's only writer, or refuse; the lock file is gone afterwards.

    Raises:
        LockedError: another process holds it, which the sentence names.
        InputError: a symbolic link is in its place.
        OSError: the folder is not there or cannot be written.
    """
    path = folder / LOCK
    descriptor = _acquire(path)
    done = threading.Event()
    toucher = threading.Thread(target=_touch, args=(descriptor, done), daemon=True)
    toucher.start()
    try:
        yield
    finally:
        done.set()
        toucher.join()
        with contextlib.suppress(OSError):  # the folder may be gone or read-only by now
            if _is_at(path, descriptor):
                os.unlink(path)
        os.close(descriptor)


def holder(folder: Path) -> dict[str, Any] | None:
    """The writer of the folder's lock file: {"pid", "host", "since"}, or None."""
    try:
        return reading.expect(reading.read_json(folder / LOCK), _SHAPE)
    except (OSError, ValueError):
        return None


def is_held(folder: Path) -> bool:
    """Check whether a living process writes into the folder, without taking its lock."""
    found = holder(folder)
    if found is None:
        return False
    with contextlib.suppress(OSError):
        age = time.time() - (folder / LOCK).stat().st_mtime
        is_near = found.get("host") == socket.gethostname()
        is_self = is_near and found.get("pid") == os.getpid()
        return age < STALE_SECONDS and (not is_near or is_self or _is_alive(found.get("pid")))
    return False


def refuse_if_held(folder: Path) -> None:
    """Refuse a folder that another process is writing, without taking it."""
    if (folder / LOCK).exists():
        with held(folder):
            pass


def _acquire(path: Path) -> int:
    while True:
        descriptor = files.open_own(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            has_kernel_lock = _flock(descriptor, path)
            if not _is_at(path, descriptor):  # its holder left and took the file along
                os.close(descriptor)
                continue
            _refuse_living(path, descriptor, has_kernel_lock)
            content = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            }
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(content).encode(), 0)
            return descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise


def _flock(descriptor: int, path: Path) -> bool:
    """Take the kernel's lock; False if this file system has none."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        raise LockedError(_sentence(path, _named(path))) from None
    except OSError:
        return False


def _named(path: Path) -> dict[str, Any]:
    """The holder's content; waits a moment for it to be written."""
    until = time.monotonic() + _ANNOUNCE_SECONDS
    while (found := holder(path.parent)) is None and time.monotonic() < until:
        time.sleep(0.02)
    return found or {}


def _refuse_living(path: Path, descriptor: int, has_kernel_lock: bool) -> None:
    """Refuse if the content names a living process that the kernel's lock does not cover."""
    found = holder(path.parent)
    if found is None:
        return
    if found.get("host") == socket.gethostname():
        if not has_kernel_lock and _is_alive(found.get("pid")):
            raise LockedError(_sentence(path, found))
        return
    age = time.time() - os.fstat(descriptor).st_mtime
    if age < -STALE_SECONDS:  # a clock was set back, or those of two hosts differ
        raise LockedError(
            _sentence(path, found)
            + f" The lock's time lies {-age:.0f} seconds ahead of this host's clock: if nothing "
            f"writes there any more, remove {path.name} in it."
        )
    if age < STALE_SECONDS:
        raise LockedError(
            _sentence(path, found)
            + f" It was seen {max(age, 0):.0f} seconds ago; {STALE_SECONDS:.0f} seconds after the "
            "last sign of life its lock is void."
        )


def _sentence(path: Path, found: dict[str, Any]) -> str:
    who = f"process {found.get('pid', 'unknown')} on {found.get('host', 'an unknown host')}"
    since = f" since {found['since']}" if "since" in found else ""
    return (
        f"{str(path.parent)!r} is being written by {who}{since}: wait for it or stop it, or name "
        "another folder."
    )


def _is_alive(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OverflowError:  # no process has such a number
        return False
    except OSError:  # another user's
        return True
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Check whether `path` still is the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _touch(descriptor: int, done: threading.Event) -> None:
    while not done.wait(TOUCH_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)
