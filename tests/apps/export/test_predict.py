"""The call of Stable-Baselines3 on a policy with a memory that counts its steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ppo_jax.apps.export.predict import LoadedPolicy
from ppo_jax.config.errors import InputError


def counting() -> Any:
    """A policy whose memory is the number of its steps, and whose action is that number."""

    def policy(observation: Any, memory: Any, legal: Any = None) -> tuple:
        if np.shape(memory) != np.shape(observation)[:-1]:
            raise InputError("another number of memories")
        return memory + 1, memory + 1

    return LoadedPolicy(policy, lambda n=None: np.zeros(() if n is None else n, int))


def test_the_state_is_handed_on_and_begins_anew_where_an_episode_does() -> None:
    policy, rows = counting(), np.zeros((3, 4))
    action, state = policy.predict(rows)
    np.testing.assert_array_equal(action, [1, 1, 1])
    action, state = policy.predict(rows, state, episode_start=np.array([False, True, False]))
    np.testing.assert_array_equal(action, [2, 1, 2])
    np.testing.assert_array_equal(state, [2, 1, 2])


@pytest.mark.parametrize("begun", [True, np.array([True])])
def test_one_observation_needs_no_batch(begun: Any) -> None:
    policy, row = counting(), np.zeros(4)
    action, state = policy.predict(row)
    action, state = policy.predict(row, state, False)
    assert (action, state) == (2, 2)
    assert policy.predict(row, state, begun) == (1, 1)


def test_a_policy_that_cannot_sample_refuses_to() -> None:
    with pytest.raises(InputError, match="deterministic: load the run's folder"):
        counting().predict(np.zeros(4), deterministic=False)
