"""Files that appear whole or not at all, and values as plain JSON."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ppo_jax.config.config import Schedule
from ppo_jax.config.errors import InputError

_PIECE = 1 << 20  # bytes written at once
_TEMPORARY = re.compile(r"\..+\.tmp-[0-9a-f]{8}(\.\w+)?")
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_OWN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
# A new file only: an existing name is refused, and a symlink is not followed.
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OWN


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file in one step: a reader finds the old content or the new one, never a part.

    The content goes to a new temporary file in the same folder, which is synced and renamed; then
    the folder is synced. A kill at any moment leaves the old content, and at most a temporary file
    (see `is_temporary`). A symlink at `path` is replaced, not followed.

    Args:
        content: bytes, or text to be written as UTF-8.

    Raises:
        OSError: the disk is full, read-only or gone; the old content is untouched.
    """
    temporary = _temporary_beside(path)
    try:
        # A folder's name may have bytes that are no text.
        plain = content.encode(errors="backslashreplace") if isinstance(content, str) else content
        write_synced(temporary, plain)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_first(path: Path, content: bytes) -> bool:
    """Write a file in one step, unless another process has made it before.

    A hard link gives the synced content its name, which fails if the name is taken. A file system
    without hard links gets the file by its exclusive creation, which a kill may leave cut.

    Returns:
        True if this process made the file.

    Raises:
        OSError: the disk is full, read-only or gone.
    """
    temporary = _temporary_beside(path)
    try:
        write_synced(temporary, content)
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            write_synced(path, content)
        except FileExistsError:
            return False
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_folder(path.parent)
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file for the body to write, which then takes the place of `path` in one step.

    It has the suffix of `path`. A symlink at `path` is replaced, not followed. If the body fails,
    nothing changes.
    """
    temporary = path.with_name(f".{path.stem}.tmp-{secrets.token_hex(4)}{path.suffix}")
    os.close(os.open(temporary, _NEW_FILE, 0o666))
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def refuse_links(*paths: Path) -> None:
    """Refuse symbolic links, pipes and devices where something is to be written.

    Raises:
        InputError: the sentence names the link.
    """
    for path in paths:
        if path.is_symlink():
            raise InputError(
                f"{str(path)!r} is a symbolic link, and nothing is written through one: remove it, "
                "or put the file itself there."
            )
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{str(path)!r} is no file and no folder: remove it.")


def open_own(path: Path, flags: int, mode: int = 0o666) -> int:
    """Open a file for writing as a descriptor, but never what a symbolic link leads to.

    Raises:
        InputError: a symbolic link has this name.
        OSError: the disk refuses it.
    """
    refuse_links(path)
    try:
        return os.open(path, flags | _OWN, mode)
    except OSError:
        refuse_links(path)  # one that came in between
        raise


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be used, so that it is neither used nor lost."""
    numbered = (path.with_name(f"{path.name}.set-aside-{n}") for n in itertools.count(1))
    aside = next(name for name in numbered if not os.path.lexists(name))
    os.rename(path, aside)
    return aside


def write_folder_atomic(path: Path, contents: Mapping[str, bytes]) -> None:
    """Make a folder of files in one step; an empty folder may be there already.

    Args:
        contents: file name -> bytes.

    Raises:
        OSError: the disk refuses it, or a folder with files is there; nothing is left behind.
    """
    temporary = _temporary_beside(path)
    try:
        temporary.mkdir()
        for name, content in contents.items():
            write_synced(temporary / name, content)
        sync_folder(temporary)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder; a kill at any moment leaves all of it, or a hidden rest."""
    doomed = _temporary_beside(path)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk.

    Raises:
        OSError: the disk refuses it, or something (a symlink, too) has this name already.
    """
    descriptor = os.open(path, _NEW_FILE, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest[:_PIECE]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk."""
    if os.name == "nt":  # Windows cannot open a folder, and orders renames by itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Check whether a file name is one that a killed `write_atomic` leaves."""
    return _TEMPORARY.fullmatch(name) is not None


def _temporary_beside(path: Path) -> Path:
    """A name of its own for each write, so that two writers never share a temporary file."""
    return path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")


def write_json(path: Path, content: Any) -> None:
    """Write `to_json(content)` in one step, see `write_atomic`."""
    write_atomic(path, json.dumps(to_json(content), indent=2, allow_nan=False) + "\n")


def to_json(value: Any) -> Any:
    """Plain JSON data that keeps infinities, as the text "inf" or "-inf"; NaN is None.

    For settings and results, which are read back. Arrays become lists. A schedule becomes text
    with every digit, so that a resumed run has the same bits.
    """
    return _plain(value, lambda number: None if math.isnan(number) else str(number))


def to_strict_json(value: Any) -> Any:
    """Plain JSON data with numbers only: infinities and NaN are None.

    For rows of metrics, whose readers expect a number or null. All else is as in `to_json`.
    """
    return _plain(value, lambda number: None)


def _plain(value: Any, spell: Callable[[float], str | None]) -> Any:
    """`value` as JSON data; `spell` writes a number that is not finite."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item, spell) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, spell) for item in value]
    if isinstance(value, Schedule):
        ends = ":".join(repr(float(end)) for end in (value.start, value.end))
        return ends + (":cosine" if value.cosine else "")
    if hasattr(value, "tolist"):  # arrays and scalars of numpy and jax
        return _plain(value.tolist(), spell)
    if isinstance(value, float) and not math.isfinite(value):
        return spell(value)
    return value
