"""A temporary PostgreSQL server, on a Unix socket in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def tools() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; Debian has it outside the path, one per version."""
    found = shutil.which("pg_ctl")
    places = [] if found is None else [Path(found).resolve().parent]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((p for p in places if (p / "initdb").exists() and (p / "pg_ctl").exists()), None)


def missing() -> str | None:
    """Reason that no server can be started here, or None."""
    if find_spec("psycopg") is None:
        return "PostgreSQL needs the package psycopg: pip install -e '.[postgresql]'"
    if tools() is None:
        return "no initdb and pg_ctl found: install PostgreSQL (apt-get install postgresql)"
    if os.geteuid() == 0 and _owner() is None:
        return "PostgreSQL does not run as root, and there is no user postgres to run it"
    return None


def _owner() -> pwd.struct_passwd | None:
    """User that runs the server, as root may not."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


@contextmanager
def server() -> Iterator[str]:
    """Start a server and yield its URL for SQLAlchemy; remove it and its data afterwards.

    Raises:
        RuntimeError: none can be started, with the sentence of `missing`, or PostgreSQL's message.
    """
    if (reason := missing()) is not None:
        raise RuntimeError(reason)
    binaries = tools()
    assert binaries is not None
    # A socket's path may have 107 bytes, so the folder must not be deep.
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        how: dict[str, Any] = {"cwd": folder}
        if os.geteuid() == 0 and (owner := _owner()) is not None:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            how |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        data, log = folder / "data", folder / "log"
        _call(log, [binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres"], how)
        control = [binaries / "pg_ctl", "-D", data, "-w", "-l", log]
        listening = f"-c listen_addresses='' -c unix_socket_directories={folder}"
        _call(log, [*control, "-o", listening, "start"], how)
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            _call(log, [*control, "-m", "immediate", "stop"], how)


def _call(log: Path, command: list[Any], how: dict[str, Any]) -> None:
    # No pipe: the server would hold it open, and the reader would never end.
    with tempfile.TemporaryFile("w+") as told:
        done = subprocess.run(command, stdout=told, stderr=told, check=False, **how)
        if done.returncode:
            told.seek(0)
            more = log.read_text() if log.exists() else ""
            raise RuntimeError(
                f"{command[0].name} ended with {done.returncode}: {told.read()}{more}"
            )
