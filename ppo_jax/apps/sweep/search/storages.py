"""Optuna's storage of a study: a database's URL or a journal's file."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ppo_jax.apps.sweep.search.parameters import load
from ppo_jax.config.errors import InputError, install
from ppo_jax.config.values import masked


def require(storage: str | None) -> None:
    """Refuse a storage that cannot be opened, before anything is compiled or written.

    A server is asked for a connection. A file is not made yet: its folder must be there.

    Args:
        storage: None for a file in the sweep's own folder.

    Raises:
        InputError: Optuna is missing, or the storage cannot be used.
    """
    load()
    if storage is None:
        return
    try:
        if "://" not in storage:
            _require_place(Path(storage))
            return
        import sqlalchemy  # pyright: ignore[reportMissingImports]

        engine = sqlalchemy.create_engine(with_driver(storage))
        if engine.dialect.name == "sqlite":
            if engine.url.database not in (None, "", ":memory:"):
                _require_place(Path(engine.url.database))
            return
        engine.connect().close()
    except Exception as error:  # whatever a database's driver throws
        raise refusal(storage, error) from error


def _require_place(path: Path) -> None:
    """Refuse a file that cannot be made or written."""
    if path.is_dir():
        raise IsADirectoryError("it is a folder")
    wanted = path if path.exists() else path.parent
    if not os.access(wanted, os.W_OK | (0 if path.exists() else os.X_OK)):
        raise FileNotFoundError(f"{str(path.parent)!r} is no writable folder")


def open_storage(optuna: Any, storage: str) -> Any:
    """Optuna's object for a storage."""
    if "://" not in storage:
        backend = optuna.storages.journal.JournalFileBackend(storage)
        return optuna.storages.JournalStorage(backend)
    if storage.startswith("sqlite"):
        options: dict[str, Any] = {"connect_args": {"timeout": 60}}
    else:  # a server may have closed a connection since it was last used
        options = {"pool_pre_ping": True}
    return optuna.storages.RDBStorage(with_driver(storage), engine_kwargs=options)


def refusal(storage: str, error: Exception) -> InputError:
    """The error of a storage that cannot be used, without its password."""
    first = masked("".join(str(error).strip().splitlines()[:1]))
    hint = f" (its driver: {install('postgresql')})" * isinstance(error, ImportError)
    return InputError(
        f"storage={masked(storage)!r} cannot be used ({type(error).__name__}: {first}): name "
        f"a URL, sqlite:///study.db or postgresql://user@host/name{hint}, or a journal FILE.log."
    )


def with_driver(storage: str) -> str:
    """A PostgreSQL URL that names no driver, with psycopg if that is installed.

    SQLAlchemy before 2.1 would look for psycopg2.
    """
    scheme, separator, rest = storage.partition("://")
    is_bare = scheme in ("postgresql", "postgres")
    if is_bare and find_spec("psycopg") is not None:
        return f"postgresql+psycopg{separator}{rest}"
    return storage
