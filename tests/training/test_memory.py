"""Training with a memory: rollouts against a loop, ratios of 1, and a task that needs one."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counter import CounterParams, counter
from dials import dials
from lane import lane
from toy import jit

from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.envs.interface import Discrete, Environment
from ppo_jax.models.agent import assemble
from ppo_jax.models.policy import Policy
from ppo_jax.rl.types import Moments, Window
from ppo_jax.training import trainer
from ppo_jax.training.evaluation import Contest, episodes
from ppo_jax.training.rollout import reset_all, rollout

pytestmark = pytest.mark.slow

T, B = 17, 4
CONFIG = Config(
    env=counter(),
    memory="gru",
    memory_size=5,
    hidden_sizes=(6,),
    num_envs=B,
    rollout_length=T,
)
SEEN = Moments(jnp.float32(10.0), jnp.array([3.0, 0.5]), jnp.array([40.0, 1.0]))  # std 2 and 0.3


def choose(mask: np.ndarray, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(jnp.asarray(mask)[:, None], a, b), new, old)


class Loop(NamedTuple):
    """A rollout step by step, each [T, B, ...], and the memory after it."""

    logits: np.ndarray
    value: np.ndarray
    value_next: np.ndarray
    memory: Any


def loop(policy: Policy, memory: Any, steps: Any, raw: np.ndarray) -> Loop:
    """The memory moves by one step at a time."""
    network, params = policy.network, policy.params
    never = jnp.zeros(B, bool)
    ended = np.asarray(steps.terminated | steps.truncated)
    act, values = (jit(partial(f, params)) for f in (network.act, network.values))
    value_after = jit(partial(network.value_after, params))
    found, time = [], np.where(raw[0, :, 0] > 500.0, 0.0, raw[0, :, 0])
    for t in range(T):
        seen = policy.see(jnp.asarray(raw[t]))
        value, critic = values(Window(seen, never, memory))
        acted, distribution = act(memory, seen)
        # What follows within the episode, also where the environment was reset: [time, name].
        time = time + 1.0
        following = policy.see(jnp.stack([jnp.asarray(time), jnp.asarray(raw[t, :, 1])], axis=1))
        value_next = np.where(steps.terminated[t], 0.0, value_after(critic, following))
        found.append((distribution.logits, value, value_next))
        memory = choose(ended[t], network.start(params, B), network.carry_on(acted, critic))
        time = np.where(ended[t], 0.0, time)
    logits, value, value_next = map(np.stack, zip(*found, strict=True))
    return Loop(logits, value, value_next, memory)


@pytest.mark.parametrize("kind", ["terminate_after", "truncate_after"])
@pytest.mark.parametrize("shared_torso", [False, True])
def test_rollouts_with_a_memory_are_a_loop_that_forgets_at_ends(
    shared_torso: bool, kind: str
) -> None:
    """A truncated episode's final observation is valued with the memory that the episode had."""
    config = dataclasses.replace(CONFIG, shared_torso=shared_torso)
    env_params = CounterParams(**{kind: np.int32(3)}, spread=np.int32(4))
    agent = assemble(config)
    # Louder than the first parameters, so that memories count.
    params = jax.tree.map(lambda x: 2.0 * x, agent.network.init(jax.random.key(0)))
    policy = Policy(agent.network, agent.family, params, SEEN)
    carry = reset_all(agent.environment, env_params, policy, B, jax.random.key(1))
    run = jit(lambda c, key: rollout(config, agent.environment, env_params, policy, c, key))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(carry.memory))
    for i in range(2):
        after, steps, raw, _ = jax.device_get(run(carry, jax.random.key(i)))
        ended = steps.terminated | steps.truncated
        assert 0.1 < ended.mean() < 0.4
        expected = loop(policy, carry.memory, steps, raw)
        np.testing.assert_allclose(steps.distribution.logits, expected.logits, atol=1e-5)
        np.testing.assert_allclose(steps.value, expected.value, atol=1e-5)
        np.testing.assert_allclose(steps.value_next, expected.value_next, atol=1e-5)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), after.memory, expected.memory)
        np.testing.assert_array_equal(steps.window.reset[0], carry.episode_length == 0)
        np.testing.assert_array_equal(steps.window.reset[1:], ended[:-1])
        carry = jax.tree.map(jnp.asarray, after)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(carry.memory))


ALL_AT_ONCE = {
    "env": dials(),
    "previous_inputs": "action+reward+start",
}


@pytest.mark.parametrize(
    "objective, settings",
    [
        ("clip", {"memory": "attention", "memory_window": 4}),
        ("trpo", {"memory": "gru", "memory_start": "learned"}),
    ],
    ids=["clip", "trpo"],
)
def test_every_ratio_of_the_first_minibatch_is_one_also_after_some_iterations(
    objective: str, settings: dict[str, Any]
) -> None:
    """With joint actions under a mask, a dict of observations and inputs of the step before."""
    config = dataclasses.replace(
        CONFIG,
        **ALL_AT_ONCE,
        **settings,
        objective=objective,
        rollout_length=16,
        num_epochs=2,
        num_minibatches=2,
        num_cg_iterations=5,
        total_env_steps=16 * B * 4,
        normalize_observations=True,
    )
    hyper = Hyper(learning_rate=0.02, trust_region_kl=0.02)
    state, rows = jit(lambda key: trainer.train(config, hyper, key))(jax.random.key(0))
    assert np.all(rows["log_ratio_abs_first"] <= 1e-5)
    assert np.all(rows["ratio_max"] > 1.001)  # and not because nothing moved
    assert np.all(rows["alive"] == 1.0)
    if objective == "trpo":
        assert np.all(rows["kl_old_new"] <= 0.02 * (1.0 + 1e-3))
        assert np.all(rows["updates_fraction"] > 0.0)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(state.carry.memory))
    # a single illegal choice would show in the mean return
    assert np.all(rows["episode_return_sum"] >= 0.0)
    assert np.all(rows["num_episodes"] > 0)


# Whole episodes -----------------------------------------------------------------------------------


def test_an_evaluation_carries_the_memory_of_each_episode_whatever_their_number() -> None:
    """A deterministic walk has one return: that of a loop over its steps."""
    config = Config(env="tiny:Walk", memory="lstm", memory_size=4, hidden_sizes=(3,))
    agent = assemble(config)
    world, network = agent.environment.default_params, agent.network
    params = jax.tree.map(lambda x: 3.0 * x + 0.1, network.init(jax.random.key(3)))
    policy = Policy(network, agent.family, params, None)
    memory, act = network.start(params, 1), jit(partial(network.act, params))
    key = jax.random.key(0)
    observation, state = agent.environment.reset(key, world)
    total, actions, is_over = 0.0, [], False
    while not is_over:
        memory, distribution = act(memory, observation[None])
        actions.append(int(np.argmax(distribution.logits[0])))
        observation, state, reward, terminated, truncated, _ = agent.environment.transition(
            key, state, jnp.int32(actions[-1]), world
        )
        total, is_over = total + float(reward), bool(terminated | truncated)
    for count in (1, 3):
        contest = Contest(count, 20, True)
        found = episodes(config, agent.environment, world, policy, contest, key)
        np.testing.assert_allclose(found.episode_return, np.full(count, total), rtol=1e-5)
        np.testing.assert_array_equal(found.length, np.full(count, len(actions)))


def test_a_time_limit_is_valued_with_the_memory_of_the_episode() -> None:
    """A cue of -1 or 1 is shown once and paid at every step: V = cue / (1 - gamma) = -5 or 5.

    Episodes are cut at random. V of a memory that a reset has cleared would be 0, the mean, and
    then the fixed point of the other values is 1 / (1 - 0.9 * 0.8) = 3.6.
    """

    def reset(key: jax.Array, params: Any) -> tuple:
        cue = jax.random.rademacher(key, (1,), jnp.float32)
        return cue, cue

    def transition(key: jax.Array, cue: jax.Array, action: Any, params: Any) -> tuple:
        never, is_cut = jnp.zeros((), bool), jax.random.bernoulli(key, 0.1)
        return jnp.zeros(1), cue, cue[0], never, is_cut, {}

    config = dataclasses.replace(
        CONFIG,
        env=lane(Discrete(2))._replace(
            reset=reset,
            transition=transition,
            observation=jax.ShapeDtypeStruct((1,), "float32"),
            max_episode_steps=None,
        ),
        memory_size=8,
        hidden_sizes=(8,),
        num_envs=32,
        rollout_length=16,
        num_epochs=4,
        num_minibatches=2,
        total_env_steps=32 * 16 * 100,
    )
    hyper = Hyper(learning_rate=Schedule(1e-2, 0.0), gamma=0.8, value_coef=1.0, max_grad_norm=5.0)
    state, _ = jit(lambda key: trainer.train(config, hyper, key))(jax.random.key(0))
    steps = jit(lambda s: trainer.sample(config, hyper, s)[0].rollout)(state)
    assert np.sum(steps.truncated) > 20
    cue = np.asarray(steps.reward)
    np.testing.assert_allclose(np.mean(steps.value * cue), 5.0, rtol=0.02)
    at_limits = np.asarray(steps.value_next * cue)[np.asarray(steps.truncated)]
    np.testing.assert_allclose(np.mean(at_limits), 5.0, rtol=0.02)


# A task that needs a memory -----------------------------------------------------------------------


class Recall(NamedTuple):
    cue: Any
    time: Any


def recall() -> Environment:
    """Shows -1 or 1 at the start, then 0; pays 1 for the action that was shown, 3 steps later."""

    def reset(key, params):
        cue = jax.random.randint(key, (), 0, 2)
        return jnp.float32(2 * cue - 1)[None], Recall(cue, jnp.zeros((), jnp.int32))

    def transition(key, state, action, params):
        is_last = state.time == 3
        reward = jnp.where(is_last, jnp.where(action == state.cue, 1.0, -1.0), 0.0)
        after = state._replace(time=state.time + 1)
        return jnp.zeros(1), after, reward, is_last, jnp.zeros((), bool), {}

    return Environment(
        name="recall",
        reset=reset,
        transition=transition,
        default_params=(),
        observation_shape=(1,),
        action_space=Discrete(2),
        max_episode_steps=None,
        override=lambda params, values: params,
    )


def test_what_was_shown_at_the_start_is_remembered_and_not_without_a_memory() -> None:
    """A policy without a memory cannot do better than 0 on average."""
    returns, hyper = {}, Hyper(learning_rate=Schedule(1e-2, 0.0), gamma=0.95)
    for memory in ("gru", "none"):
        config = Config(
            env=recall(),
            memory=memory,
            memory_size=16,
            hidden_sizes=(16,),
            num_envs=32,
            rollout_length=16,
            num_epochs=4,
            num_minibatches=2,
            total_env_steps=32 * 16 * 60,
        )
        _, rows = jit(lambda key, c=config: trainer.train(c, hyper, key))(jax.random.key(0))
        late = slice(-5, None)
        total, count = rows["episode_return_sum"][late].sum(), rows["num_episodes"][late].sum()
        returns[memory] = float(total / count)
    assert returns["gru"] > 0.95
    assert abs(returns["none"]) < 0.2
