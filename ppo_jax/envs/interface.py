"""The environment contract: unbatched, explicit, and never resetting by itself.

`reset(key, params) -> (observation, state)`
`transition(key, state, action, params)
    -> (observation, state, reward, terminated, truncated, info)`

The rollout owns resets and time limits' bootstrap, so a transition returns the true successor even
where the episode ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Discrete(NamedTuple):
    """Actions 0 .. n-1."""

    n: int


class MultiDiscrete(NamedTuple):
    """One action of each of several discrete sets."""

    ns: tuple[int, ...]


class Box(NamedTuple):
    """Real arrays between `low` and `high` (numpy arrays of `shape`, may be infinite)."""

    shape: tuple[int, ...]
    low: Any
    high: Any


class Environment(NamedTuple):
    """A static object of pure functions; every number it may vary is in `params`."""

    name: str
    reset: Callable[[Any, Any], tuple[Any, Any]]
    transition: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any, Any, Any, Any]]
    default_params: Any  # a pytree of numbers
    observation_shape: tuple[int, ...]  # of what `reset` returns
    observation_dtype: str  # "float32", "bool" or "uint8": grids are stored as small as they are
    action_space: Discrete | MultiDiscrete | Box
    max_episode_steps: int | None  # the time limit under default_params, None if there is none
    override: Callable[[Any, dict], Any]  # (params, {name: value}) -> params, refuses unknown names
    render: Callable[[Any, Any], Any] | None = (
        None  # (state, params) -> RGB uint8 array, on the host
    )
