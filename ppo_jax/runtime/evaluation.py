"""Evaluation of a population: whole episodes of every seed, and their summary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ppo_jax.analysis import ranges, stats
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import door, population, programs
from ppo_jax.distributed.layout import Layout
from ppo_jax.envs.interface import time_limit
from ppo_jax.models.agent import assemble, env_params
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime.background import interruptible
from ppo_jax.training.evaluation import Episodes

# Steps after which an episode is cut and counted as it stands, unless the environment's own time
# limit is longer.
MAX_STEPS = 10_000
LONGEST = 2**24  # float32 sums of larger counts stop growing
FINAL = 2**31 - 1  # the random stream of the evaluation after training

Play = Callable[[TrainState, int], Episodes]  # (state, stream) -> [S, n] on the host


def player(config: Config, hyper: Hyper, layout: Layout, options: RunOptions) -> Play:
    """The evaluation of a population as a function; `stream` picks its own random numbers."""
    is_deterministic = policy_mode(config, options.policy_mode) == "deterministic"
    program = interruptible(
        programs.make_evaluation(
            config, layout, options.eval_episodes, max_steps(config, hyper), is_deterministic
        )
    )

    def play(state: TrainState, stream: int) -> Episodes:
        played = door.fetch(program(hyper, state, np.uint32(stream)))
        return jax.tree.map(lambda leaf: leaf[: layout.num_seeds], played)

    return play


def max_steps(config: Config, hyper: Hyper) -> int:
    """Steps after which an evaluation cuts an episode; if members differ, those of the longest."""
    environment = assemble(config).environment
    members = [hyper]
    if population.has_own_hyper(hyper):
        own = door.fetch(hyper)
        count = len(own.schedule_env_steps)
        members = [jax.tree.map(lambda leaf, i=i: leaf[i], own) for i in range(count)]
    limits = [time_limit(environment, env_params(environment, each)) or 0 for each in members]
    return min(max(MAX_STEPS, *(int(limit) for limit in limits)), LONGEST)


def mean_returns(played: Episodes, alive: np.ndarray) -> list[float | None]:
    """Mean return of each seed's episodes, None for a seed that failed."""
    means = np.asarray(played.episode_return, np.float64).mean(axis=1)
    return [float(mean) if ok else None for mean, ok in zip(means, alive, strict=True)]


def policy_mode(config: Config, asked: str) -> str:
    """The mode of an evaluation: as asked, or if that is "auto" as the environment asks."""
    return assemble(config).environment.evaluation_mode if asked == "auto" else asked


def summary(
    config: Config, hyper: Hyper, played: Episodes, alive: np.ndarray, options: RunOptions
) -> dict[str, Any]:
    """The entries of `summary.json` about an evaluation."""
    limits = ranges.limits(config.env, hyper.env)
    scores = stats.summarise(mean_returns(played, alive), limits=limits)
    num_failed = scores.pop("num_failed")
    return {
        "final_return": scores,
        "num_failed": num_failed,
        "policy_mode": policy_mode(config, options.policy_mode),
        "episodes_per_seed": options.eval_episodes,
        "episodes_cut": int(np.sum(~np.asarray(played.finished))),
        "episodes_stalled": int(np.sum(played.stalled)),
        "episode_length_mean": float(np.mean(played.length)),
    }


def alive_seeds(state: TrainState, layout: Layout) -> np.ndarray:
    """Seeds that still learn, [S] bool."""
    return door.fetch(state.alive)[: layout.num_seeds]
