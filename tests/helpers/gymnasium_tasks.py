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


class Masked(Clock):
    """Allows the first and the third of three actions, and refuses the second."""

    observation_space = spaces.Dict(
        {"age": spaces.Box(0, 100, (1,), np.float64), "action_mask": spaces.MultiBinary(3)}
    )
    action_space = spaces.Discrete(3)

    def __init__(self, num_legal: int = 2) -> None:
        self.reward, self.num_legal = 1.0, num_legal

    def step(self, action: Any) -> tuple:
        if action == 1:
            raise ValueError("the action is forbidden")
        return super().step(action)

    def _seen(self) -> dict[str, Any]:
        mask = np.array([1, 0, 1] if self.num_legal else [0, 0, 0], np.int8)
        return {"age": np.array([float(self.age)]), "action_mask": mask}


class WideMask(Masked):
    """Has a flag too many."""

    observation_space = spaces.Dict({"action_mask": spaces.MultiBinary(4)})


class OneArray(Clock):
    """Shows its age in one array, which it writes anew in every step and reset."""

    observation_space = spaces.Box(0, 100, (1,), np.float64)
    action_space = spaces.Discrete(2)
    seen = None

    def _seen(self) -> Any:
        self.seen = np.zeros(1) if self.seen is None else self.seen
        self.seen[0] = self.age
        return self.seen


gymnasium.register("Masked-v0", Masked, max_episode_steps=LIMIT)
gymnasium.register("WideMask-v0", WideMask, max_episode_steps=LIMIT)
gymnasium.register("OneArray-v0", OneArray, max_episode_steps=LIMIT)
gymnasium.register("Imports-v0", Imports, max_episode_steps=LIMIT)
gymnasium.register("Clock-v0", Clock, max_episode_steps=LIMIT)
gymnasium.register("Words-v0", Words)
