"""Brax: rigid bodies, with the physics that each environment has by default.

Brax' wrappers for training reset by themselves and overwrite the last observation, so the bare
environments are stepped here. Those have no time limit: 1000 steps, as in `brax.envs.create`, and
no repetition of actions.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ppo_jax.envs.conform import arguments, conform, with_time_limit
from ppo_jax.envs.interface import Box, Environment
from ppo_jax.envs.render import mujoco_picture

suite: Any = import_module("brax.envs")

EPISODE_LENGTH = 1000


def make(name: str, **settings: Any) -> Environment:
    """The environment `name` of Brax.

    Args:
        settings: of its constructor, such as `backend="spring"`.
    """
    env = suite.get_environment(name, **settings)
    one = np.ones(env.action_size, np.float32)

    def reset(key: Any, params: Any) -> tuple:
        state = env.reset(key)
        return state.obs, state

    def step(key: Any, state: Any, action: Any, params: Any) -> tuple:
        state = env.step(state, action)
        return state.obs, state, state.reward, state.done != 0, False, state.metrics

    def fixed() -> dict[str, Any]:
        own = arguments(type(env).__init__)
        # The bodies' class takes what an environment hands on; `fast` takes any name, for nothing
        return {**arguments(suite.PipelineEnv.__init__), **own} if hasattr(env, "sys") else own

    model = getattr(getattr(env, "sys", None), "mj_model", None)  # `fast` has no body
    draw = mujoco_picture(f"brax/{name}", model)
    bare = conform(
        f"brax/{name}",
        reset,
        step,
        params=(),
        action_space=Box(one.shape, -one, one),
        max_episode_steps=None,
        render=model
        and (lambda state, params: draw(state.pipeline_state.q, state.pipeline_state.qd)),
        metrics=lambda metrics: {k: v for k, v in metrics.items() if "reward" in k},
        is_heavy=name != "fast",  # a point on a line in place of bodies
    )
    return with_time_limit(bare, EPISODE_LENGTH, fixed)
