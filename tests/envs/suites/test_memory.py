"""The memory suite: what perfect memory earns, what none can earn, and what is shown when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.envs.registration import find

EPISODES = 400


def returns(name: str, policy: Callable[[Any, Any, Any], Any], steps: int, **numbers: Any) -> Any:
    """Returns of whole episodes [EPISODES] of a policy (key, state, observation) -> action."""
    environment = find(name)
    params = environment.override(environment.default_params, numbers)

    def episode(key: Any) -> Any:
        observation, state = environment.reset(key, params)

        def step(loop: Any, key: Any) -> Any:
            observation, state, is_over, total = loop
            action = policy(key, state, observation)
            observation, state, reward, terminated, truncated, _ = environment.transition(
                key, state, action, params
            )
            total = total + jnp.where(is_over, 0.0, reward)
            return (observation, state, is_over | terminated | truncated, total), is_over

        start = (observation, state, jnp.zeros((), bool), jnp.zeros(()))
        (_, _, is_over, total), before = jax.lax.scan(step, start, jax.random.split(key, steps))
        return total, is_over, steps - jnp.sum(before)

    totals, is_over, lengths = jax.jit(jax.vmap(episode))(
        jax.random.split(jax.random.key(0), EPISODES)
    )
    assert bool(is_over.all())
    return np.asarray(totals), np.asarray(lengths)


def turn(side: Any, at_junction: Any) -> Any:
    return jnp.where(at_junction > 0, (side + 3) // 2, 0)


KNOWING = {  # policies that read the hidden state
    "memory/TMaze-v0": lambda key, state, seen: turn(state.side, seen[1]),
    "memory/Recall-v0": lambda key, state, seen: (state.bit + 1) // 2,
    "memory/RepeatPrevious-v0": lambda key, state, seen: state.symbols[4],
    "memory/RepeatFirst-v0": lambda key, state, seen: state.first,
}
LENGTHS = {
    "memory/TMaze-v0": 11,
    "memory/Recall-v0": 11,
    "memory/RepeatPrevious-v0": 52,
    "memory/RepeatFirst-v0": 52,
}


@pytest.mark.parametrize("name", KNOWING)
def test_who_remembers_earns_one(name: str) -> None:
    totals, lengths = returns(name, KNOWING[name], LENGTHS[name])
    np.testing.assert_allclose(totals, 1.0, atol=1e-5)
    assert set(lengths) == {LENGTHS[name]}


SEEING = {  # policies that read the observation alone, and what such a policy earns at best
    "memory/TMaze-v0": (lambda key, state, seen: turn(1, seen[1]), 0.0),
    "memory/Recall-v0": (lambda key, state, seen: (seen[0] > 0).astype(int), 0.0),
    "memory/RepeatPrevious-v0": (lambda key, state, seen: jnp.argmax(seen), -0.5),
    "memory/RepeatFirst-v0": (lambda key, state, seen: jnp.argmax(seen), -0.5),
}


@pytest.mark.parametrize("name", SEEING)
def test_who_only_sees_earns_what_chance_gives(name: str) -> None:
    policy, expected = SEEING[name]
    totals, _ = returns(name, policy, LENGTHS[name])
    error = totals.std() / np.sqrt(EPISODES)
    assert abs(totals.mean() - expected) < 4 * error


def test_lengths_are_parameters_that_one_program_can_vary() -> None:
    environment = find("memory/Recall-v0")
    policy = KNOWING["memory/Recall-v0"]

    def shown(delay: Any) -> Any:
        params = environment.default_params._replace(delay=delay)
        observation, state = environment.reset(jax.random.key(1), params)
        seen, rewards = [observation], []
        for _ in range(4):
            observation, state, reward, terminated, _, _ = environment.transition(
                jax.random.key(2), state, policy(None, state, None), params
            )
            seen.append(observation)
            rewards.append((reward, terminated))
        return jnp.stack(seen), jnp.asarray(rewards)

    seen, rewards = jax.vmap(shown)(jnp.asarray([1, 3]))
    bit = float(seen[0, 0, 0])
    assert bit in (-1.0, 1.0)
    np.testing.assert_array_equal(seen[0, :2], [[bit, 0], [0, 1]])
    np.testing.assert_array_equal(seen[1, :4], [[bit, 0], [0, 0], [0, 0], [0, 1]])
    np.testing.assert_array_equal(rewards[0, :2], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(rewards[1], [[0, 0], [0, 0], [0, 0], [1, 1]])


@pytest.mark.parametrize(
    "name, number, value, rule",
    [
        ("memory/RepeatPrevious-v0", "k", 64, "from 0 to 63"),
        ("memory/RepeatPrevious-v0", "num_symbols", 0, "at least 1"),
        ("memory/RepeatFirst-v0", "num_symbols", 1, "at least 2"),
        ("memory/Recall-v0", "delay", np.int64(-1), "at least 0"),
        ("memory/TMaze-v0", "length", "-1", "at least 0"),
        ("MemoryChain-bsuite", "memory_length", 0, "at least 1"),
        ("UmbrellaChain-bsuite", "chain_length", -5, "at least 1"),
        ("BernoulliBandit-misc", "t_max", 0, "at least 1"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    name: str, number: str, value: Any, rule: str
) -> None:
    """They divide by 0, or no step is the last one, or no answer counts."""
    environment = find(name)
    with pytest.raises(InputError, match=rf"^env\.{number}={value} must be {rule}\.$"):
        environment.override(environment.default_params, {number: value})


@pytest.mark.parametrize(
    "name, base, places",
    [
        ("memory/CartPole-NoVelocity-v1", "CartPole-v1", [0, 2]),
        ("memory/Pendulum-NoVelocity-v1", "Pendulum-v1", [0, 1]),
        ("memory/MountainCarContinuous-NoVelocity-v0", "MountainCarContinuous-v0", [0]),
    ],
)
def test_only_positions_are_shown(name: str, base: str, places: list[int]) -> None:
    blind, whole = find(name), find(base)
    params, key = whole.default_params, jax.random.key(3)
    action = jnp.zeros(getattr(whole.action_space, "shape", ()), jnp.int32)
    kept = jnp.asarray(places)
    (seen, state), (all_seen, all_state) = blind.reset(key, params), whole.reset(key, params)
    np.testing.assert_array_equal(seen, all_seen[kept])
    after = blind.transition(key, state, action, params)
    expected = whole.transition(key, all_state, action, params)
    np.testing.assert_array_equal(after[0], expected[0][kept])
    assert after[2] == expected[2]
    assert blind.observation_shape == (len(places),)
    assert blind.max_episode_steps is whole.max_episode_steps
