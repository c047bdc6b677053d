"""Craftax and Craftax-Classic, with symbols or pixels.

Craftax ends an episode by death and by its time limit with one flag. It is stepped under a limit
out of reach here, so that its flag means death only, and the limit is applied beside it. The
metrics are the shares of episodes, in percent, that unlocked each achievement.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pickle import UnpicklingError
from typing import Any

import numpy as np

from ppo_jax.config.errors import InputError
from ppo_jax.envs import params as parameters
from ppo_jax.envs.conform import conform
from ppo_jax.envs.interface import Discrete, Environment

suite: Any = import_module("craftax.craftax_env")

_OUT_OF_REACH = 2**31 - 1
# A setting of terrains whose default, None, is drawn at each start; the others are parameters
_ANGLES = {"fractal_noise_angles": (0.1, 0.2, 0.3, 0.4)}


def make(name: str, **settings: Any) -> Environment:
    """The environment `name` of Craftax, whose parameters may lie on a `vmap` axis.

    Args:
        settings: fields of its `EnvParams`, such as `fractal_noise_angles=(0.1, 0.2, 0.3, 0.4)`:
            shares of a turn, each a number or an array for every point of its noise.
    """
    env = suite.make_craftax_env_from_name(name, auto_reset=False)
    game = "craftax_classic" if "Classic" in name else "craftax"
    if "fractal_noise_angles" in settings:
        angles = _angles(settings["fractal_noise_angles"], env.static_env_params.map_size)
        settings["fractal_noise_angles"] = angles
    kinds = list(import_module(f"craftax.{game}.constants").Achievement)

    def step(key: Any, state: Any, action: Any, params: Any) -> tuple:
        endless = params.replace(max_timesteps=_OUT_OF_REACH)
        observation, state, reward, is_dead, _ = env.step_env(key, state, action, endless)
        return (
            observation,
            state,
            reward,
            is_dead,
            state.timestep >= params.max_timesteps,
            {kind.name.lower(): state.achievements[kind.value] for kind in kinds},
        )

    return conform(
        f"craftax/{name}",
        env.reset_env,
        step,
        params=env.default_params.replace(**settings),
        action_space=Discrete(env.num_actions),
        max_episode_steps=lambda params: parameters.time_limit(params, "max_timesteps"),
        fixed=lambda: _ANGLES,
        render=_renderer(game),
        metrics=lambda unlocked: {f"achievements/{k}": v * 100.0 for k, v in unlocked.items()},
        evaluation_mode="sampled",
    )


def _angles(given: Any, size: tuple[int, int]) -> tuple[Any, ...]:
    """The angles of four noises, for every point of each as Craftax wants them; None stays None."""
    rows, columns = size
    small, large = (rows // 16, columns // 16), (rows // 4, columns // 4)
    cells = (small, small, (rows // 8, columns // 2), large)  # water, mountains, paths, trees
    return tuple(
        None if angle is None else np.broadcast_to(np.float32(angle), (x + 1, y + 1))
        for angle, (x, y) in zip(given, cells, strict=True)
    )


def _renderer(game: str) -> Any:
    """The pixels that a player sees. The first use computes the textures, for half a minute."""

    @cache  # it loads the textures
    def drawing() -> Any:
        try:
            return import_module(f"craftax.{game}.renderer").make_craftax_pixel_renderer(16)
        except (EOFError, OSError, UnpicklingError) as error:
            file = import_module(f"craftax.{game}.constants").TEXTURE_CACHE_FILE
            raise InputError(
                f"Craftax' textures in {file} cannot be read ({type(error).__name__}), as a killed "
                "process leaves them: delete that file, and the next picture computes it anew."
            ) from error

    def render(state: Any, params: Any) -> np.ndarray:
        return np.asarray(drawing()(state)).astype(np.uint8)

    return render
