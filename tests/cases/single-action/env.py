"""One action only, 10 steps, reward 1 a step: every return is 10, V(t) = (1 - 0.99^(10 - t)) /
0.01, the policy's KL and entropy are 0.
"""

import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 1000


class Only(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        return jnp.zeros(1), environment.EnvState(time=0)

    def step_env(self, key, state, action, params):
        time = state.time + 1
        return (
            jnp.array([time / 10.0]),
            environment.EnvState(time=time),
            jnp.array(1.0),
            time >= 10,
            {},
        )

    def action_space(self, params):
        return spaces.Discrete(1)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)
