"""One episode of a trained policy, as pictures and as a file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from ppo_jax.analysis import video as video_files
from ppo_jax.apps.run.evaluate import best_member, check_policy
from ppo_jax.apps.run.session import METRICS
from ppo_jax.config import reading
from ppo_jax.config.reading import as_path
from ppo_jax.config.trust import Trust
from ppo_jax.models.agent import assemble
from ppo_jax.runtime import evaluation
from ppo_jax.runtime.frames import Episode, draw_frames, renderer, save
from ppo_jax.runtime.saved_run import check_member, load_where_trained
from ppo_jax.storage import jsonl, run_folder

_EVALUATED = {"eval_return": [(float, None)]}


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
        member: the seed's place in the run; None for the one with the best return: of the final
            evaluation, or of that in training for a checkpoint that has one.
        policy_mode: deterministic, sampled, or auto for what suits the environment.
        seed: picks the random numbers.
        out: a .gif or .mp4 file, replaced if it exists; None for episode-MEMBER.gif in the run.
        checkpoint: as in `evaluate`.
        env, network: the same Python objects again, if the run was trained with objects.
        trust: as in `evaluate`.

    Returns:
        what `ppo-jax watch --json` prints, and the episode.

    Raises:
        InputError: no run, no such seed or checkpoint, or an environment that has no picture.
    """
    run = as_path("run", run)
    check_policy(policy_mode, seed)
    video = None if out is None else as_path("out", out)
    video_files.check(video or run / "episode.gif")
    config, hyper, options, state, metadata = load_where_trained(
        run, 0 if member is None else member, env, network, trust, checkpoint
    )
    number = best_seed(run, metadata["env_steps"]) if member is None else member
    check_member(number, options.seeds)  # summary.json may be that of another run
    path = video or run / f"episode-{number}.gif"
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


def best_seed(run: Path, env_steps: int) -> int:
    """The seed with the best return at a checkpoint, by its evaluation.

    By the final returns if nothing was evaluated there, and the first one if nothing is known.
    """
    summary: dict[str, Any] = {"env_steps": None, "final_return": {"per_seed": []}}
    with suppress(OSError, ValueError):
        summary = reading.expect(reading.read_json(run / "summary.json"), run_folder.SUMMARY)
    if summary["env_steps"] != env_steps:
        with suppress(OSError, ValueError):  # damaged rows choose no seed
            for row in jsonl.stream_jsonl(run / METRICS):
                if row.get("env_steps") == env_steps and "eval_return" in row:
                    return best_member(reading.expect(row, _EVALUATED)["eval_return"])
    return best_member(summary["final_return"]["per_seed"])
