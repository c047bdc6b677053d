"""A corridor whose author forgot the time limit: EnvParams' own default is ONE step. 5 steps right
pay 1. Intended best return 1; cut at 1 step: 0.
"""

import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class S(environment.EnvState):
    x: int


@struct.dataclass
class P(environment.EnvParams):
    goal: int = 5


class Corridor(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        return jnp.zeros(1), S(time=0, x=0)

    def step_env(self, key, state, action, params):
        x = jnp.maximum(state.x + 2 * action - 1, 0)
        done = x >= params.goal
        return (
            jnp.array([x / 5.0]),
            S(time=state.time + 1, x=x),
            jnp.where(done, 1.0, 0.0),
            done,
            {},
        )

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)
