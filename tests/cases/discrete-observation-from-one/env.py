"""States are numbered 1..3 although Discrete(3) means 0..2. In state k the action k - 1 pays 1:
best return 1 (2/3 where state 3 looks like nothing is still learnable: all-zero row).
"""

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class S(environment.EnvState):
    x: int


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 1


class FromOne(environment.Environment):
    n, first = 3, 1

    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        x = jax.random.randint(key, (), self.first, self.first + 5)
        return x, S(time=0, x=x)

    def step_env(self, key, state, action, params):
        return (
            state.x,
            S(time=state.time + 1, x=state.x),
            jnp.where(action == state.x - self.first, 1.0, 0.0),
            jnp.array(True),
            {},
        )

    def action_space(self, params):
        return spaces.Discrete(5)

    def observation_space(self, params):
        return spaces.Discrete(self.n)


class OneHotAlready(FromOne):
    """Declares Discrete(5) and returns the one-hot row itself."""

    n, first = 5, 0

    def reset_env(self, key, params):
        x, s = super().reset_env(key, params)
        return jax.nn.one_hot(x, 5), s

    def step_env(self, *a):
        x, *rest = super().step_env(*a)
        return jax.nn.one_hot(x, 5), *rest
