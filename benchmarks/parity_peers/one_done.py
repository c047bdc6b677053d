"""gymnax 1.x with the single `done` of gymnax 0.x, which Rejax and PureJaxRL read.

Both sides then train on the same environments: SpaceInvaders of gymnax 0.0.9 has four more aliens.
"""

from __future__ import annotations

from typing import Any

import gymnax


class OneDone:
    """An environment whose `step` returns terminated or truncated as one flag."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked of an empty copy, by Rejax's deepcopy
            raise AttributeError(name)
        return getattr(self._env, name)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        observation, state, reward, terminated, truncated, info = self._env.step(
            key, state, action, params
        )
        return observation, state, reward, terminated | truncated, info


def make(name: str) -> tuple[OneDone, Any]:
    """The environment and its default parameters, as `gymnax.make` returns them."""
    env, params = gymnax.make(name)
    return OneDone(env), params
