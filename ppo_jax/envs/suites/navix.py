"""Navix: MiniGrid's tasks, seen from above as symbols, uint8 [height, width, 3].

Every environment has a time limit of its own, which navix fixes when it makes one.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import jax
import numpy as np

from ppo_jax.envs.conform import conform
from ppo_jax.envs.interface import Discrete, Environment
from ppo_jax.envs.leaves import WHOLE
from ppo_jax.envs.render import enlarged

suite: Any = import_module("navix")


def make(name: str, **settings: Any) -> Environment:
    """The environment `name` of navix.

    Args:
        settings: of its constructor, such as `max_steps=50`.
    """
    env = suite.make(name, disable_autoreset=True, **settings)
    draw = jax.jit(import_module("navix.observations").rgb)

    def reset(key: Any, params: Any) -> tuple:
        timestep = env.reset(key)
        return timestep.observation, timestep

    def step(key: Any, timestep: Any, action: Any, params: Any) -> tuple:
        timestep = env.step(timestep, action)
        return (
            timestep.observation,
            timestep,
            timestep.reward,
            timestep.is_termination(),
            timestep.is_truncation(),
            timestep.info,
        )

    return conform(
        f"navix/{name}",
        reset,
        step,
        params=(),
        action_space=Discrete(len(env.action_set)),
        max_episode_steps=int(env.max_steps),
        fixed=partial(_settings, name, env),
        integers=((WHOLE, 0, int(np.max(env.observation_space.maximum))),),
        evaluation_mode="sampled",
        render=lambda timestep, params: enlarged(np.asarray(draw(timestep.state))),
    )


def _settings(name: str, env: Any) -> dict[str, Any]:
    """The fields of an environment that its constructor takes; most ids fix the size themselves."""
    found = {}
    for field in dataclasses.fields(env):
        value = getattr(env, field.name)
        with suppress(TypeError):  # the id sets it, or this adapter does
            suite.make(name, disable_autoreset=True, **{field.name: value})
            found[field.name] = value
    return found
