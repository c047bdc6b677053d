"""The summary of an evaluation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.options import RunOptions
from ppo_jax.envs import registration
from ppo_jax.runtime.evaluation import max_steps, policy_mode, summary
from ppo_jax.training import schedules
from ppo_jax.training.evaluation import Episodes


def test_a_failed_seed_is_null_counted_and_left_out_of_the_score() -> None:
    played = Episodes(
        episode_return=jnp.array([[1.0, 3.0], [jnp.nan, 0.0], [4.0, 4.0]]),
        length=jnp.array([[2, 4], [6, 6], [3, 3]]),
        finished=jnp.array([[True, True], [True, False], [True, True]]),
        stalled=jnp.array([[False, True], [False, False], [False, True]]),
    )
    options = RunOptions(eval_episodes=2)
    found = summary(Config(), Hyper(), played, np.array([True, False, True]), options)
    assert found["final_return"]["per_seed"] == [2.0, None, 4.0]
    assert (found["final_return"]["iqm"], found["num_failed"]) == (3.0, 1)
    assert (found["episodes_cut"], found["episode_length_mean"]) == (1, 4.0)
    assert (found["episodes_stalled"], found["policy_mode"]) == (2, "deterministic")


def test_an_evaluation_acts_as_the_environment_asks_unless_it_is_told() -> None:
    asking = registration.make("CartPole-v1")._replace(evaluation_mode="sampled")
    for env, asked, found in (
        ("CartPole-v1", "auto", "deterministic"),
        (asking, "auto", "sampled"),
        (asking, "deterministic", "deterministic"),
    ):
        assert policy_mode(Config(env=env), asked) == found


@pytest.mark.parametrize("limit, expected", [(500, 10_000), (12_000, 12_000), (10**9, 2**24)])
def test_an_episode_is_cut_at_its_own_limit_unless_its_return_cannot_be_summed(
    limit: int, expected: int
) -> None:
    assert max_steps(Config(), Hyper(env={"max_steps_in_episode": limit})) == expected


def test_members_with_limits_of_their_own_are_cut_at_the_longest() -> None:
    own = [Hyper(env={"max_steps_in_episode": limit}) for limit in (500, 12_000, 50)]
    arrays = [schedules.as_arrays(Config(), hyper) for hyper in own]
    assert max_steps(Config(), jax.tree.map(lambda *leaves: np.stack(leaves), *arrays)) == 12_000
