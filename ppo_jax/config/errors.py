"""The two errors that end a command with a sentence, and hints for mistyped words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Bad input: one sentence names the value, the rule and the remedy (exit code 2)."""


class RunError(RuntimeError):
    """A run that cannot go on: one sentence gives the cause and the remedy (exit code 1)."""


# A program of a user may also end the process, such as a script that calls sys.exit().
RAISED = (Exception, SystemExit)


def install(extra: str) -> str:
    """Return the command that installs an extra in a checkout; no package index has ppo-jax."""
    return f"pip install -e '.[{extra}]'"


def nearest(word: str, words: Iterable[str], count: int = 3) -> str:
    """Return the end of a sentence with the words closest to `word`, or an empty text."""
    lowered = {candidate.lower(): candidate for candidate in words}
    close = difflib.get_close_matches(word.lower(), lowered, n=count, cutoff=0.45)
    return name_nearest([lowered[match] for match in close])


def name_nearest(words: Sequence[str]) -> str:
    """Return the end of a sentence that lists the nearest words, or an empty text."""
    return f" Nearest: {', '.join(words)}." if words else ""
