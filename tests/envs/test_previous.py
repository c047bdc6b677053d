"""Previous action, reward and start flag: what a rollout shows is what its steps did."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counter import CounterParams, counter
from lane import lane

from ppo_jax.config.config import PREVIOUS, PREVIOUS_INPUTS, Config
from ppo_jax.config.errors import InputError
from ppo_jax.envs import leaves, registration
from ppo_jax.envs.interface import Box, Discrete, Environment, MultiDiscrete
from ppo_jax.envs.previous import LEAVES, with_previous
from ppo_jax.models.agent import assemble
from ppo_jax.models.policy import Policy
from ppo_jax.training.rollout import reset_all, rollout

ALL = "action+reward+start"
BOX = Box((2,), np.array([-1.0, -1.0]), np.array([1.0, 1.0]))


def test_every_combination_has_a_word() -> None:
    """2^3 of them, none included."""
    assert set(LEAVES) == set(PREVIOUS)
    assert (
        len({frozenset(word.split("+")) for word in PREVIOUS_INPUTS}) == len(PREVIOUS_INPUTS) == 8
    )


def test_a_rollout_shows_the_step_before_and_nothing_of_the_episode_before() -> None:
    environment = counter()._replace(
        default_params=CounterParams(truncate_after=np.int32(2), spread=np.int32(3))
    )
    config = Config(
        env=environment, previous_inputs=ALL, hidden_sizes=(2,), num_envs=5, rollout_length=12
    )
    agent = assemble(config)
    world, params = agent.environment.default_params, agent.network.init(jax.random.key(0))
    policy = Policy(agent.network, agent.family, params, None)
    carry = reset_all(agent.environment, world, policy, 5, jax.random.key(1))
    run = jax.jit(lambda c, key: rollout(config, agent.environment, world, policy, c, key))
    after, steps, raw, _ = jax.device_get(run(carry, jax.random.key(2)))
    ended = steps.terminated | steps.truncated
    assert 0.1 < ended.mean() < 0.5
    begins = np.concatenate([np.ones((1, 5), bool), ended[:-1]])
    np.testing.assert_array_equal(raw["episode_start"], begins)
    np.testing.assert_array_equal(begins, raw["observation"][..., 0] == 1000.0)
    reward = np.where(begins, 0.0, np.roll(steps.reward, 1, axis=0))
    np.testing.assert_array_equal(raw["previous_reward"], reward)
    action = np.eye(3, dtype=bool)[np.roll(steps.action, 1, axis=0)] & ~begins[..., None]
    np.testing.assert_array_equal(raw["previous_action"], action)
    np.testing.assert_array_equal(after.observation["episode_start"], ended[-1])


@pytest.mark.parametrize(
    "space, action, seen",
    [
        (Discrete(3), 2, [False, False, True]),
        (MultiDiscrete((2, 3)), [1, 0], [False, True, True, False, False]),
        (BOX, [0.5, -0.25], [0.5, -0.25]),
    ],
)
def test_an_action_is_seen_as_flags_or_numbers(space: Any, action: Any, seen: Any) -> None:
    """The last observation of an episode shows the action and the reward that led to it."""
    plain, environment = lane(space), with_previous(lane(space), ALL)
    key, (first, state) = jax.random.key(0), environment.reset(jax.random.key(0), ())
    assert not np.any(first["previous_action"])
    assert (float(first["previous_reward"]), bool(first["episode_start"])) == (0.0, True)
    shown, _, reward, *_ = environment.transition(key, state, jnp.asarray(action), ())
    expected, *_ = plain.transition(key, state, jnp.asarray(action), ())
    np.testing.assert_array_equal(shown["observation"], expected)
    np.testing.assert_array_equal(shown["previous_action"], seen)
    np.testing.assert_allclose(shown["previous_reward"], reward)
    assert not shown["episode_start"]
    declared = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), environment.observation)
    assert declared == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shown)


def dict_lane(name: str) -> Environment:
    """The lane, whose observation is a dict of one leaf."""
    plain = lane(Discrete(2))

    def reset(key: jax.Array, params: Any) -> tuple:
        shown, state = plain.reset(key, params)
        return {name: shown}, state

    return plain._replace(reset=reset, observation={name: plain.observation})


def test_leaves_of_a_dict_stand_beside_the_new_ones_and_a_name_that_is_taken_is_refused() -> None:
    environment = with_previous(dict_lane("near"), "reward+start")
    assert set(environment.observation) == {"near", "previous_reward", "episode_start"}
    assert set(environment.reset(jax.random.key(0), ())[0]) == set(environment.observation)
    with pytest.raises(InputError, match="adds the leaf 'previous_reward'"):
        with_previous(dict_lane("previous_reward"), "reward")
    assert with_previous(dict_lane("near"), "none").observation.keys() == {"near"}


def test_an_adapted_environment_keeps_its_own_words() -> None:
    """Doors shows whole numbers from 2 on, stored one-hot."""
    environment = with_previous(registration.make("tiny:Doors"), ALL)
    spaces = leaves.shown(environment)
    assert list(spaces) == ["episode_start", "observation", "previous_action", "previous_reward"]
    assert spaces["observation"].is_number
    shown = {"observation": 3, "previous_action": np.zeros(3, bool), "previous_reward": 0.5}
    stored = leaves.to_stored(
        environment,
        {name: jnp.asarray(leaf) for name, leaf in (shown | {"episode_start": False}).items()},
    )
    np.testing.assert_array_equal(stored["observation"], [0.0, 1.0, 0.0])
