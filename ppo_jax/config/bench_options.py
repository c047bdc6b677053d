"""What can be told of a timing's input before jax is loaded."""

from __future__ import annotations

import dataclasses
import math

from ppo_jax.config.config import Config, InputError


def check_seconds(seconds: float) -> float:
    """`seconds` where it is a time.

    Raises:
        InputError: it is none.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"seconds={seconds:g} must be a number of more than 0, for example 30.")
    return seconds


def with_one_iteration(config: Config) -> Config:
    """A budget of at least one iteration: how long one would train does not matter here."""
    sizes = (config.num_envs, config.rollout_length)
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        return config  # `validate` says what is wrong
    enough = max(config.total_env_steps, config.batch_size)
    return dataclasses.replace(config, total_env_steps=enough)
