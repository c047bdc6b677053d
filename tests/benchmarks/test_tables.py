"""Numbers in the tables of the documents: intervals, and scores that are unknown."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ppo_jax.analysis import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import peers_table
import readme
import studies_table
import suites_table
from stored import dated, estimate, one_core, signed

SCORES = {1: stats.summarise([2.5]), 0: stats.summarise([None])}  # by the seeds that have a score


def test_an_estimate_has_its_interval() -> None:
    assert estimate(2.0, (1.25, 3.0)) == "2 [1.25, 3]"
    assert estimate(2.0, (1.25, 3.0), ".1f", bold=True) == "**2.0** [1.2, 3.0]"
    assert estimate(2.0, None, bold=True) == "**2**"
    assert estimate(None, None, bold=True) == "–"


def test_results_are_ordered_by_their_date() -> None:
    names = ["a", "a_cpu_2026-09-30_quick", "a_cpu_2026-10-05_quick", "a_cpu_2026-10-05-2"]
    names += ["a_cpu_2026-10-05-10_quick", "a-x_2-cores_2027-01-02"]
    mixed = names[::-1]
    assert sorted(mixed, key=dated) == names


def test_a_difference_has_a_sign() -> None:
    assert signed({"difference": 1.0, "ci95": (-0.5, 2.5)}) == "+1 [-0.5, +2.5]"
    assert signed({"difference": 1.0, "ci95": None}, ".2f") == "+1.00"
    assert signed({"difference": None, "ci95": None}) == signed(None) == "–"


def test_a_stored_machine_of_one_core_is_in_the_singular() -> None:
    assert one_core("AMD EPYC, 1 cores") == "AMD EPYC, 1 core"
    for words in ("AMD EPYC, 11 cores", "AMD EPYC, 1 core"):
        assert one_core(words) == words


@pytest.mark.parametrize("living, number", [(1, "2.5"), (0, "–")])
def test_a_table_shows_scores_without_an_interval(living: int, number: str) -> None:
    scores = SCORES[living]
    bold = f"**{number}**" if living else number
    assert suites_table.scored(scores) == number
    assert peers_table.side_of(scores) == f"{bold}, {number}"
    assert studies_table._scored(scores) == (f"{2.5:.3f}" if living else "–")

    cell: Any = SimpleNamespace(task="Walk", variant="ppo", random=None, protocol="sampled")
    found = {**scores, "published": [], "num_seeds": 1, "env_steps": 64, "verdict": "–"}
    found["unlike"] = []
    assert f"| {bold}, {number} |" in suites_table.row(cell, found)

    compared = {"difference": None, "ci95": None}
    found |= {"cell": "Walk/ppo", "unlike": [], "compared": compared}
    found |= {"published": [{"value": 3, "env_steps": 64}]}
    digits = "2.50" if living else "–"
    shown = f"**{digits}**" if living else digits
    assert f"| {shown} at 64 | {digits} | – | – |" in suites_table.cell_row(found)


def test_a_learning_result_of_one_seed_has_a_row() -> None:
    record = {
        "env": "CartPole-v1",
        "objective": "clip",
        "policy_mode": "sampled",
        "returns": {"sampled": SCORES[1]},
        "published": {"score": 3.0, "env_steps": 64, "policy_mode": "sampled"},
        "share_reached": 0.0,
        "num_seeds": 1,
        "env_steps": 64,
    }
    assert "| 3 at 64 | **2.5** | 0% |" in readme.row(record)
