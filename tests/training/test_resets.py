"""Start states: one for each environment that ended, of the environment's own distribution."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counter import FRESH, CounterParams, CounterState, counter, play
from scipy import stats

from ppo_jax.training.rollout import reset_ended


def fresh_starts(ended, key=0):
    """(observation, state) after `reset_ended` of counters in the middle of their episodes."""
    num_envs = len(ended)
    observation = jnp.full((num_envs, 2), -1.0)
    state = CounterState(*(jnp.full(num_envs, -1, dtype) for dtype in (int, int, float)))
    return jax.jit(
        lambda ended, key: reset_ended(
            counter(), CounterParams(), key, 0, ended, observation, state
        )
    )(jnp.asarray(ended), jax.random.key(key))


@pytest.mark.parametrize("num_ended", [0, 1, 7, 8, 9, 63, 64])
def test_whatever_ended_is_reset_to_a_start_of_its_own_and_nothing_else_is(num_ended):
    """64 environments have a pool of 8: from 9 on it must be drawn again."""
    ended = np.zeros(64, bool)
    ended[np.random.default_rng(num_ended).permutation(64)[:num_ended]] = True
    observation, state = jax.device_get(fresh_starts(ended))
    assert (observation[ended, 0] == FRESH).all()
    assert (observation[~ended] == -1.0).all()
    assert (state.time[ended] == 0).all()
    assert (state.time[~ended] == -1).all()
    np.testing.assert_array_equal(observation[ended, 1], state.name[ended])
    assert len(set(state.name[ended])) == num_ended


def test_start_states_have_the_environments_own_distribution():
    """2,048 uniform names, against the uniform law, and no echo between neighbours or pools."""
    name = np.asarray(fresh_starts(np.ones(2048, bool), key=1)[1].name)
    assert stats.kstest(name, "uniform").pvalue > 1e-3
    for lag in (1, 2048 // 8):
        # independent: the correlation of n pairs has standard error 1 / sqrt(n)
        correlation = np.corrcoef(name[:-lag], name[lag:])[0, 1]
        assert abs(correlation) < 4 / math.sqrt(2048 - lag)
    assert len(set(name)) > 2048 - 5  # float32 uniforms collide about 0.25 times


def test_fewer_than_eight_environments_still_get_starts_of_their_own():
    state = jax.device_get(fresh_starts(np.ones(3, bool))[1])
    assert len(set(state.name)) == 3


def test_environments_that_end_together_start_apart_within_a_rollout():
    params = CounterParams(terminate_after=np.int32(3))
    _, [(steps, raw, _)] = play(10, 32, params)
    starts = raw[:, :, 0] == FRESH
    assert starts.sum(axis=1).tolist() == [32 if t % 3 == 0 else 0 for t in range(10)]
    names = raw[starts][:, 1]
    assert len(set(names)) == len(names) == 4 * 32
    assert steps.terminated.sum() == 3 * 32
