"""An environment whose every number is known, and rollouts of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from networks import network_of

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import Discrete, Environment
from ppo_jax.models.policy import Policy
from ppo_jax.models.policy_head import make_family
from ppo_jax.rl.distributions import Categorical
from ppo_jax.rl.types import Moments
from ppo_jax.training.rollout import reset_all, rollout

FRESH = 1000.0  # added to the first observation of an episode: no other one is near it


class CounterParams(NamedTuple):
    terminate_after: Any = np.int32(10**6)
    truncate_after: Any = np.int32(10**6)
    spread: Any = np.int32(0)  # an episode's ends come 0 .. spread steps later, drawn at reset


class CounterState(NamedTuple):
    time: Any
    delay: Any
    name: Any


def counter() -> Environment:
    """Shows [steps in this episode + FRESH at its start, the episode's name]; pays the step."""

    def reset(key, params):
        key_delay, key_name = jax.random.split(key)
        state = CounterState(
            jnp.zeros((), jnp.int32),
            jax.random.randint(key_delay, (), 0, params.spread + 1),
            jax.random.uniform(key_name),
        )
        return jnp.stack([jnp.float32(FRESH), state.name]), state

    def transition(key, state, action, params):
        time = state.time + 1
        observation = jnp.stack([time.astype(jnp.float32), state.name])
        return (
            observation,
            state._replace(time=time),
            time.astype(jnp.float32),
            time >= params.terminate_after + state.delay,
            time >= params.truncate_after + state.delay,
            {"time": time},
        )

    return Environment(
        name="counter",
        reset=reset,
        transition=transition,
        default_params=CounterParams(),
        observation_shape=(2,),
        observation_dtype="float32",
        action_space=Discrete(3),
        max_episode_steps=None,
        override=lambda params, values: params._replace(**values),
    )


def first_number(params: Any, observation: Any) -> Any:
    """A critic whose value is known: V(observation) = 2 observation[0]."""
    return 2.0 * observation[..., 0]


def flat_policy(seen: Moments | None = None) -> Policy:
    """Uniform over three actions, with the known critic."""
    network = network_of(lambda params, x: Categorical(jnp.zeros((*x.shape[:-1], 3))), first_number)
    return Policy(network, make_family("categorical", Discrete(3), 1), {}, seen)


def play(num_steps, num_envs, params=None, rounds=1, policy=None, metrics=None, **settings):
    """Consecutive rollouts of the counter: the last carry and a list of (steps, raw, stats)."""
    environment = counter()._replace(metrics=metrics)
    params = params or CounterParams()
    policy = policy or flat_policy()
    config = Config(num_envs=num_envs, rollout_length=num_steps, **settings)
    carry = reset_all(environment, params, policy, num_envs, jax.random.key(0))
    run = jax.jit(lambda carry, key: rollout(config, environment, params, policy, carry, key))
    results = []
    for i in range(rounds):
        carry, *rest = run(carry, jax.random.key(100 + i))
        results.append(jax.device_get(rest))
    return jax.device_get(carry), results
