"""Return of the random policy: the zero of a normalised score in ppo_jax/data/specs/*.toml.

    python benchmarks/random_policy.py ENV ... [--episodes 4096]

Actions are drawn uniformly from the legal ones of the action space. Prints the mean return of whole
episodes and its standard error.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.apps.diagnose.random_play import random_action
from ppo_jax.config.options import RunOptions
from ppo_jax.envs import registration
from ppo_jax.envs.interface import Environment, action_mask, time_limit
from ppo_jax.runtime import devices

MAX_STEPS = 10_000
SUMMARY = "Mean return of uniformly random actions."


def main() -> None:
    parser = argparse.ArgumentParser(description=SUMMARY)
    parser.add_argument("env", nargs="+")
    parser.add_argument("--episodes", type=int, default=4096)
    given = parser.parse_args()
    devices.prepare_jax(RunOptions())
    for name in given.env:
        returns = np.asarray(random_returns(registration.make(name), given.episodes), np.float64)
        error = returns.std(ddof=1) / np.sqrt(returns.size)
        print(f"{name}: {returns.mean():.6g} +- {error:.2g}", flush=True)


def random_returns(environment: Environment, episodes: int) -> Array:
    """Return of one whole episode in each of `episodes` environments, [episodes]."""
    params = environment.default_params
    bound = time_limit(environment, environment.default_params) or MAX_STEPS

    def step(state: Any, key: Array) -> tuple[Any, Array, Array]:
        observation, inner = state
        key_action, key_env = jax.random.split(key)
        action = random_action(environment.action_space, key_action, action_mask(observation))
        *after, reward, terminated, truncated, _ = environment.transition(
            key_env, inner, action, params
        )
        return tuple(after), reward, terminated | truncated

    def body(carry: tuple[Any, Array, Array, Array]) -> tuple[Any, Array, Array, Array]:
        state, total, is_over, t = carry
        keys = jax.random.split(jax.random.fold_in(key_steps, t), episodes)
        state, reward, ends = jax.vmap(step)(state, keys)
        return state, total + jnp.where(is_over, 0.0, reward), is_over | ends, t + 1

    def is_going_on(carry: tuple[Any, Array, Array, Array]) -> Array:
        return ~jnp.all(carry[2]) & (carry[3] < bound)

    key_reset, key_steps = jax.random.split(jax.random.key(0))
    reset = jax.jit(jax.vmap(environment.reset, (0, None)))
    start = reset(jax.random.split(key_reset, episodes), params)
    carry = (start, jnp.zeros(episodes), jnp.zeros(episodes, bool), jnp.zeros((), jnp.int32))
    return jax.jit(lambda carry: jax.lax.while_loop(is_going_on, body, carry))(carry)[1]


if __name__ == "__main__":
    main()
