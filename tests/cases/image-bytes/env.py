"""One step. The observation is an 8x8x1 picture of bytes, 0 or 255; the right action is whether its
left half is lit. Best return 1.
"""

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class S(environment.EnvState):
    lit: int


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 1


class Lamp(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        lit = jax.random.randint(key, (), 0, 2)
        noise = jax.random.randint(jax.random.fold_in(key, 1), (8, 8, 1), 150, 256)
        side = (jnp.arange(8) < 4) == (lit == 1)
        return jnp.where(side[None, :, None], noise, 0).astype(jnp.uint8), S(time=0, lit=lit)

    def step_env(self, key, state, action, params):
        reward = jnp.where(action == state.lit, 1.0, 0.0)
        return (
            jnp.zeros((8, 8, 1), jnp.uint8),
            S(time=state.time + 1, lit=state.lit),
            reward,
            jnp.array(True),
            {},
        )

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0, 255, (8, 8, 1), jnp.uint8)


class ChannelsFirst(Lamp):
    """The same picture stacked four times as [channels, height, width], as torch users keep it."""

    def _turn(self, x):
        return jnp.tile(jnp.transpose(x, (2, 0, 1)), (4, 1, 1))

    def reset_env(self, key, params):
        x, s = super().reset_env(key, params)
        return self._turn(x), s

    def step_env(self, *a):
        x, *rest = super().step_env(*a)
        return self._turn(x), *rest

    def observation_space(self, params):
        return spaces.Box(0, 255, (4, 8, 8), jnp.uint8)
