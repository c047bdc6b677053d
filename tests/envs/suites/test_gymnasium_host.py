"""Environments of Gymnasium, stepped outside jax, beside Gymnasium's own functions."""

from __future__ import annotations

import sys
from functools import partial

import jax
import numpy as np
import pytest

from ppo_jax.envs import registration
from ppo_jax.envs.interface import time_limit
from ppo_jax.envs.suite_table import SUITES

gymnasium = pytest.importorskip("gymnasium", reason="pip install -e '.[gymnasium]'")
from gymnasium_tasks import LIMIT, sentence  # noqa: E402  (registers its environments)

from ppo_jax.envs.suites import gymnasium as adapter  # noqa: E402
from ppo_jax.envs.suites import gymnasium_lanes  # noqa: E402
from ppo_jax.envs.suites.gymnasium_lanes import lanes  # noqa: E402


def test_the_table_has_ids_that_gymnasium_registers():
    own = {name for name in gymnasium.registry if "/" not in name}
    suite = SUITES["gymnasium"]
    assert {*suite.ids, *suite.shared} <= own


def test_random_play_is_gymnasiums_own():
    spec, count = gymnasium.spec("CartPole-v1"), 3
    vector = lanes(partial(gymnasium_lanes.made, spec, {}), count, 0, None)
    own = [gymnasium.make(spec) for _ in range(count)]
    random, ends = np.random.default_rng(0), 0
    try:
        first = np.stack([env.reset(seed=9 + i)[0] for i, env in enumerate(own)])
        np.testing.assert_array_equal(vector.reset(9), first)
        for _ in range(200):
            action = random.integers(0, 2, count)
            found = vector.step(action)
            for i, env in enumerate(own):
                observation, reward, terminated, truncated, _ = env.step(action[i])
                np.testing.assert_array_equal(found.final[i], observation)
                assert (found.reward[i], found.terminated[i]) == (reward, terminated)
                assert found.truncated[i] == (truncated and not terminated)
                if terminated or truncated:
                    observation, ends = env.reset()[0], ends + 1
                np.testing.assert_array_equal(found.observation[i], observation)
    finally:
        vector.close()
    assert ends > 3


def test_spaces_of_every_kind_are_stored_and_sent_back():
    environment = registration.make("gymnasium/Clock-v0")
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), environment.observation)
    assert shapes == {"age": ((1,), "float32"), "phase": ((3,), "bool")}
    discrete, box = environment.action_space.parts
    assert discrete.ns == (2, 3, 4)
    assert (box.low.tolist(), box.high.tolist()) == ([-2, -2], [1, 3])
    assert environment.raw.action_form["parts"][2]["start"] == [-1]


def test_the_time_limit_is_a_parameter_and_exact():
    environment = registration.make("gymnasium/Clock-v0")
    params = environment.override(environment.default_params, {"max_episode_steps": 3})
    assert time_limit(environment, environment.default_params) == LIMIT
    assert time_limit(environment, params) == 3
    vector = environment.host.make(1, params, False, None)
    vector.reset(0)
    action = (np.array([[1, 2]]), np.zeros((1, 2), np.float32), np.array([2]))
    found = [vector.step(action) for _ in range(6)]
    assert [bool(each.truncated[0]) for each in found] == [False, False, True] * 2
    assert [each.final["age"].item() for each in found] == [1, 2, 3] * 2
    assert [each.observation["age"].item() for each in found] == [1, 2, 0] * 2


def test_an_episode_without_an_end_is_cut():
    environment = registration.make("gymnasium/Clock-v0")
    vector = environment.host.make(1, environment.default_params, False, 2)
    vector.reset(0)
    action = (np.array([[1, 2]]), np.zeros((1, 2), np.float32), np.array([2]))
    found = [vector.step(action) for _ in range(4)]
    assert [bool(each.cut[0]) for each in found] == [False, True] * 2
    assert not any(each.truncated[0] for each in found)


@pytest.mark.parametrize(
    "name, words",
    [
        ("gymnasium/CartPol-v1", "Nearest: gymnasium/CartPole-v1"),
        ("gymnasium/HalfCheetah", "Nearest: gymnasium/HalfCheetah-v5,"),
        ("gymnasium/ALE/Nope-v5", "ale-py, and write gymnasium/ale_py:ALE/Nope-v5."),
        ("gymnasium/other/Nope-v5", "gymnasium/package.module:ID imports the module"),
        ("gymnasium/no_such_module:Walk-v0", "needs the module 'no_such_module'"),
        ("gymnasium/Words-v0", "has the space Text"),
        ("gymnasium/WideMask-v0", "action_mask of bool[4] and its actions need bool[3]"),
        ("gymnasium:HalfCheetah-v5", "has a slash, gymnasium/HalfCheetah-v5"),
        ("HalfCheetah-v5", "write gymnasium/HalfCheetah-v5"),
    ],
)
def test_a_name_that_cannot_be_made_is_a_sentence(name, words):
    assert words in sentence(lambda: registration.make(name))


def test_an_absurd_id_has_no_nearest():
    words = sentence(lambda: registration.make("gymnasium/Nonsense-v0"))
    assert "is no id that Gymnasium knows" in words
    assert "Nearest" not in words


@pytest.mark.parametrize(
    "line, words",
    [
        ("import ale_py", "needs the module 'ale_py', which is not installed: pip install ale-py"),
        ("from math import leg", "an import failed (cannot import name 'leg' from 'math'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_sentence(line, words, tmp_path, monkeypatch):
    (tmp_path / "broken_tasks.py").write_text(line, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    assert words in sentence(lambda: registration.make("gymnasium/broken_tasks:Walk-v0"))


def test_a_missing_mujoco_names_the_extra(monkeypatch):
    def fail(*_, **__):
        raise gymnasium.error.DependencyNotInstalled("mujoco is not installed")

    monkeypatch.setattr(adapter.suite, "make", fail)
    words = sentence(lambda: adapter.make("HalfCheetah-v5"))
    assert "needs MuJoCo, which is missing: pip install -e '.[gymnasium]'" in words


def test_a_parameter_takes_effect_or_is_refused():
    environment = registration.make("gymnasium/Clock-v0")
    params = environment.override(environment.default_params, {"reward": 2.5})
    vector = environment.host.make(1, params, False, None)
    vector.reset(0)
    action = (np.array([[1, 2]]), np.zeros((1, 2), np.float32), np.array([2]))
    assert vector.step(action).reward.tolist() == [2.5]
    words = sentence(lambda: environment.override(environment.default_params, {"is_wide": True}))
    assert "has the action space Discrete(2) under {'is_wide': True}" in words
    jit = jax.jit(lambda reward: environment.override(params, {"reward": reward}))
    assert jit(1.5)["reward"] == 1.5
