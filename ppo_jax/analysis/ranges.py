"""Ranges of returns, from uniformly random actions to the best known policy: data/ranges.csv.

The random ones are means of 2,048 or more episodes by `benchmarks/random_policy.py`.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from typing import NamedTuple

from ppo_jax.config.data import DATA

FILE = DATA / "ranges.csv"


class Range(NamedTuple):
    random: float
    best: float
    source: str  # place where the best one comes from


@lru_cache(maxsize=1)
def ranges() -> dict[str, Range]:
    """Read the range of every environment that has one."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return {
            row["env"]: Range(float(row["random"]), float(row["best"]), row["source of the best"])
            for row in csv.DictReader(file)
        }
