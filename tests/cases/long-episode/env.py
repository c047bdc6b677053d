"""Reward 1 a step, nothing else; time limit 12,000 steps: every return is 12,000."""

import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 12000


class Long(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        return jnp.zeros(1), environment.EnvState(time=0)

    def step_env(self, key, state, action, params):
        return (
            jnp.zeros(1),
            environment.EnvState(time=state.time + 1),
            jnp.array(1.0),
            jnp.array(False),
            {},
        )

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)
