"""Stable-Baselines3's call for a loaded policy: `policy.predict(observation)`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ppo_jax.apps.export.numpy_policy import Policy
from ppo_jax.config.errors import InputError


class LoadedPolicy(Policy):
    """A policy with a method `predict(observation, state, episode_start, deterministic)`."""

    def __init__(
        self,
        act: Callable[..., Any],
        start: Callable[..., Any] | None = None,
        description: dict[str, Any] | None = None,
        sampling: Callable[[int], Any] | None = None,
    ) -> None:
        """Keep a function of observations, and the facts about it.

        Args:
            sampling: call number -> random key of a sampled action; None if it cannot sample.
        """
        super().__init__(act, start, description)
        self._sampling, self._calls = sampling, itertools.count()

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        """Act on one raw observation [*O] or on a batch [n, *O].

        Args:
            state: the memory after the last step; None at the start of all episodes.
            episode_start: [n] or one, True where an episode has just begun: the memory begins anew.
            deterministic: False samples the action; each loaded policy repeats its draws.
            action_masks: True for legal actions.

        Returns:
            the action, and the memory for the next call (`state` as given if there is none).
        """
        named = {} if action_masks is None else {"legal": action_masks}
        if not deterministic:
            if self._sampling is None:
                raise InputError(
                    "An exported policy is deterministic: load the run's folder to sample actions."
                )
            named["key"] = self._sampling(next(self._calls))
        start = self.start
        if start is None:
            return self(observation, **named), state
        if state is not None:
            return self(observation, _begun_anew(start, state, episode_start), **named)
        try:
            return self(observation, start(), **named)
        except InputError:  # a batch
            return self(observation, start(_count(observation)), **named)


def _begun_anew(start: Callable[..., Any], memory: Any, episode_start: Any) -> Any:
    """The memory, that of a new episode where one has begun."""
    begun = np.asarray(False if episode_start is None else episode_start, bool)
    if not begun.any():
        return memory
    import jax

    fresh = start()
    if all(np.shape(a) == np.shape(b) for a, b in zip(*map(jax.tree.leaves, (memory, fresh)))):
        return fresh  # one observation

    def mixed(old: Any, new: Any) -> Any:
        chosen = begun.reshape(-1, *[1] * (np.ndim(old) - 1))
        return np.where(chosen, np.asarray(new), np.asarray(old))

    return jax.tree.map(mixed, memory, fresh)


def _count(observation: Any) -> int:
    """The number of observations of a batch: the first size of its first array."""
    while isinstance(observation, dict | tuple):
        observation = next(
            iter(observation.values() if isinstance(observation, dict) else observation)
        )
    return np.shape(observation)[0] if np.ndim(observation) else 1
