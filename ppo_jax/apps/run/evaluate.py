"""Evaluation of a saved run: whole episodes of every seed, and a video of the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppo_jax.analysis import video as video_files
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions, validate_options
from ppo_jax.config.reading import as_path
from ppo_jax.config.trust import Trust
from ppo_jax.distributed import population
from ppo_jax.distributed.hosts import is_first
from ppo_jax.distributed.layout import Wanted, choose_layout
from ppo_jax.envs import leaves, registration
from ppo_jax.envs.actions import box_of
from ppo_jax.envs.interface import Environment
from ppo_jax.envs.registration import find
from ppo_jax.models.agent import assemble, named_codes
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime.devices import joined, prepare_jax
from ppo_jax.runtime.evaluation import FINAL, alive_seeds, player, summary
from ppo_jax.runtime.frames import draw_frames, renderer, save
from ppo_jax.runtime.saved_run import check_member, load_state
from ppo_jax.runtime.signals import StopRequest
from ppo_jax.storage import run_folder


def evaluate(
    run: Path | str,
    *,
    episodes: int = 128,
    policy_mode: str = "auto",
    seed: int | None = None,
    video: Path | str | None = None,
    on: Any = None,
    member: int | None = None,
    checkpoint: str | int = "newest",
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
    hosts: str = "none",
    coordinator: str | None = None,
    num_hosts: int | None = None,
    host_index: int | None = None,
) -> dict[str, Any]:
    """Play whole episodes of every seed of a saved run, with the normaliser of its training.

    Args:
        run: a run folder. episodes: per seed. policy_mode: deterministic,
            sampled, or auto, as the environment asks.
        seed: picks the random numbers; None for those of the evaluation at the end of training,
            which it repeats for the newest checkpoint.
        video: a .gif or .mp4 file for one more episode, of the seed with the best return.
        on: another environment to play, such as the Gymnasium twin of the one trained on, under its
            own default parameters; it must have the same observations and actions.
        member: one seed's place in the run, counted from 0; None for all seeds.
        checkpoint: "newest"; "best" for the one with the best evaluation in training (IQM over
            the seeds); or the environment steps of one that is kept.
        env, network: the same Python objects again, if the run was trained with objects.
        trust: True to load the programs that the run names, or a list of them; a run of this user
            on this machine needs none.
        hosts, coordinator, num_hosts, host_index: as in `RunOptions`; all see the run's folder.

    Returns:
        the content that `ppo-jax eval --json` prints; see docs/design.md.

    Raises:
        InputError: no run folder, no such checkpoint, a video that cannot be made, or other
            observations or actions on `on`, before anything is played.
    """
    options = RunOptions(
        eval_episodes=episodes,
        policy_mode=policy_mode,
        seed=0 if seed is None else seed,
        hosts=hosts,
        coordinator=coordinator,
        num_hosts=num_hosts,
        host_index=host_index,
    )
    validate_options(options)
    if video is not None:
        video = as_path("video", video)
        video_files.check(video)
    shown: dict[str, Any] = {}
    with joined(options, StopRequest()):
        prepare_jax(options)
        config, hyper, trained, state, metadata = load_state(run, env, network, trust, checkpoint)
        trained_on = run_folder.env_name(config)
        if on is not None:
            config, hyper = moved(config, hyper, on)
        if member is not None:
            check_member(member, trained.seeds)
            state = jax.tree.map(lambda leaf: leaf[member : member + 1], state)
        if video is not None:
            renderer(assemble(config).environment)  # refuses before anything is played
        stream = FINAL if seed is None else options.seed
        results = play_all(config, hyper, options, state, stream)
        if video is not None and is_first():
            number = best_member(results["final_return"]["per_seed"])
            chosen = jax.tree.map(lambda leaf: leaf[number], state)
            episode = draw_frames(config, hyper, chosen, results["policy_mode"], stream)
            save(video, episode)
            shown = {
                "video": str(video),
                "video_seed": trained.seed + (member or 0) + number,
                "video_return": episode.total,
            }
    return {
        "env": run_folder.env_name(config),
        **({} if on is None else {"trained_on": trained_on}),
        "objective": config.objective,
        "num_seeds": len(results["final_return"]["per_seed"]),
        "env_steps": metadata["env_steps"],
        **results,
        "compile_seconds": None,
        "train_seconds": None,
        "env_steps_per_second": None,
        "run": str(run),
        **shown,
    }


def moved(config: Config, hyper: Hyper, on: Any) -> tuple[Config, Hyper]:
    """The settings of a run on another environment, under that one's default parameters.

    Raises:
        InputError: the policy does not fit its observations or its actions.
    """
    before, after = find(config.env), find(on)
    pairs = {
        "observations": [kinds(config, environment) for environment in (before, after)],
        "actions": [acts(environment) for environment in (before, after)],
    }
    for word, (own, other) in pairs.items():
        if own != other:
            raise InputError(
                f"{after.name} has the {word} {other}, and the policy was trained on {before.name} "
                f"with {own}: evaluate it on an environment that has the same."
            )
    return dataclasses.replace(config, env=on), dataclasses.replace(hyper, env={})


def kinds(config: Config, environment: Environment) -> str:
    """Dtypes and shapes of an environment's observations in words, and how a network sees them."""
    shown = leaves.named(environment.observation)
    codes = {} if config.network is not None else named_codes(config, environment)
    return ", ".join(
        f"{name} {x.dtype.name}{list(x.shape)}{codes[name].words() if name in codes else ''}"
        for name, x in shown.items()
    )


def acts(environment: Environment) -> str:
    """The action space of an environment in words, with the bounds of each number."""
    space, params = environment.action_space, environment.default_params
    box, words = box_of(space), registration.describe_space(space)
    if box is None:
        return words
    follow = environment.action_bounds
    low, high = (box.low, box.high) if follow is None else follow(params)
    ends = [np.asarray(end, np.float64).ravel().round(6).tolist() for end in (low, high)]
    return f"{words}, from {ends[0]} to {ends[1]}"


def play_all(
    config: Config, hyper: Hyper, options: RunOptions, state: TrainState, stream: int
) -> dict[str, Any]:
    """The summary of an evaluation of all seeds of `state` [S, ...]."""
    num_seeds = state.alive.shape[0]
    layout = choose_layout(config, num_seeds, wanted=Wanted(num_blocks=1))
    placed = population.place(population.padded(state, layout), layout)
    played = player(config, hyper, layout, options)(placed, stream)
    return summary(config, hyper, played, alive_seeds(placed, layout), options)


def best_member(returns: Sequence[float | None]) -> int:
    """The place of the best return, the first of equal ones; None counts as the lowest."""
    known = [-np.inf if value is None else value for value in returns]
    return int(np.argmax(known)) if known else 0


def check_policy(policy_mode: str, seed: int | None) -> None:
    """Refuse another mode, and a seed that is none."""
    validate_options(RunOptions(policy_mode=policy_mode, seed=0 if seed is None else seed))
