"""Environments of Gymnasium with known numbers, registered when this module is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError

LIMIT = 5
SMALL = Config(num_envs=2, rollout_length=8, num_epochs=1, num_minibatches=2, hidden_sizes=(8,))


def sentence(action: Callable[[], Any]) -> str:
    """The words of the input error that an action raises."""
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


class Clock(gymnasium.Env):
    """Pays 1 a step and never terminates; shows its age, and takes actions of several kinds."""

    observation_space = spaces.Dict(
        {"age": spaces.Box(0, 100, (1,), np.float64), "phase": spaces.Discrete(3, start=1)}
    )
    action_space = spaces.Tuple(
        (
            spaces.MultiDiscrete([2, 3]),
            spaces.Box(-2, np.array([1.0, 3.0], np.float32), (2,)),
            spaces.Discrete(4, start=-1),
        )
    )

    def __init__(self, reward: float = 1.0, is_wide: bool = False) -> None:
        self.reward = reward
        if is_wide:
            self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple:
        super().reset(seed=seed)
        self.age = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple:
        if action not in self.action_space:
            raise ValueError(f"{action} is not in {self.action_space}")
        self.age += 1
        return self._seen(), self.reward, False, False, {}

    def _seen(self) -> dict[str, Any]:
        return {"age": np.array([float(self.age)]), "phase": np.int64(1 + self.age % 3)}


class Words(Clock):
    """Shows a text, which no network reads."""

    observation_space = spaces.Text(8)


class Imports(Clock):
    """Pays 1 if its process has imported jax."""

    action_space = spaces.Discrete(2)

    def step(self, action: Any) -> tuple:
        return self._seen(), float("jax" in sys.modules), False, False, {}


gymnasium.register("Imports-v0", Imports, max_episode_steps=LIMIT)
gymnasium.register("Clock-v0", Clock, max_episode_steps=LIMIT)
gymnasium.register("Words-v0", Words)
