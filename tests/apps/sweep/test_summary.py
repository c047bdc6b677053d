"""The summary of a sweep in words, and the preset of its winner, without any training."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from tiny import CONFIG, HYPER

from ppo_jax.apps.sweep.axes import parse
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.apps.sweep.results import summary
from ppo_jax.apps.sweep.results.table import Table

SWEEP = Sweep(CONFIG, HYPER, parse(["gamma=0.5..0.9"]), [{}], SweepOptions(sampler="pbt"))


def of(mean: float, ci95: tuple[float, float]) -> dict[str, Any]:
    return {"mean": mean, "ci95": ci95, "per_seed": [mean, mean], "num_failed": 0}


def told(folder: str = "swept", **changes: Any) -> dict[str, Any]:
    best = {"setting": 3, "values": {"gamma": 0.7}, "selected": of(9.0, (8.0, 10.0))}
    return {
        **{"env": "tiny:Walk", "objective": "clip", "sampler": "pbt", "sweep": folder},
        **{"num_settings": 8, "num_seeds": 2, "num_failed": 0, "stopped_early": False},
        **{"env_steps_in_all": 10, "train_seconds": 1.0, "env_steps_per_second": 10},
        **{"compile_seconds": 1.0, "compilations": [1], "tables": [f"{folder}/table.csv"]},
        "best": {**best, "fresh": None, "optimism_of_selection": None},
        "best_toml": f"{folder}/best.toml",
        **changes,
    }


@pytest.mark.parametrize("length, is_said", [(1, False), (2, True)])
def test_the_preset_of_a_schedule_says_that_the_score_is_not_that_of_its_numbers(
    length: int, is_said: bool
) -> None:
    life = [{"env_steps": 32 * i, "values": {"gamma": 0.7}} for i in range(length)]
    text = summary.preset(SWEEP, told(schedules={"3": life, "0": life[:1]}))
    found = tomllib.loads(text)["clip"]
    assert found["hyper"]["gamma"] == 0.7
    assert ("of the schedule of setting 3 in summary.json" in found["source"]) == is_said


def test_long_intervals_leave_a_gap_before_the_values() -> None:
    rows = [
        {"values": {"gamma": gamma}, "final_return": of(mean, (mean / 1.25, mean * 1.25))}
        for gamma, mean in ((0.5, -1234567.0), (0.6, 1.0))
    ]
    lines = summary.lines(Table({}, rows, told(), Path("swept")))
    places = [line.index("gamma=") for line in lines[:2]]
    assert places == [6 + 51 + 2] * 2
    assert lines[0].startswith("   1  -1.2346e+06 (95% -9.877e+05 to -1.543e+06), 2 seeds  gamma")


def test_lines_to_copy_quote_a_folder_with_a_space() -> None:
    lines = summary.lines(Table({}, [], told("my sweep"), Path("my sweep")))
    assert "next      ppo-jax train tiny:Walk --preset 'my sweep/best.toml'" in lines
    stopped = told("my sweep", stopped_early=True, best=None, finished="1 of 2 packs")
    lines = summary.lines(Table({}, [], stopped, Path("my sweep")))
    assert "stopped   go on with: ppo-jax sweep 'my sweep'" in lines
