"""The parity benchmark: equal settings on both sides, and the arithmetic of its result."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

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


def test_a_seed_that_failed_counts_as_random_play() -> None:
    known = ranges.Range(0.0, 100.0, "")
    found = parity.summary([100.0, 100.0, 5.0, None], known)
    assert found["share_failed"] == 0.5
    assert found["mean"] == (100.0 + 100.0 + 5.0 + 0.0) / 4
    assert parity.sample_of([None, 3.0], known) == [0.0, 3.0]
