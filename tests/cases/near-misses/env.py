"""Environments that almost keep gymnax's API, each with one slip that people make. Action 1 pays 1,
one step: best return 1.
"""

import gymnasium.spaces
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 1


class Base(environment.Environment):
    @property
    def default_params(self):
        return P()

    def reset_env(self, key, params):
        return jnp.ones(1), environment.EnvState(time=0)

    def step_env(self, key, state, action, params):
        return (
            jnp.ones(1),
            environment.EnvState(time=state.time + 1),
            action * 1.0,
            jnp.array(True),
            {},
        )

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)


class NoLimit(Base):
    """The time limit is written as infinity."""

    @property
    def default_params(self):
        return P(max_steps_in_episode=jnp.inf)


class GymnasiumSpaces(Base):
    """The spaces are gymnasium's own."""

    def action_space(self, params):
        return gymnasium.spaces.Discrete(2)

    def observation_space(self, params):
        return gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)


class MethodParams(Base):
    """default_params without @property."""

    def default_params(self):
        return P()


class SixValues(Base):
    """step_env returns six values, as `step` of gymnax and gymnasium does."""

    def step_env(self, key, state, action, params):
        o, s, r, d, i = super().step_env(key, state, action, params)
        return o, s, r, d, jnp.array(False), i


class TextParams(Base):
    """A text among the parameters."""

    @property
    def default_params(self):
        return P2()


@struct.dataclass
class P2(environment.EnvParams):
    max_steps_in_episode: int = 1
    mode: str = "easy"


class RawKey(Base):
    """Takes a key for two numbers, as it was before typed keys."""

    def reset_env(self, key, params):
        return jnp.reshape(key[0] % 2, (1,)) * 1.0, environment.EnvState(time=0)


class DictState(Base):
    """The state is a plain dict, so is_truncated's state.time does not exist."""

    def reset_env(self, key, params):
        return jnp.ones(1), {"time": 0}

    def step_env(self, key, state, action, params):
        return jnp.ones(1), {"time": state["time"] + 1}, action * 1.0, jnp.array(True), {}


class UnitBox(Base):
    """The everyday box [0, 1]: nothing may be printed about invalid values."""

    def action_space(self, params):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)

    def step_env(self, key, state, action, params):
        return (
            jnp.ones(1),
            environment.EnvState(time=state.time + 1),
            action[0],
            jnp.array(True),
            {},
        )


class ListObservation(Base):
    """The observation is a Python list of numbers."""

    def reset_env(self, key, params):
        return [0.0, 1.0], environment.EnvState(time=0)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (2,), jnp.float32)


class RewardNone(Base):
    """Reward is a row of two (a multi-objective task)."""

    def step_env(self, key, state, action, params):
        o, s, r, d, i = super().step_env(key, state, action, params)
        return o, s, jnp.array([r, r]), d, i


class NotDeclared(Base):
    """The declared shape is not the one returned."""

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (7,), jnp.float32)
