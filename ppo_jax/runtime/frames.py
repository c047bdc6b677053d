"""Pictures of one episode of a trained policy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.analysis import video
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import hosted, programs
from ppo_jax.envs.interface import Environment
from ppo_jax.models.agent import acting_policy, assemble, env_params
from ppo_jax.rl.types import EnvCarry, TrainState
from ppo_jax.storage.files import replacing
from ppo_jax.training import evaluation, schedules
from ppo_jax.training import hosted as training_hosted
from ppo_jax.training.rollout import reset_all, step

MAX_FRAMES = 1_000  # a video ends here even if the episode goes on


class Episode(NamedTuple):
    """One episode that was drawn."""

    pictures: list[np.ndarray]  # uint8 [H, W, 3] each: the start, and one a step
    total: float  # undiscounted reward
    is_whole: bool  # it ended by itself


def save(path: Path, episode: Episode) -> None:
    """Write an episode as an animation in one step; a symlink at `path` is not followed."""
    with replacing(path) as new:
        video.write(new, episode.pictures)


def renderer(environment: Environment) -> Callable[[Any, Any], np.ndarray]:
    """The function that draws a state of `environment`.

    Raises:
        InputError: neither the environment nor ppo_jax has a picture of it.
    """
    if environment.render is None:
        raise InputError(
            f"{environment.name} cannot be drawn, as neither it nor ppo_jax has a picture of it: "
            "give the environment a render(state, params), or leave the video out."
        )
    return environment.render


def draw_frames(
    config: Config, hyper: Hyper, member: TrainState, policy_mode: str, stream: int
) -> Episode:
    """One episode of one seed as pictures.

    Args:
        member: the state of one seed, without a leading axis. stream: picks the random numbers.

    Raises:
        InputError: the environment has no picture.
    """
    parts = assemble(config)
    environment = parts.environment
    render = renderer(environment)
    if environment.host is not None:
        return draw_hosted(config, hyper, member, policy_mode, stream)
    params = env_params(environment, schedules.resolve(hyper, jnp.ones(())))
    policy = acting_policy(config, parts, member.params, member.observation_moments, params)
    key = jax.random.fold_in(jax.random.fold_in(member.key, programs.EVALUATION), stream)
    key_reset, key_steps = jax.random.split(key)
    is_deterministic = policy_mode == "deterministic"

    @jax.jit
    def advance(carry: EnvCarry, t: Array) -> tuple[EnvCarry, Array]:
        draws, is_due = evaluation.draw_step(config, policy, 1, is_deterministic, key_steps, t)
        found = step(environment, params, policy, carry, draws, is_due)
        return evaluation.followed(carry, found), (found.terminated | found.truncated)[0]

    def picture(carry: EnvCarry) -> np.ndarray:
        return render(jax.tree.map(lambda leaf: leaf[0], carry.state), params)

    carry = reset_all(environment, params, policy, 1, key_reset)
    pictures, ended = [picture(carry)], False
    for t in range(MAX_FRAMES):
        carry, ended = advance(carry, np.int32(t))
        pictures.append(picture(carry))
        if ended:
            break
    return Episode(pictures, float(carry.episode_return[0]), bool(ended))


def draw_hosted(
    config: Config, hyper: Hyper, member: TrainState, policy_mode: str, stream: int
) -> Episode:
    """`draw_frames` of an environment that is stepped outside jax and draws itself."""
    is_deterministic = policy_mode == "deterministic"
    answer = jax.jit(partial(training_hosted.answer, config, is_deterministic))
    vector = hosted.make_vector(config, hyper, 1, for_pictures=True, cut_at=MAX_FRAMES)
    pictures: list[np.ndarray] = []
    total, is_whole = 0.0, False
    try:
        for found in hosted.plays(config, answer, vector, member, stream):
            pictures += vector.pictures()
            total += float(found.reward[0])
            is_whole = bool(found.terminated[0] or found.truncated[0])
            if found.terminated[0] or found.truncated[0] or found.cut[0]:
                break
    except Exception as error:
        name, reason = assemble(config).environment.name, str(error).strip().split("\n")[0]
        raise InputError(
            f"{name} cannot be drawn here ({type(error).__name__}: {reason}): install what it "
            "needs to draw, or leave the video out."
        ) from error
    finally:
        vector.close()
    return Episode(pictures, total, is_whole)
