"""One step; the action's bounds are a parameter, as in gymnax's Pendulum (max_torque). Reward =
action: best return = params.limit.
"""

import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class S(environment.EnvState):
    time: int


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 1
    limit: float = 2.0


class Push(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        return jnp.ones(1), S(time=0)

    def step_env(self, key, state, action, params):
        u = jnp.clip(action[0], -params.limit, params.limit)
        return jnp.ones(1), S(time=state.time + 1), u, jnp.array(True), {}

    def action_space(self, params):
        return spaces.Box(-params.limit, params.limit, (1,), jnp.float32)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)
