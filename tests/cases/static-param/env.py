"""A ring whose size is a static parameter (it shapes the one-hot observation). Moving always pays 1
a step for 10 steps: best return 10.
"""

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class S(environment.EnvState):
    time: int
    x: int


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 10
    n: int = struct.field(pytree_node=False, default=5)


class Ring(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        return jax.nn.one_hot(0, params.n), S(time=0, x=0)

    def step_env(self, key, state, action, params):
        x = (state.x + action) % params.n
        return (
            jax.nn.one_hot(x, params.n),
            S(time=state.time + 1, x=x),
            action * 1.0,
            jnp.array(False),
            {},
        )

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (params.n,), jnp.float32)
