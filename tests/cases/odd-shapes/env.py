"""Odd shapes and types that an environment returns; action 1 (or u > 0) pays 1: best return 1."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class P(environment.EnvParams):
    max_steps_in_episode: int = 1


class Base(environment.Environment):
    obs = staticmethod(lambda: jnp.ones(1))
    space = spaces.Box(0.0, 1.0, (1,), jnp.float32)
    actions = spaces.Discrete(2)

    @property
    def default_params(self):
        return P()

    def pay(self, action):
        return jnp.where(jnp.ravel(action)[0] > 0, 1.0, 0.0)

    def reset_env(self, key, params):
        return self.obs(), environment.EnvState(time=0)

    def step_env(self, key, state, action, params):
        return (
            self.obs(),
            environment.EnvState(time=state.time + 1),
            self.pay(action),
            jnp.array(True),
            {},
        )

    def action_space(self, params):
        return self.actions

    def observation_space(self, params):
        return self.space


class Empty(Base):
    """An observation of no numbers at all."""

    obs = staticmethod(lambda: jnp.zeros((0,)))
    space = spaces.Box(0.0, 1.0, (0,), jnp.float32)


class Scalar(Base):
    obs = staticmethod(lambda: jnp.float32(0.5))
    space = spaces.Box(0.0, 1.0, (), jnp.float32)


class Double(Base):
    obs = staticmethod(lambda: np.ones(2, np.float64))
    space = spaces.Box(0.0, 1.0, (2,), jnp.float32)


class Whole(Base):
    obs = staticmethod(lambda: jnp.array([3, -4], jnp.int32))
    space = spaces.Box(-10, 10, (2,), jnp.int32)


class Matrix(Base):
    """An action of shape [2, 3] and an observation [2, 2, 2, 2]."""

    obs = staticmethod(lambda: jnp.ones((2, 2, 2, 2)))
    space = spaces.Box(0.0, 1.0, (2, 2, 2, 2), jnp.float32)
    actions = spaces.Box(-1.0, 1.0, (2, 3), jnp.float32)


class Point(Base):
    """An action of shape ()."""

    actions = spaces.Box(-1.0, 1.0, (), jnp.float32)


class Fixed(Base):
    """One of two action dims has low == high (it cannot be chosen)."""

    actions = spaces.Box(jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.5]), (2,), jnp.float32)


class HalfOpen(Base):
    """[0, inf): the payment is for u > 3."""

    actions = spaces.Box(0.0, jnp.inf, (1,), jnp.float32)

    def pay(self, action):
        return -jnp.abs(action[0] - 3.0)


class Swapped(Base):
    """low and high exchanged by mistake."""

    actions = spaces.Box(1.0, -1.0, (1,), jnp.float32)


class NotANumber(Base):
    """A bound that is NaN."""

    actions = spaces.Box(jnp.nan, 1.0, (1,), jnp.float32)


class WholeBox(Base):
    actions = spaces.Box(-3, 3, (1,), jnp.int32)


class Many(Base):
    """1,000 actions, the last one pays."""

    actions = spaces.Discrete(1000)

    def pay(self, action):
        return jnp.where(action >= 500, 1.0, 0.0)


class RewardRow(Base):
    """Reward of shape (1,), done as a Python bool, info with a text."""

    def step_env(self, key, state, action, params):
        o, s, r, _, _ = super().step_env(key, state, action, params)
        return o, s, r[None], True, {"note": "text", "n": 3}


class InfoOk(Base):
    def step_env(self, key, state, action, params):
        o, s, r, _, _ = super().step_env(key, state, action, params)
        return o, s, r[None], True, {"n": 3}
