"""One step, action 1 pays +scale, action 0 pays -scale: best return +scale whatever the scale."""

import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 1
    scale: float = 1.0


class Scaled(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        return jnp.ones(1), environment.EnvState(time=0)

    def step_env(self, key, state, action, params):
        return (
            jnp.ones(1),
            environment.EnvState(time=state.time + 1),
            params.scale * (2.0 * action - 1.0),
            jnp.array(True),
            {},
        )

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)
