"""Two small tasks of the studies of defaults and optimisers, as a user's own class would be.

`LinearQuadratic` has a known answer: the gain K of the discounted Riccati equation. `ManyActions`
is a contextual bandit of 64 actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

# x' = A x + B u + noise, cost x' Q x + R u^2: an oscillator with little damping.
A = np.array([[0.99, 0.2], [-0.2, 0.97]])
B = np.array([[0.0], [0.2]])
Q = np.diag([1.0, 0.1])
R = np.array([[0.1]])
NOISE = 0.05  # standard deviation of each number of the state
GAMMA = 0.99
NUM_ACTIONS = 64


def riccati_gain(gamma: float = GAMMA) -> np.ndarray:
    """The optimal gain K [1, 2] of u = -K x, by iterating the discounted Riccati equation.

    Bertsekas, Dynamic Programming and Optimal Control I, section 3.1, with A and B times
    sqrt(gamma). Independent noise does not change K.
    """
    a, b, p = np.sqrt(gamma) * A, np.sqrt(gamma) * B, Q
    for _ in range(10_000):
        gain = np.linalg.solve(R + b.T @ p @ b, b.T @ p @ a)
        p = Q + a.T @ p @ (a - b @ gain)
    return gain


@struct.dataclass
class State(environment.EnvState):
    time: int
    x: Any  # [2]


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 50


class LinearQuadratic(environment.Environment):
    """Bring an oscillator to rest. The time limit is no end: the gain of endless time is best."""

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        x = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return x, State(time=0, x=x)

    def step_env(self, key, state, action, params):
        u = jnp.reshape(action, (1,))
        cost = state.x @ jnp.asarray(Q) @ state.x + u @ jnp.asarray(R) @ u
        noise = NOISE * jax.random.normal(key, (2,))
        x = jnp.asarray(A) @ state.x + jnp.asarray(B) @ u + noise
        return x, State(time=state.time + 1, x=x), -cost, jnp.array(False), {}

    def action_space(self, params):
        return spaces.Box(-5.0, 5.0, (1,))

    def observation_space(self, params):
        return spaces.Box(-100.0, 100.0, (2,))


class ManyActions(environment.Environment):
    """Choose the one right action of 64 for each of 8 contexts, 16 times; each is worth 1 / 16."""

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        context = jax.random.randint(key, (), 0, 8)
        return jax.nn.one_hot(context, 8), State(time=0, x=context)

    def step_env(self, key, state, action, params):
        reward = jnp.where(action == 7 * state.x + 3, 1.0 / 16, 0.0)
        context = jax.random.randint(key, (), 0, 8)
        after = State(time=state.time + 1, x=context)
        return jax.nn.one_hot(context, 8), after, reward, after.time >= 16, {}

    def action_space(self, params):
        return spaces.Discrete(NUM_ACTIONS)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (8,))
