"""JSON files with the SHA-256 of their own content, and signatures of the programs they name.

A damaged or edited file is refused. A signature spares its user to vouch for a program again. Its
key is made at first use. It is random, and only its user can read it. Without a place for it
nothing is signed, and no run fails because of that.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ppo_jax.config import reading, trust
from ppo_jax.config.errors import InputError
from ppo_jax.config.trust import Names
from ppo_jax.storage.files import to_json, write_atomic, write_first

SEAL = "sha256"


class DamagedError(InputError):
    """A file that is not what the program wrote: path, reason and remedy."""


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object without its own checksum, however it is laid out."""
    rest = {name: value for name, value in content.items() if name != SEAL}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write `to_json(content)` and its checksum in one step."""
    write_atomic(path, _sealed(content))


def write_first_sealed(path: Path, content: Mapping[str, Any]) -> bool:
    """Write it unless another process has made the file before; True if this one did."""
    return write_first(path, _sealed(content))


def _sealed(content: Mapping[str, Any]) -> bytes:
    plain = to_json(content)
    return _spelled(plain | {SEAL: checksum(plain)})


def read_sealed(
    path: Path, remedy: str, shape: Any = None, *, may_be_open: bool = False
) -> dict[str, Any]:
    """Read what `write_sealed` wrote, without the checksum.

    Args:
        remedy: the end of the error's sentence.
        shape: of the content, see `reading.expect`.
        may_be_open: accept a file without a checksum, as version 0.1.0 wrote it.

    Raises:
        DamagedError: the file is missing, cut, edited, or has another shape.
    """
    try:
        text = reading.read_bytes(path)
        content = reading.expect(reading.parse_json(text), dict if shape is None else shape)
        if SEAL in content or not may_be_open:
            found = content.get(SEAL)
            if found != checksum(content) or _spelled(content) != text:
                raise ValueError("its content is not what was written, by its sha256")
            del content[SEAL]
        return content
    except OSError as error:
        reason = f"it cannot be read, {error.strerror}"
    except json.JSONDecodeError as error:
        reason = f"it is no JSON, {error}"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise DamagedError(f"{str(path)!r} is damaged ({reason}): {remedy}.")


def first_change(found: Any, wanted: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first difference between two nested tables, in words; None if they are equal."""
    if not isinstance(found, Mapping):
        return f"{prefix.rstrip('.') or 'the setting'} is missing"
    for name in {**wanted, **found}:
        here, there = found.get(name), wanted.get(name)
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            inner = first_change(here, there, f"{prefix}{name}.")
            if inner:
                return inner
        elif here != there:
            return f"{prefix}{name} was {_short(here)} and is {_short(there)}"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _spelled(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def sign(names: Names) -> dict[str, str]:
    """The entry of a file that names these programs; empty if there are none, or no key."""
    if not names:
        return {}
    key = trust.read_key() or _new_key()
    return {} if key is None else {"signature": trust.digest(key, names)}


def _new_key() -> bytes | None:
    """Make the key, or take that of a process which was quicker; None if there is no place."""
    path = trust.key_file()
    if path is None:
        return None
    temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(trust.KEY_BYTES))
        finally:
            os.close(descriptor)
        os.link(temporary, path)  # fails if there is one, so two processes share the first
    except OSError:
        pass
    finally:
        with suppress(OSError):
            temporary.unlink()
    return trust.read_key()
