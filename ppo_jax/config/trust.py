"""Trust in files: a program that a file names is loaded only if the user vouches for it.

`env`, `network`, `drift` and `optimizer` may name a program as `module:attribute`. A file of
somebody else may name any program. So a name that comes from a file needs one of three things: the
user's word for all names (`--trust`), the same name once more from the user, or a signature by a
key that only this user can read (`storage.sealed` makes it).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ppo_jax.config.errors import InputError
from ppo_jax.config.values import short

CODE_FIELDS = ("env", "network", "drift", "optimizer")
PROGRAM = {
    "env": "program of an environment",
    "network": "program of a network",
    "drift": "program of a drift",
    "optimizer": "program of an optimiser",
}
KEY_BYTES = 32

# True for every name in a file, or those names that the user repeats.
Trust: TypeAlias = bool | Collection[str]
Names: TypeAlias = "frozenset[tuple[str, str]]"  # (field, name) of each program


def is_code(field: str, value: Any) -> bool:
    """Check whether a field's value names a program to be imported."""
    if field not in CODE_FIELDS or not isinstance(value, str):
        return False
    return ":" in value and not (field == "env" and value.startswith("probe:"))


def code_names(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Names:
    """The programs among some fields and their values."""
    pairs: Any = values.items() if isinstance(values, Mapping) else values
    return frozenset((field, value) for field, value in pairs if is_code(field, value))


def unvouched(names: Names, trust: Trust) -> list[tuple[str, str]]:
    """The names that the user has not vouched for."""
    known = with_names(trust, ())
    return sorted((f, name) for f, name in names if known is not True and name not in known)


def require(names: Names, source: str, trust: Trust, signature: Any = None) -> None:
    """Refuse a file that names a program which the user does not vouch for.

    Args:
        names: all that the file names. source: the file, for the sentence.
        signature: the file's own; it covers all its names.

    Raises:
        InputError: the sentence names the file, the program and the remedy.
    """
    lacking = unvouched(names, trust)
    if not lacking or is_signed(names, signature):
        return
    field, name = lacking[0]
    raise InputError(
        f"{source!r} names the {PROGRAM.get(field, field)} {name!r}, and this user did not write "
        f"that file on this machine, so nothing is loaded: look at it first, then allow it with "
        f"--trust or --{field} {name} (in Python: trust=True)."
    )


def vouched(trust: Trust, config: Any) -> Trust:
    """`trust`, and all names of settings that have passed a door or come from the user."""
    return with_names(trust, [name for _, name in code_names(vars(config))])


def with_names(trust: Trust, names: Iterable[Any]) -> Literal[True] | list[str]:
    """`trust`, and some more names.

    Raises:
        InputError: `trust` is no truth and no names.
    """
    if trust is True:
        return True
    if not isinstance(trust, Collection | None) and trust is not False:
        raise InputError(f"trust={short(trust)} must be True, False or a list of names.")
    given = [trust] if isinstance(trust, str) else trust or ()
    return [*given, *names]


def is_signed(names: Names, signature: Any) -> bool:
    """Check whether this user's key has signed exactly these names."""
    key = read_key() if isinstance(signature, str) else None
    return key is not None and hmac.compare_digest(
        digest(key, names).encode(), signature.encode(errors="replace")
    )


def digest(key: bytes, names: Names) -> str:
    """The signature of some names, in hexadecimal digits."""
    text = "ppo_jax programs 1\n" + json.dumps(sorted(names))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def key_file() -> Path | None:
    """The place of the user's key; None if the user has no home."""
    given = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return base / "ppo_jax" / "signing-key"


def read_key() -> bytes | None:
    """The user's key; None if there is none, or if another user could read or have written it."""
    path = key_file()
    if path is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        is_private = os.name == "nt" or (
            status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077
        )
        if not (stat.S_ISREG(status.st_mode) and is_private and status.st_size == KEY_BYTES):
            return None
        key = os.read(descriptor, KEY_BYTES)
    finally:
        os.close(descriptor)
    return key if len(key) == KEY_BYTES else None
