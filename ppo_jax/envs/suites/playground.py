"""MuJoCo Playground: MJX's physics in plain jax, on every device.

Its wrappers for training reset by themselves and overwrite the last observation, so the bare
environments are stepped here, with the time limit and the repetition of actions of their settings.
An observation for the critic alone is the leaf `critic`, beside the actor's, `actor`.
"""

from __future__ import annotations

import shlex
from functools import partial
from importlib import import_module
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppo_jax.config.errors import InputError
from ppo_jax.envs.conform import conform, with_time_limit
from ppo_jax.envs.interface import Box, Environment
from ppo_jax.envs.render import mujoco_picture

suite: Any = import_module("mujoco_playground")
mjx_env: Any = import_module("mujoco_playground._src.mjx_env")

MENAGERIE = "https://github.com/deepmind/mujoco_menagerie.git"  # Playground downloads it as well
_VIEWS = {"actor": "state", "critic": "privileged_state"}  # names of an observation of two parts


def make(name: str, **settings: Any) -> Environment:
    """The environment `name` of Playground.

    Args:
        settings: changes of its configuration, such as `sim_dt=0.005`.

    Raises:
        InputError: its robot would be downloaded.
    """
    own = name in suite.dm_control_suite.ALL_ENVS
    folder = shlex.quote(str(mjx_env.MENAGERIE_PATH))
    if not own and not mjx_env.MENAGERIE_PATH.exists():
        raise InputError(
            f"playground/{name} needs MuJoCo Menagerie, which is not fetched for you: "
            f"`git clone {MENAGERIE} {folder} && git -C {folder} checkout "
            f"{mjx_env.MENAGERIE_COMMIT_SHA}`."
        )
    changes = {"impl": "jax", **settings}
    config = suite.registry.get_default_config(name)
    config.update_from_flattened_dict(changes)
    env = suite.registry.load(name, config_overrides=changes)
    one = np.ones(env.action_size, np.float32)
    repeat = int(config.action_repeat)

    def reset(key: Any, params: Any) -> tuple:
        state = env.reset(key)
        return _seen(state.obs), state

    def step(key: Any, state: Any, action: Any, params: Any) -> tuple:
        reward = jnp.zeros(())
        for _ in range(repeat):
            state = env.step(state, action)
            reward += state.reward
        return _seen(state.obs), state, reward, state.done != 0, False, state.metrics

    draw = mujoco_picture(f"playground/{name}", env.mj_model)
    bare = conform(
        f"playground/{name}",
        reset,
        step,
        params=(),
        action_space=Box(one.shape, -one, one),
        max_episode_steps=None,
        render=lambda state, params: draw(state.data.qpos, state.data.qvel),
        metrics=lambda metrics: {k: v for k, v in metrics.items() if "reward" in k},
    )
    limit = -(-int(config.episode_length) // repeat)  # counted unrepeated
    return with_time_limit(bare, limit, partial(_settings, config))


def _settings(config: Any, prefix: str = "") -> dict[str, Any]:
    """The settings of a configuration, and of its parts with dotted names."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        is_part = hasattr(value, "items")
        found |= _settings(value, f"{prefix}{name}.") if is_part else {prefix + name: value}
    return found


def _seen(observation: Any) -> Any:
    if not isinstance(observation, dict):
        return observation
    if _VIEWS["critic"] not in observation:
        return observation[_VIEWS["actor"]]
    return {view: observation[name] for view, name in _VIEWS.items()}
