"""What a rollout does otherwise for a GPU, traced as for one and run on this machine."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from counter import FRESH, CounterParams, counter, flat_policy, play
from scipy import stats

from ppo_jax.config.config import Config
from ppo_jax.training.rollout import reset_all, rollout


@pytest.fixture
def on_gpu(monkeypatch):
    """What is traced within takes the ways of a GPU, and runs on this machine."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    yield
    monkeypatch.undo()


def test_the_ways_of_a_gpu_give_the_same_rollout_but_for_who_starts_where(monkeypatch):
    """Episodes of 3 steps, so that only their names depend on how start states are drawn."""
    params = CounterParams(truncate_after=np.int32(3))
    carry, [(steps, raw, episodes)] = play(17, 6, params)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    carry_gpu, [(steps_gpu, raw_gpu, episodes_gpu)] = play(17, 6, params)
    monkeypatch.undo()
    assert tuple(episodes) == tuple(episodes_gpu)
    np.testing.assert_array_equal(raw[..., 0], raw_gpu[..., 0])
    np.testing.assert_array_equal(carry.state.time, carry_gpu.state.time)
    for name in ("action", "log_prob", "value", "reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(steps, name), getattr(steps_gpu, name))
    np.testing.assert_allclose(steps.value_next, steps_gpu.value_next, atol=1e-6)
    assert steps.truncated.any()


def test_on_a_gpu_every_start_is_a_draw_of_its_own(on_gpu):
    params = CounterParams(terminate_after=np.int32(2))
    _, [(steps, raw, _)] = play(40, 8, params)
    starts = raw[1:][steps.terminated[:-1]]
    assert (starts[:, 0] == FRESH).all()
    assert len(set(starts[:, 1])) == len(starts) > 100
    assert stats.kstest(starts[:, 1], "uniform").pvalue > 1e-3


def test_on_a_gpu_no_loop_of_a_rollout_has_an_unknown_length(on_gpu):
    environment, policy = counter(), flat_policy()
    config = Config(num_envs=4, rollout_length=5)
    carry = reset_all(environment, CounterParams(), policy.family, 4, jax.random.key(0))
    program = jax.make_jaxpr(
        lambda carry, key: rollout(config, environment, CounterParams(), policy, carry, key)
    )(carry, jax.random.key(1))
    assert "while" not in str(program)
    assert "scan" in str(program)
