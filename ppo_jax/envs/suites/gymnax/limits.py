"""The time limit of an environment of gymnax's API.

It is the parameter `max_steps_in_episode`, which gymnax's own `is_truncated` keeps. A class with
another limit declares it as `max_episode_steps`: a number, None for no limit, or a method that
returns either for some parameters. A class without an `is_truncated` of its own is then cut there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from ppo_jax.config.errors import RAISED, InputError
from ppo_jax.envs import params as parameters

DECLARED = "max_episode_steps"


def limit_of(env: Any, label: str) -> Callable[[Any], int | None]:
    """Parameters -> the time limit in steps, None without one.

    Raises:
        InputError: from the function, for a declared limit that is no number of steps.
    """

    def declared(params: Any) -> int | None:
        try:
            given = _declared(env, params)
        except RAISED as error:
            raise InputError(
                f"{label}.{DECLARED} fails with {type(error).__name__}: {error}; it takes the "
                "parameters and returns a number of steps, or None for no limit."
            ) from error
        return None if given is None else parameters.as_steps(given, f"{label}.{DECLARED}")

    return declared if hasattr(env, DECLARED) else parameters.time_limit


def is_truncated(env: Any, state: Any, params: Any) -> Any:
    """The flag of the time limit; a declared one goes before gymnax's own."""
    if not hasattr(env, DECLARED) or _method_of(env) != "gymnax.environments.environment":
        return env.is_truncated(state, params)
    limit = _declared(env, params)
    return jnp.asarray(False) if limit is None else state.time >= limit


def require_readable(env: Any, state: Any, params: Any, label: str) -> None:
    """Refuse a state or parameters without what gymnax's own is_truncated reads.

    Raises:
        InputError: the sentence names what is missing.
    """
    if not _method_of(env).startswith("gymnax."):
        return
    read = [(state, "time", "state", "EnvState")]
    if not hasattr(env, DECLARED):
        read.append((params, "max_steps_in_episode", "parameter object", "EnvParams"))
    for owner, field, name, base in read:
        if not hasattr(owner, field):
            raise InputError(
                f"{label}'s {name}, a {type(owner).__name__}, has no field `{field}`, which "
                "gymnax's is_truncated reads: define is_truncated(self, state, params), or base "
                f"it on gymnax's {base}."
            )


def _declared(env: Any, params: Any) -> Any:
    found = getattr(env, DECLARED)
    return found(params) if callable(found) else found


def _method_of(env: Any) -> str:
    """The module that defines the method `is_truncated` of an environment."""
    return str(getattr(type(env).is_truncated, "__module__", ""))
