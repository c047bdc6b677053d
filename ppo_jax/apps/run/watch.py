"""One episode of a trained policy, as pictures and as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from ppo_jax.analysis import video as video_files
from ppo_jax.apps.run.evaluate import best_member, check_policy
from ppo_jax.config import reading
from ppo_jax.config.reading import as_path
from ppo_jax.config.trust import Trust
from ppo_jax.models.agent import assemble
from ppo_jax.runtime import evaluation
from ppo_jax.runtime.frames import Episode, draw_frames, renderer, save
from ppo_jax.runtime.saved_run import load_where_trained
from ppo_jax.storage import run_folder


def watch(
    run: Path | str,
    *,
    member: int | None = None,
    policy_mode: str = "auto",
    seed: int | None = None,
    out: Path | str | None = None,
    checkpoint: str | int = "newest",
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
) -> tuple[dict[str, Any], Episode]:
    """Play one episode of a saved run, and write it as an animation.

    Args:
        run: a run folder.
        member: the seed's place in the run; None for the one with the best final return.
        policy_mode: deterministic, sampled, or auto for what suits the environment.
        seed: picks the random numbers.
        out: a .gif or .mp4 file, replaced if it exists; None for episode-MEMBER.gif in the run.
        checkpoint: as in `evaluate`; the choice of `member` does not depend on it.
        env, network: the same Python objects again, if the run was trained with objects.
        trust: as in `evaluate`.

    Returns:
        what `ppo-jax watch --json` prints, and the episode.

    Raises:
        InputError: no run, no such seed or checkpoint, or an environment that has no picture.
    """
    run = as_path("run", run)
    check_policy(policy_mode, seed)
    number = best_of_summary(run) if member is None else member
    path = run / f"episode-{number}.gif" if out is None else as_path("out", out)
    video_files.check(path)
    config, hyper, options, state, metadata = load_where_trained(
        run, number, env, network, trust, checkpoint
    )
    renderer(assemble(config).environment)
    mode = evaluation.policy_mode(config, policy_mode)
    chosen = jax.tree.map(lambda leaf: leaf[number], state)
    episode = draw_frames(config, hyper, chosen, mode, evaluation.FINAL if seed is None else seed)
    save(path, episode)
    return {
        "run": str(run),
        "env": run_folder.env_name(config),
        "env_steps": metadata["env_steps"],
        "member": number,
        "seed": options.seed + number,
        "policy_mode": mode,
        "episode_return": episode.total,
        "episode_steps": len(episode.pictures) - 1,
        "is_whole": episode.is_whole,
        "video": str(path),
    }, episode


def best_of_summary(run: Path) -> int:
    """The seed with the best final return, the first one if nothing is known yet."""
    try:
        summary = reading.expect(reading.read_json(run / "summary.json"), run_folder.SUMMARY)
    except (OSError, ValueError):
        return 0
    return best_member(summary["final_return"]["per_seed"])
