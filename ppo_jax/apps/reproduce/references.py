"""Published scores as data: the rows of data/references.csv, each with its source and protocol."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ppo_jax.config.data import DATA
from ppo_jax.config.errors import InputError, nearest

FILE = DATA / "references.csv"
_SUBSTRINGS = ("variant",)  # long texts: a part of them is enough


class Reference(NamedTuple):
    """One published score."""

    value: float | None  # None if only a range was published
    lower: float | None
    upper: float | None
    env_steps: int | None
    num_seeds: int | None
    policy_mode: str  # deterministic, sampled, training or unknown
    algorithm: str
    variant: str
    source: str  # program or paper, and the place in it
    evidence: str  # read, figure or second_hand


@lru_cache(maxsize=1)
def rows() -> tuple[dict[str, str], ...]:
    """Read the whole table, one dictionary per row."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def find(wanted: Mapping[str, Any], where: str) -> Reference:
    """Find the one row whose columns equal `wanted`; a part of `variant` is enough.

    Args:
        wanted: column name -> value, for example {"table_id": "classic_rl_zoo", "env": "CartPole"}.
        where: the spec that asks, for the error message.

    Raises:
        InputError: a column does not exist, or not exactly one row fits.
    """
    table = rows()
    for name in wanted:
        if name not in table[0]:
            raise InputError(
                f"{where}: references.csv has no column {name!r}.{nearest(name, table[0])}"
            )
    found = [row for row in table if all(_fits(row, name, wanted[name]) for name in wanted)]
    if len(found) != 1:
        raise InputError(
            f"{where}: published {dict(wanted)} fits {len(found)} rows of references.csv instead "
            "of one: name more columns, or correct them."
        )
    return _reference(found[0])


def hardest_first(found: Sequence[Reference], env_steps: int) -> tuple[Reference, ...]:
    """Sort published scores: the highest of those that took no more steps than ours comes first.

    A score after more steps is no bar for fewer; if there is no other, the highest one is.
    """

    def rank(each: Reference) -> tuple[bool, float]:
        is_longer = each.env_steps is not None and each.env_steps > 1.05 * env_steps
        return is_longer, -(each.value if each.value is not None else -math.inf)

    return tuple(sorted(found, key=rank))


def _fits(row: Mapping[str, str], name: str, value: Any) -> bool:
    if name in _SUBSTRINGS:
        return str(value) in row[name]
    return row[name] == str(value)


def _reference(row: Mapping[str, str]) -> Reference:
    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    steps, seeds = number("env_steps"), number("num_seeds")
    section = row["source_file_or_section"]
    return Reference(
        value=number("value"),
        lower=number("lower"),
        upper=number("upper"),
        env_steps=None if steps is None else int(steps),
        num_seeds=None if seeds is None else int(seeds),
        policy_mode=row["policy_mode"],
        algorithm=row["algorithm"],
        variant=row["variant"],
        source=row["source"] + (f", {section}" if section else ""),
        evidence=row["evidence"],
    )
