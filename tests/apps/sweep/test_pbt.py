"""Exploits of population-based training, with scores that are made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ppo_jax.apps.sweep import axes, plan
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.apps.sweep.search import pbt, slots
from ppo_jax.config.config import Config, Hyper
from ppo_jax.storage import jsonl
from ppo_jax.storage.jsonl import LogFiles

LOST = float("-inf")


def exploited(
    folder: Path, patch: pytest.MonkeyPatch, scores: list[float], failed: list[int]
) -> slots.SlotStatus:
    """The status of one slot for each score, two seeds each, after an exploit."""
    known = axes.parse(["gamma=0.5..0.9"])
    settings = {i: {"gamma": 0.6} for i in range(len(scores))}
    options = SweepOptions(sampler="pbt", settings=len(scores), seeds=2)
    sweep = Sweep(Config(), Hyper(), known, [{}], options)
    population: Any = SimpleNamespace(
        config=sweep.config,
        hyper=sweep.hyper,
        options=options,
        num_slots=len(scores),
        logs=LogFiles(folder, slots.LOGS),
    )
    status = slots.first_status(population, list(settings), list(settings.values()))
    patch.setattr(slots, "scores", lambda *given: (scores, failed, status))
    patch.setattr(slots, "copied", lambda population, state, sources: state)
    patch.setattr(slots, "arrays", lambda population, values: values)
    prepared = plan.Prepared(sweep, settings, [])
    found = pbt.exploit(population, prepared, Hyper(), None, status)[2]  # pyright: ignore
    population.logs.close()
    return found


def test_the_failed_seeds_of_replaced_slots_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = exploited(tmp_path, monkeypatch, [3.0, LOST, 1.0, LOST, 2.0], [0, 2, 0, 1, 0])
    assert status.num_failed == 3
    (line,) = jsonl.read_jsonl(tmp_path / slots.LINEAGE)
    assert sorted((copy["slot"], copy["from"]) for copy in line["copies"]) == [(1, 0), (3, 0)]
    assert [values["gamma"] != 0.6 for values in status.values] == [False, True, False, True, False]


def test_a_population_that_failed_as_a_whole_stays_and_is_counted_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exploited(tmp_path, monkeypatch, [LOST] * 3, [2, 2, 2]).num_failed == 0


def test_numbers_that_do_not_go_together_cannot_run() -> None:
    population: Any = SimpleNamespace(config=Config(objective="spo"), hyper=Hyper())
    assert pbt.can_run(population, {"clip_epsilon": 0.1})
    assert not pbt.can_run(population, {"clip_epsilon": 0.0})
