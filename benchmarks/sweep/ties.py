"""The rule of halving for ties, on or off: `selection.py` measures both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Scored = tuple[int, float]  # setting and score


def by_number(arrived: Sequence[Scored], records: Sequence[Scored], eta: int) -> list[int]:
    """Select the best 1 / eta alone. The lower number goes on if scores tie at the border.

    Halving did so before ties went on. Arguments are those of `rules.survivors`.
    """
    everyone = sorted([*records, *arrived], key=lambda pair: (-pair[1], pair[0]))
    best = {setting for setting, _ in everyone[: max(1, len(everyone) // eta)]}
    return [setting for setting, _ in arrived if setting in best]


@contextmanager
def rule(keeps_ties: bool) -> Iterator[list[int]]:
    """Run halvings in this process by one rule; yields the settings that only a tie kept.

    The list is filled under either rule: without ties these are the settings that left. If it
    stays empty, both rules have made the same decisions, so that both train the same.
    """
    from ppo_jax.apps.sweep import rules

    original = rules.survivors
    by_tie: list[int] = []

    def select(arrived: Sequence[Scored], records: Sequence[Scored], eta: int) -> list[int]:
        strict, kept = by_number(arrived, records, eta), original(arrived, records, eta)
        by_tie.extend(setting for setting in kept if setting not in strict)
        return kept if keeps_ties else strict

    rules.survivors = select
    try:
        yield by_tie
    finally:
        rules.survivors = original


def effect(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The winner's mean on fresh seeds with the rule, minus without it, over the repetitions."""
    import numpy as np

    from ppo_jax.analysis import means

    differences = [row["halving"]["fresh"]["mean"] - row["strict"]["fresh"]["mean"] for row in rows]
    return {
        "mean": float(np.mean(differences)),
        "ci95": means.interval([differences]),
        "unlike_decisions": sum(bool(row["kept_by_ties"]) for row in rows),
    }
