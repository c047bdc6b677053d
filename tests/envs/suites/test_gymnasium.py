"""MuJoCo's tasks of Gymnasium; `test_gymnasium_host` and `test_gymnasium_lanes` need no extra."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_jax.envs import registration
from ppo_jax.envs import suite_table as table
from ppo_jax.envs.interface import time_limit
from ppo_jax.envs.suites.gymnasium_lanes import Workers

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("mujoco", reason="pip install -e '.[gymnasium]'")
from ppo_jax.envs.suites import gymnasium as adapter  # noqa: E402

LIMIT = 60


def test_workers_step_the_suites_own_bodies(monkeypatch):
    environment = registration.make("gymnasium/HalfCheetah-v5")
    assert time_limit(environment, environment.default_params) == 1000
    assert (environment.action_space.low == -1).all()
    params = environment.override(environment.default_params, {"max_episode_steps": LIMIT})
    monkeypatch.setattr(adapter, "workers_for", lambda *_: 2)
    vector = environment.host.make(2, params, False, None)
    assert isinstance(vector, Workers)
    own = [gymnasium.make("HalfCheetah-v5", max_episode_steps=LIMIT) for _ in range(2)]
    random, cuts = np.random.default_rng(0), []
    try:
        first = np.stack([env.reset(seed=3 + i)[0] for i, env in enumerate(own)])
        np.testing.assert_array_equal(vector.reset(3), first)
        for t in range(200):
            action = random.uniform(-1, 1, (2, 6)).astype(np.float32)
            found = vector.step(action)
            for i, env in enumerate(own):
                observation, reward, terminated, truncated, _ = env.step(action[i])
                np.testing.assert_array_equal(found.final[i], observation)
                assert found.reward[i] == np.float32(reward)
                assert (found.terminated[i], found.truncated[i]) == (terminated, truncated)
                if truncated:
                    observation = env.reset()[0]
                    cuts.append(t + 1)
                np.testing.assert_array_equal(found.observation[i], observation)
    finally:
        vector.close()
    assert cuts == [n for age in (60, 120, 180) for n in (age, age)]


def test_perfect_answers_to_popgyms_questions_return_one():
    pytest.importorskip("popgym", reason="pip install -e '.[popgym]'")
    guest = table.GUESTS["popgym"]
    environment = registration.make(guest.name())
    assert environment.observation.shape == (4,)  # one of four suits, one-hot
    vector = environment.host.make(3, environment.default_params, False, None)
    shown, total = [vector.reset(0)], np.zeros(3)
    for _ in range(51):
        found = vector.step(shown[-4] if len(shown) >= 4 else shown[-1])
        shown.append(found.observation)
        total += found.reward
    assert found.terminated.all()
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    watched = registration.make(guest.name("AutoencodeEasy")).observation
    assert [leaf.shape for leaf in watched] == [(2,), (4,)]
