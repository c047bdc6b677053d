"""Observation k / 10 + 5 for k = 0..9; the right action is k % 2 == 0 ... learnt by one network and
given to another with --init-from. One step; best return 1, chance 0.5.
"""

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class S(environment.EnvState):
    k: int


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 1


class Half(environment.Environment):
    """The right action is k >= 5, seen as 100 + k: a normaliser makes it easy."""

    @property
    def default_params(self):
        return P()

    def _see(self, k):
        return jnp.array([100.0 + k])

    def reset_env(self, key, params):
        k = jax.random.randint(key, (), 0, 10)
        return self._see(k), S(time=0, k=k)

    def step_env(self, key, state, action, params):
        reward = jnp.where(action == (state.k >= 5), 1.0, 0.0)
        return self._see(state.k), S(time=state.time + 1, k=state.k), reward, jnp.array(True), {}

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0.0, 200.0, (1,), jnp.float32)
