"""Half of the episodes end after one step with return 0, half last 400 steps at -1 each, whatever
is done: the mean return is -200. Of the first rollouts only short ones have ended.
"""

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class S(environment.EnvState):
    is_long: bool


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 400


class Mixed(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        is_long = jax.random.bernoulli(key)
        return jnp.array([is_long * 1.0]), S(time=0, is_long=is_long)

    def step_env(self, key, state, action, params):
        s = S(time=state.time + 1, is_long=state.is_long)
        return jnp.array([s.is_long * 1.0]), s, jnp.where(s.is_long, -1.0, 0.0), ~s.is_long, {}

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)
