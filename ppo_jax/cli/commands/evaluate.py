"""`ppo-jax eval RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.commands.run_argument import (
    add_checkpoint_flag,
    add_run_argument,
    find_checkpoint,
    find_member,
    find_run,
)
from ppo_jax.cli.parser import Parser, add_host_flags
from ppo_jax.cli.trust import add_trust_flags, find_trust
from ppo_jax.config import layers
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import Layer
from ppo_jax.config.options import HOSTS, POLICY_MODES, validate_options
from ppo_jax.envs import registration
from ppo_jax.runtime.text import summary_lines


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    add_run_argument(parser)
    group = parser.add_argument_group("evaluation")
    parser.add_value(group, "--episodes", "whole episodes of each seed [default: 128]", "N")
    modes = f"{' | '.join(POLICY_MODES)} [default: auto, as the environment asks]"
    parser.add_value(group, "--policy-mode", modes, "NAME")
    parser.add_value(group, "--seed", "seed of the evaluation [default: as after training]", "N")
    parser.add_value(group, "--member", "one seed only, counted from 0 [default: all]", "K")
    add_checkpoint_flag(parser, group)
    parser.add_value(group, "--video", "draw one episode into FILE.gif or FILE.mp4", "FILE")
    parser.add_value(group, "--on", "play another environment, of equal spaces", "ENV")
    add_host_flags(parser)
    add_trust_flags(parser)


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    run_folder = find_run("eval", flags)
    texts = {name: flags[name] for name in ("policy_mode", "seed", *HOSTS) if name in flags}
    if "episodes" in flags:
        texts["eval_episodes"] = flags["episodes"]
    options = layers.resolve([Layer("flag", texts, {})]).options
    validate_options(options)
    video = flags.get("video")
    if video is not None and not video.lower().endswith((".gif", ".mp4")):
        raise InputError(f"video={video!r} must end in .gif or .mp4.")
    if "on" in flags:
        registration.check_name(flags["on"])
    checkpoint = find_checkpoint(flags)
    from ppo_jax.apps.run import evaluate

    summary = evaluate.evaluate(
        run_folder,
        episodes=options.eval_episodes,
        policy_mode=options.policy_mode,
        seed=options.seed if "seed" in flags else None,
        video=video,
        on=flags.get("on"),
        member=find_member(flags) if "member" in flags else None,
        checkpoint=checkpoint,
        trust=find_trust(flags),
        **{name: getattr(options, name) for name in HOSTS},
    )
    return Answer(summary, summary_lines(summary))


COMMAND = Command("eval", "[RUN]", "evaluate a trained run", _run, _add_flags)
