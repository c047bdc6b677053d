"""A step_env that already resets (as gymnax's own `step` or Brax do): the final observation is
lost. Truncation only, reward 1 a step, 10 steps: V under gamma 0.9 is 10 at every state if the
limit is bootstrapped right.
"""

import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class S(environment.EnvState):
    ended: bool


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 10


class Auto(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        return jnp.zeros(1), S(time=0, ended=False)

    def step_env(self, key, state, action, params):
        time = state.time + 1
        ended = time >= params.max_steps_in_episode
        time = jnp.where(ended, 0, time)
        return (
            jnp.array([time / 10.0]),
            S(time=time, ended=ended),
            jnp.array(1.0),
            jnp.array(False),
            {},
        )

    def is_truncated(self, state, params):
        return state.ended

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)
