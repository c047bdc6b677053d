"""Halving with and without its rule for ties, and the table of both: by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "sweep"))
import studies_table
import ties

from ppo_jax.apps.sweep import rules

TIED = [(0, 1.0), (1, 9.0), (2, 1.0), (3, 1.0)]
APART = [(0, 1.0), (1, 9.0), (2, 3.0), (3, 2.0)]


def test_ties_are_broken_by_number_or_go_on() -> None:
    original = rules.survivors
    with ties.rule(keeps_ties=False) as by_tie:
        assert rules.survivors(TIED, [], 2) == [0, 1]
        assert by_tie == [2, 3]
    with ties.rule(keeps_ties=True) as by_tie:
        assert rules.survivors(TIED, [], 2) == [0, 1, 2, 3]
        assert by_tie == [2, 3]
    assert rules.survivors is original


def test_without_ties_both_rules_decide_alike() -> None:
    for keeps in (True, False):
        with ties.rule(keeps_ties=keeps) as by_tie:
            assert rules.survivors(APART, [], 2) == [1, 2]
            assert rules.survivors([(4, 8.0), (5, 0.0)], APART, 2) == [4]
            assert by_tie == []


def side(*per_seed: float, steps: int = 100) -> dict[str, Any]:
    mean = sum(per_seed) / len(per_seed)
    return {"fresh": {"per_seed": list(per_seed), "mean": mean}, "env_steps": steps}


def test_the_effect_of_the_rule_is_the_mean_of_the_pairs() -> None:
    rows = [
        {"halving": side(5.0), "strict": side(3.0), "kept_by_ties": [1]},
        {"halving": side(4.0), "strict": side(4.0), "kept_by_ties": []},
    ]
    found = ties.effect(rows)
    assert (found["mean"], found["unlike_decisions"]) == (1.0, 1)
    assert found["ci95"] == pytest.approx(scipy.stats.t.interval(0.95, 1, loc=1.0, scale=1.0))


def test_the_table_compares_means_of_the_fresh_seeds() -> None:
    """An IQM would leave out the seed that failed: -10 against -10."""
    whole, other = side(-10.0, -10.0, -10.0, -12.0), side(-10.0, -10.0, -10.0, -90.0, steps=25)
    rows = [{"everything": whole, "halving": other, "strict": whole, "kept_by_ties": [1]}] * 2
    env = {
        "env_steps": 1000,
        "repetitions": rows,
        "repetitions_in_all": 2,
        "strict": {},
        "ties": {"mean": -19.5, "ci95": (-20.0, -19.0), "unlike_decisions": 2},
    }
    record = {"envs": {"own": env}, "machine": {"hardware": "a CPU"}, "date": "2026-12-01T00:00"}
    text = studies_table.halving(record, "results/x.json")
    ours, strict = (line.split(" | ") for line in text.splitlines()[2:4])
    assert ours[1:6] == ["halving", "2", "-10.5", "-30", "-19.5 [-19.5, -19.5]"]
    assert ours[6:] == ["0 of 2", "0 of 2", "25% |"]
    assert strict[1] == "halving, ties broken by number"
    assert strict[6:] == ["2 of 2", "0 of 2", "100% |"]
    assert "ties changed a decision in 2 of 2, and the winner's mean by -19.5" in text
