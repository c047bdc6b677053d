"""Presets of suites have the scores of stored results, which had the same setting."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ppo_jax.apps.reproduce import specs
from ppo_jax.config import presets

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import preset_results

MEASURED = [each for each in presets.all_presets() if "cell" in (each.score or {})]


@pytest.mark.parametrize("each", MEASURED, ids=lambda each: each.name)
def test_the_score_of_a_preset_is_that_of_its_stored_cell(each: presets.Preset) -> None:
    assert each.score is not None
    found = preset_results.result_of(each, each.score["cell"])
    stored = found["returns"][found["policy_mode"]]
    assert (each.score["score"], each.score["interval"]) == (stored["iqm"], stored["ci95"])
    names = ("policy_mode", "date", "env_steps")
    assert [each.score[name] for name in names] == [found[name] for name in names]
    assert each.score["seeds"] == found["num_seeds"] > 1


def test_the_preset_of_every_memory_task_has_its_score() -> None:
    measured = {each.name: (each.score or {})["cell"] for each in MEASURED}
    for task in {cell.task for cell in specs.load("memory").cells}:
        assert measured.get(task) == f"memory/{task}/gru"


def preset(hyper: dict, **config) -> presets.Preset:
    found = presets.find("brax/reacher")
    return found._replace(config={**found.config, **config}, hyper={**found.hyper, **hyper})


@pytest.mark.parametrize(
    "changed, words",
    [
        (preset({"gamma": 0.9}), "with another gamma"),
        (preset({}, num_envs=64), "with another num_envs"),
        (preset({"env": {"max_steps_in_episode": 51}}), "with another env"),
        # Trained for a tenth of the budget, so that its learning rate would have ended there.
        (preset({"learning_rate": "1e-3:0"}), "total_env_steps.*learning_rate"),
    ],
)
def test_a_result_of_another_setting_is_refused(changed: presets.Preset, words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        preset_results.result_of(changed, "brax/brax/reacher/ppo")


def test_a_cell_without_a_result_is_refused() -> None:
    with pytest.raises(SystemExit, match="no result of brax/brax/reacher/other is stored"):
        preset_results.result_of(preset({}), "brax/brax/reacher/other")
