"""The parity benchmark: equal settings on both sides, and the arithmetic of its result."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ppo_jax.analysis import ranges
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.validate import validate

FILE = Path(__file__).parents[2] / "benchmarks" / "parity.py"
spec = importlib.util.spec_from_file_location("parity", FILE)
assert spec is not None
assert spec.loader is not None
parity = importlib.util.module_from_spec(spec)
sys.modules["parity"] = parity  # dataclasses look their module up
spec.loader.exec_module(parity)


@pytest.mark.parametrize("name", parity.PEERS)
def test_every_task_of_a_peer_is_a_setting_of_ours_in_whole_iterations(name: str) -> None:
    peer = parity.PEERS[name]
    for env in peer.tasks:
        config, hyper = parity.setting(peer, parity.TASKS[env])
        validate(config, hyper)
        assert config.env == peer.suite + env
        assert config.trained_env_steps == config.total_env_steps
        assert env in ranges.ranges()


def test_the_start_and_the_loss_are_those_of_the_peer() -> None:
    config, hyper = parity.setting(parity.PEERS["rejax"], parity.TASKS["CartPole-v1"])
    assert isinstance(config, Config)
    assert isinstance(hyper, Hyper)
    assert (config.orthogonal_init, config.time_limits) == (False, "termination")
    assert (hyper.value_clip_epsilon, hyper.adam_epsilon) == (0.2, 1e-8)
    own, _ = parity.setting(parity.PEERS["sb3"], parity.TASKS["CartPole-v1"])
    theirs = {"env": "gymnasium/CartPole-v1", "time_limits": "truncation"}
    assert own == dataclasses.replace(config, orthogonal_init=True, **theirs)


def test_added_seeds_follow_the_stored_ones_and_all_are_judged(monkeypatch) -> None:
    task = parity.TASKS["CartPole-v1"]
    known = ranges.ranges()[task.env]

    def trained(*arguments: Any) -> dict[str, Any]:
        seeds = arguments[-1]
        return {"returns": [100.0 + seed for seed in seeds], "train_seconds": 2.0}

    monkeypatch.setattr(parity, "ours", trained)
    monkeypatch.setattr(parity, "by_peer", trained)
    given = argparse.Namespace(peer="rejax", seeds=3, first=0)
    first = json.loads(json.dumps(parity.entry(given, task)))
    both = parity.entry(given, task, first)
    assert both["seeds"] == list(range(6))
    expected = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
    assert both["ours"]["per_seed"] == both["theirs"]["per_seed"] == expected
    assert both["theirs"]["train_seconds"] == 4.0
    assert both["margin"] == pytest.approx(0.05 * (500.0 - known.random))
    other = dataclasses.replace(task, gamma=0.9)
    with pytest.raises(SystemExit, match="another setting"):
        parity.entry(given, other, first)

    fresh = parity.entry(argparse.Namespace(peer="rejax", seeds=2, first=6), task)
    assert (fresh["seeds"], fresh["ours"]["per_seed"]) == ([6, 7], [106.0, 107.0])
    added = parity.entry(given, task, json.loads(json.dumps(fresh)))
    assert added["seeds"] == [6, 7, 8, 9, 10]


def test_a_seed_that_failed_counts_as_random_play() -> None:
    known = ranges.Range(0.0, 100.0, "")
    found = parity.summary([100.0, 100.0, 5.0, None], known)
    assert found["share_failed"] == 0.5
    assert found["mean"] == (100.0 + 100.0 + 5.0 + 0.0) / 4
    assert parity.sample_of([None, 3.0], known) == [0.0, 3.0]
