"""One step; the action's box is [100, 200] and the best action its middle: reward -((a - 150) /
50)^2, best return 0; at an edge -1.
"""

import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 1


class Dial(environment.Environment):
    low, high = 100.0, 200.0

    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        return jnp.ones(1), environment.EnvState(time=0)

    def step_env(self, key, state, action, params):
        middle, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        reward = -jnp.square((action[0] - middle) / half)
        return jnp.ones(1), environment.EnvState(time=state.time + 1), reward, jnp.array(True), {}

    def action_space(self, params):
        return spaces.Box(self.low, self.high, (1,), jnp.float32)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)


class Wide(Dial):
    """Box [-1000, 1000], best action 0: a start with log std 3 or more is natural here."""

    low, high = -1000.0, 1000.0
