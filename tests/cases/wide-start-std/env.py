"""One step; any real action in [-100, 100], reward -((a - 1) / 10)^2. The best policy is the point
1 with std 0: sampled return 0.
"""

import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 1


class Point(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        return jnp.ones(1), environment.EnvState(time=0)

    def step_env(self, key, state, action, params):
        reward = -jnp.square((action[0] - 1.0) / 10.0)
        return jnp.ones(1), environment.EnvState(time=state.time + 1), reward, jnp.array(True), {}

    def action_space(self, params):
        return spaces.Box(-100.0, 100.0, (1,), jnp.float32)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)
