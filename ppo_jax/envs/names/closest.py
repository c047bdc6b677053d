"""Search for the names that a mistyped one may mean: in another case, version or suite."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import NamedTuple

from ppo_jax.envs import suite_table as table
from ppo_jax.envs.suites.gymnax import names as gymnax_names

_CUTOFF = 0.6  # the least likeness of two ids
_COUNT = 3


class _Name(NamedTuple):
    suite: str
    id: str
    written: str  # whole, as one types it


class Found(NamedTuple):
    """Names for a mistyped one, the best first."""

    names: list[str]
    is_same: bool  # their ids differ from the typed one in case, signs or version alone


def split(typed: str) -> tuple[str, str]:
    """The texts before and after the first slash; without one, the first text is empty."""
    head, slash, own = typed.strip("/").partition("/")
    return (head, own) if slash else ("", head)


def find_closest(typed: str) -> Found:
    """The names closest to `typed`, those of the suite that it names before all others."""
    head, own = split(typed)
    names = [name for name in _all_names(head) if _likeness(own, name.id) >= _CUTOFF]
    theirs = [name for name in names if name.suite == head.lower()]
    same = [name for name in names if _stem(name.id) == _stem(own)]
    both = [name for name in theirs if name in same]
    for found in (both, theirs, same, names):
        if found:
            return Found(_best(typed, found), found in (both, same))
    return Found([], False)


def _all_names(head: str) -> list[_Name]:
    """Every name; an id that gymnax has as well is a suite's own only if `head` is that suite."""
    found = [_Name("gymnax", each, each) for each in gymnax_names.registered_names()]
    for suite in table.SUITES.values():
        ids = (*suite.shared, *suite.ids) if suite.name == head.lower() else suite.ids
        found += [_Name(suite.name, each, f"{suite.name}/{each}") for each in ids]
    return found


def closest_ids(typed: str, ids: Iterable[str]) -> list[str]:
    """The ids that are like `typed`, the best and newest first."""
    near = [_Name("", each, each) for each in sorted(ids, reverse=True)]
    return _best(typed, [name for name in near if _likeness(typed, name.id) >= _CUTOFF])


def _best(typed: str, names: list[_Name]) -> list[str]:
    head, own = split(typed)

    def order(name: _Name) -> tuple[float, bool, float]:
        ratio = _ratio(f"{head}/{own}", name.written) if head else _ratio(own, name.id)
        needs_suite = not head and name.suite != "gymnax"  # gymnax is always installed
        return -_likeness(own, name.id), needs_suite, -ratio

    return [name.written for name in sorted(names, key=order)[:_COUNT]]


def _likeness(word: str, other: str) -> float:
    """A number from 0 to 1 for two ids: 1 for one stem, much if `word` is a part of the other."""
    word, other = _stem(word), _stem(other)
    if len(word) > 1 and word in other:
        return _CUTOFF + (1 - _CUTOFF) * _ratio(word, other)
    return _ratio(word, other)


def _ratio(word: str, other: str) -> float:
    return SequenceMatcher(None, word, other).ratio() if word else 0.0


def _stem(own: str) -> str:
    """An id without case, signs and version."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"-v\d+$", "", own.lower()))
