"""Ranges of returns: from random actions to the best known policy, and from least to most.

data/ranges.csv has the former; the random ones are means of 2,048 or more episodes by
`benchmarks/random_policy.py`. data/limits.csv has the least and the largest return that is possible
at all, if the environment's parameters are its own.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from ppo_jax.config.data import DATA

FILE, LIMITS_FILE = DATA / "ranges.csv", DATA / "limits.csv"
UNLIMITED = (-math.inf, math.inf)


class Range(NamedTuple):
    random: float
    best: float
    source: str  # place where the best one comes from
    parameters: Mapping[str, float] = MappingProxyType({})  # those that are not the environment's


@lru_cache(maxsize=1)
def ranges() -> dict[str, Range]:
    """Read the range of every environment that has one."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return {
            row["env"]: Range(
                float(row["random"]),
                float(row["best"]),
                row["source of the best"],
                _parameters(row["parameters"]),
            )
            for row in csv.DictReader(file)
        }


def _parameters(words: str) -> dict[str, float]:
    """The parameters NAME=NUMBER, with spaces between them."""
    pairs = (word.partition("=") for word in words.split())
    return {name: float(number) for name, _, number in pairs}


@lru_cache(maxsize=1)
def _limits() -> dict[str, tuple[float, float]]:
    with LIMITS_FILE.open(encoding="utf-8", newline="") as file:
        return {
            row["env"]: (float(row["least"] or -math.inf), float(row["most"] or math.inf))
            for row in csv.DictReader(file)
        }


def limits(env: Any, changed: Mapping[str, Any] | None = None) -> tuple[float, float]:
    """Least and largest possible return of an environment; infinite ones if none is known.

    Args:
        env: a name, or an object, whose limits are not known.
        changed: parameters that are not the environment's own: the limits do not hold with them.
    """
    return _limits().get(env, UNLIMITED) if isinstance(env, str) and not changed else UNLIMITED
