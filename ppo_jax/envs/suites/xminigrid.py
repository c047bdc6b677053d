"""XLand-MiniGrid: grid worlds seen from the agent, uint8 [view, view, 2].

The reward at the goal is 1 - 0.9 steps / `max_steps`, so the limit is a parameter that matters
twice. Every environment has a limit of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.envs import params as parameters
from ppo_jax.envs.conform import conform
from ppo_jax.envs.interface import Discrete, Environment
from ppo_jax.envs.leaves import WHOLE

suite: Any = import_module("xminigrid")


class Params(NamedTuple):
    """The numbers of xminigrid's parameters that do not shape the program."""

    max_steps: Any


def make(name: str, **settings: Any) -> Environment:
    """The environment `name` of xminigrid.

    Args:
        settings: fields of xminigrid's own parameters, such as `view_size=3`.
    """
    env, own = suite.make(name, **settings)

    def reset(key: Any, params: Params) -> tuple:
        timestep = env.reset(own, key)
        return timestep.observation, timestep

    def step(key: Any, timestep: Any, action: Any, params: Params) -> tuple:
        timestep = env.step(own.replace(max_steps=params.max_steps), timestep, action)
        terminated = timestep.discount == 0
        return (
            timestep.observation,
            timestep,
            timestep.reward,
            terminated,
            timestep.last() & ~terminated,
            {},
        )

    return conform(
        f"xminigrid/{name}",
        reset,
        step,
        params=Params(own.max_steps),
        action_space=Discrete(env.num_actions(own)),
        max_episode_steps=lambda params: parameters.time_limit(params, "max_steps"),
        fixed=lambda: {k: v for k, v in vars(own).items() if k not in Params._fields},
        integers=_integers(env, own),
        evaluation_mode="sampled",
        render=lambda timestep, params: np.asarray(env.render(own, timestep), np.uint8),
    )


def _integers(env: Any, own: Any) -> tuple[tuple[str, int, int], ...]:
    """The numbers of tiles and colours, if the observation is the grid alone."""
    constants = import_module("xminigrid.core.constants")
    if not isinstance(env.observation_shape(own), tuple):
        return ()
    return ((WHOLE, 0, max(constants.NUM_TILES, constants.NUM_COLORS) - 1),)
