"""Evaluation of a saved run: whole episodes of every seed, and a video of the best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppo_jax.analysis import video as video_files
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.options import RunOptions, validate_options
from ppo_jax.config.trust import Trust
from ppo_jax.distributed import population
from ppo_jax.distributed.layout import Layout, choose_layout
from ppo_jax.models.agent import assemble
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime.devices import prepare_jax
from ppo_jax.runtime.evaluation import FINAL, alive_seeds, player, summary
from ppo_jax.runtime.frames import draw_frames, renderer
from ppo_jax.runtime.saved_run import load_state
from ppo_jax.storage import run_folder


def evaluate(
    run: Path | str,
    *,
    episodes: int = 128,
    policy_mode: str = "deterministic",
    seed: int | None = None,
    video: Path | str | None = None,
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
) -> dict[str, Any]:
    """Play whole episodes of every seed of a saved run, with the normaliser of its training.

    Args:
        run: a run folder. episodes: per seed. policy_mode: deterministic or sampled.
        seed: picks the random numbers; None repeats the evaluation at the end of training.
        video: a .gif or .mp4 file for one more episode, of the seed with the best return.
        env, network: the same Python objects again, if the run was trained with objects.
        trust: True to load the programs that the run names, or a list of them; a run of this user
            on this machine needs none.

    Returns:
        the content that `ppo-jax eval --json` prints; see docs/design.md.

    Raises:
        InputError: no run folder, or a video that cannot be made, before anything is played.
    """
    options = RunOptions(eval_episodes=episodes, policy_mode=policy_mode, seed=seed or 0)
    validate_options(options)
    if video is not None:
        video_files.check(Path(video))
    prepare_jax(options)
    config, hyper, trained, state, metadata = load_state(run, env, network, trust)
    if video is not None:
        renderer(assemble(config).environment)  # refuses before anything is played
    stream = FINAL if seed is None else seed
    results = play_all(config, hyper, options, state, stream)
    if video is not None:
        best = best_member(state, results["final_return"]["per_seed"])
        video_files.write(Path(video), draw_frames(config, hyper, best, policy_mode, stream))
    return {
        "env": run_folder.env_name(config),
        "objective": config.objective,
        "num_seeds": trained.seeds,
        "env_steps": metadata["env_steps"],
        **results,
        "compile_seconds": None,
        "train_seconds": None,
        "env_steps_per_second": None,
        "run": str(run),
        **({} if video is None else {"video": str(video)}),
    }


def play_all(
    config: Config, hyper: Hyper, options: RunOptions, state: TrainState, stream: int
) -> dict[str, Any]:
    """The summary of an evaluation of all seeds of `state` [S, ...]."""
    num_seeds = state.alive.shape[0]
    layout = choose_layout(config, num_seeds)
    if layout.kind == "envs":  # episodes are few: there is nothing to spread
        layout = Layout("map", layout.devices[:1], num_seeds)
    placed = population.place(population.padded(state, layout), layout)
    played = player(config, hyper, layout, options)(placed, stream)
    return summary(played, alive_seeds(placed, layout), options)


def best_member(state: TrainState, returns: Sequence[float | None]) -> TrainState:
    """The seed with the best return, without a leading axis; None counts as the lowest."""
    known = [-np.inf if value is None else value for value in returns]
    return jax.tree.map(lambda leaf: leaf[int(np.argmax(known))], state)
