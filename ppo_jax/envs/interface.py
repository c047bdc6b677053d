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


class ObservationSpace(NamedTuple):
    """What an environment says of its own observations, before they are cast to the contract."""

    shape: tuple[int, ...]
    dtype: str
    low: Any  # broadcasts to `shape`
    high: Any
    is_number: bool  # a whole number in low .. high, which is stored one-hot


class Raw(NamedTuple):
    """An environment's own words, before the cast to the contract; the diagnosis reads them."""

    observation_space: ObservationSpace
    reset: Callable[[Any, Any], Any]  # (key, params) -> observation
    transition: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]]
    # (key, state, action, params) -> (observation, terminated, truncated), both flags as they came


class Environment(NamedTuple):
    """A static object of pure functions; every number it may vary is in `params`."""

    name: str
    reset: Callable[[Any, Any], tuple[Any, Any]]
    transition: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any, Any, Any, Any]]
    default_params: Any  # a pytree of numbers
    observation_shape: tuple[int, ...]  # of what `reset` returns
    observation_dtype: str  # "float32", "bool" or "uint8": grids are stored as small as they are
    action_space: Discrete | MultiDiscrete | Box  # under default_params
    # The time limit in steps, or params -> it, called with numbers and never traced; None if none
    max_episode_steps: int | Callable[[Any], int | None] | None
    override: Callable[[Any, dict], Any]  # (params, {name: value}) -> params, refuses unknown names
    render: Callable[[Any, Any], Any] | None = (
        None  # (state, params) -> RGB uint8 array, on the host
    )
    # params -> (low, high) of a Box, may be traced; None if the bounds depend on no parameter
    action_bounds: Callable[[Any], tuple[Any, Any]] | None = None
    # An observation as the environment itself shows it -> as it is stored; None if it is the same
    encode: Callable[[Any], Any] | None = None
    raw: Raw | None = None  # None if it returns the contract's own types


def time_limit(environment: Environment, params: Any) -> int | None:
    """The time limit in steps under `params`, None if there is none."""
    limit = environment.max_episode_steps
    return limit(params) if callable(limit) else limit
