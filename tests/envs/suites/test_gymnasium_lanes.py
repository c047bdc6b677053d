"""Lanes of Gymnasium: worker processes, their number, and the step that is timed to choose it."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from ppo_jax.envs import registration

gymnasium = pytest.importorskip("gymnasium", reason="pip install -e '.[gymnasium]'")
import gymnasium_tasks  # noqa: E402  (registers its environments)

from ppo_jax.envs.suites import gymnasium as adapter  # noqa: E402
from ppo_jax.envs.suites import gymnasium_lanes  # noqa: E402


def test_workers_step_what_is_dearer_than_their_messages(monkeypatch):
    monkeypatch.setattr(gymnasium_lanes, "cores", lambda: 4)
    # 8 steps of 0.1 ms: four workers save 0.6 ms. 16 steps: 1.2 ms, more than the message's 1 ms.
    assert [gymnasium_lanes.workers_for(1e-4, count) for count in (1, 8, 16)] == [0, 0, 4]
    assert gymnasium_lanes.workers_for(1.0, 3) == 3
    monkeypatch.setattr(gymnasium_lanes, "cores", lambda: 1)
    assert gymnasium_lanes.workers_for(1.0, 8) == 0


def test_a_step_is_timed_without_its_resets():
    class Slow(gymnasium_tasks.Clock):
        def reset(self, **given: Any) -> tuple:
            time.sleep(0.003)
            return super().reset(**given)

        def step(self, action: Any) -> tuple:
            time.sleep(0.001)
            return super().step(action)

    # Its own limit ends an episode every 5 steps.
    env = gymnasium.wrappers.TimeLimit(Slow(), gymnasium_tasks.LIMIT)
    assert 0.001 < adapter._seconds_of_step(env) < 0.003
    assert adapter._seconds_of_step(gymnasium.Env()) == 0.0  # training reports its failure


def test_a_reset_does_not_overwrite_the_final_observation():
    environment = registration.make("gymnasium/OneArray-v0")
    assert environment.host is not None
    vector = environment.host.make(2, environment.default_params, False, None)
    vector.reset(0)
    for age in range(1, gymnasium_tasks.LIMIT + 1):
        found = vector.step(np.zeros(2, int))
        np.testing.assert_array_equal(found.final[:, 0], age)
    assert found.truncated.all()
    np.testing.assert_array_equal(found.observation[:, 0], 0)
    vector.close()


@pytest.mark.slow
def test_the_choice_of_workers_changes_no_number(monkeypatch):
    environment = registration.make("gymnasium/CartPole-v1")
    played = []
    for count in (0, 2):
        monkeypatch.setattr(adapter, "workers_for", lambda *_, count=count: count)
        vector = environment.host.make(3, environment.default_params, False, 150)
        random = np.random.default_rng(0)
        try:
            first = vector.reset(9)
            played.append([first, *(vector.step(random.integers(0, 2, 3)) for _ in range(200))])
        finally:
            vector.close()
        assert isinstance(vector, gymnasium_lanes.Workers) == (count == 2)
    assert sum(step.terminated.sum() for step in played[0][1:]) > 3
    jax.tree.map(np.testing.assert_array_equal, *played)
    alone = gymnasium_lanes.Workers(
        partial(gymnasium_lanes.made, gymnasium.spec("Imports-v0"), {}), [1], None
    )
    alone.reset(0)
    assert alone.step(np.zeros(1, int)).reward == [0.0]  # a worker has not imported jax
    alone.close()
    kinds = [jax.tree.map(lambda leaf: leaf.dtype, steps) for steps in played]
    assert kinds[0] == kinds[1]
