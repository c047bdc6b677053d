"""Signatures of the programs that a user's own files name, so that the user need not vouch again.

The key is made at first use. It is random, and only its user can read it. Without a place for it
nothing is signed, and no run fails because of that.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

from ppo_jax.config import trust
from ppo_jax.config.trust import Names


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
