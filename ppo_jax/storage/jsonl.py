"""Rows of a run as files: one JSON object a line, none lost and none written twice."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.config.errors import InputError
from ppo_jax.config.reading import open_regular
from ppo_jax.storage.files import (
    open_own,
    refuse_links,
    set_aside,
    to_strict_json,
    write_atomic,
)

Row = Mapping[str, Any]
_LONGEST = 1 << 28  # bytes of a row; a longer line is none of ours
_TOO_LONG = re.compile(rb"\d{40}")  # no float or count of ours has so many digits


class Position(NamedTuple):
    """The length and hash of a file of rows, as a checkpoint records them."""

    num_bytes: int
    sha256: str  # hash of these bytes


class JsonlLog:
    """A file of rows; a row has left the process when `write` returns.

    Opening an old file drops its torn last line. A row is written in one piece and without a
    buffer, so that a full disk is reported at once.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        rewind_jsonl(path)
        descriptor = open_own(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._hash = hashlib.sha256(self._path.read_bytes())
        self._num_bytes = self._path.stat().st_size

    def write(self, row: Row) -> None:
        """Append a row.

        Raises:
            OSError: the disk is full or read-only, or the file was removed or replaced.
        """
        data = (json.dumps(to_strict_json(row), allow_nan=False) + "\n").encode()
        self.check()
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._hash.update(data)
        self._num_bytes += len(data)

    def check(self) -> None:
        """Raise FileNotFoundError if the open file is no longer the one at this path."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno())):
                return
        raise FileNotFoundError(errno.ENOENT, "it was removed or replaced", str(self._path))

    def position(self) -> Position:
        return Position(self._num_bytes, self._hash.hexdigest())

    def sync(self) -> None:
        """Wait until all rows are on the disk, as a checkpoint must not be newer than its rows."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class LogFiles:
    """Files of rows in one folder, each of them opened when it is first used."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, tuple(names)
        self._open: dict[str, JsonlLog] = {}

    def write(self, name: str, row: Row) -> None:
        """Append a row to one of the files, see `JsonlLog.write`."""
        self._file(name).write(row)

    def files(self) -> list[JsonlLog]:
        return [self._file(name) for name in self._names]

    def positions(self) -> dict[str, dict[str, Any]]:
        """The position of each file, ready for JSON."""
        return {name: self._file(name).position()._asdict() for name in self._names}

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _file(self, name: str) -> JsonlLog:
        if name not in self._open:
            self._open[name] = JsonlLog(self._folder / name)
        self._open[name].check()
        return self._open[name]


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a file, all of them in memory; see `stream_jsonl`."""
    return list(stream_jsonl(path))


def stream_jsonl(path: Path | str) -> Iterator[dict[str, Any]]:
    """Read the rows of a file one by one, without its last line if a kill has torn it.

    Raises:
        InputError: any other line is no JSON object.
    """
    with open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), 1):
            if len(line) == _LONGEST:
                raise _damaged(Path(path), number)
            if line.endswith(b"\n"):
                yield _parse(Path(path), number, line)


def rewind_jsonl(path: Path | str, env_steps: int | None = None) -> None:
    """Drop a torn last line, and the rows after `env_steps`, which a checkpoint has not seen.

    The other lines keep their bytes; the file is replaced in one step. A missing file has no rows.
    """
    path = Path(path)
    refuse_links(path)
    if not path.exists():
        return
    kept = [
        line
        for number, line in enumerate(_whole_lines(path), 1)
        if env_steps is None or _env_steps(path, number, line) <= env_steps
    ]
    data = b"".join(kept)
    if len(data) == path.stat().st_size:
        return
    write_atomic(path, data)


def holds(path: Path | str, position: Position, *, is_whole: bool = False) -> bool:
    """Check whether a file begins with the rows up to a position, or ends there as well."""
    path = Path(path)
    refuse_links(path)
    data = path.read_bytes() if path.exists() else b""
    if is_whole and len(data) != position.num_bytes:
        return False
    return hashlib.sha256(data[: position.num_bytes]).hexdigest() == position.sha256


def rewind_to(path: Path | str, position: Position) -> str | None:
    """Cut a file of rows back to its position at a checkpoint; another file is set aside whole.

    Returns:
        None, or a sentence if the rows before that position are not those that were written.
    """
    path = Path(path)
    refuse_links(path)
    data = path.read_bytes() if path.exists() else b""
    kept = data[: position.num_bytes]
    if hashlib.sha256(kept).hexdigest() == position.sha256:
        if len(kept) < len(data):
            _truncate(path, position.num_bytes)
        return None
    found = (
        f"{path} is not what the run wrote up to its checkpoint ({position.num_bytes} bytes, found "
        f"{len(kept)}, or others)"
    )
    if not data:
        return f"{found}: new rows begin a new file."
    aside = set_aside(path)
    return f"{found}: it is kept as {aside.name}, and new rows begin a new file."


def _truncate(path: Path, size: int) -> None:
    descriptor = open_own(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _whole_lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _env_steps(path: Path, number: int, line: bytes) -> int:
    found = _parse(path, number, line).get("env_steps")
    if isinstance(found, bool) or not isinstance(found, int):
        raise InputError(f"{path}: line {number} has no env_steps, so the file is damaged.")
    return found


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(row := json.loads(line), dict) and not _TOO_LONG.search(line):
            return row
    raise _damaged(path, number)


def _damaged(path: Path, number: int) -> InputError:
    return InputError(
        f"{path}: line {number} is not a JSON object, so the file is damaged: restore it or "
        "delete the line."
    )
