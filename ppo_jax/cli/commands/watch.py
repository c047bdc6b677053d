"""`ppo-jax watch [RUN]`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import Answer, Command, print_progress
from ppo_jax.cli.commands.run_argument import (
    add_checkpoint_flag,
    add_run_argument,
    find_checkpoint,
    find_member,
    find_run,
)
from ppo_jax.cli.parser import Parser
from ppo_jax.cli.trust import add_trust_flags, find_trust
from ppo_jax.config import layers
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import POLICY_MODES
from ppo_jax.runtime.text import quoted

MOST_COLUMNS, MOST_LINES = 96, 32  # limits of the picture in a terminal
SHOWN = 300  # pictures of an episode in a terminal; of longer ones every second, third, ...
PAUSE = 1 / 30


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    add_run_argument(parser)
    group = parser.add_argument_group("the episode")
    which = "which seed, counted from 0 [default: the best of the checkpoint]"
    parser.add_value(group, "--member", which, "K")
    add_checkpoint_flag(parser, group)
    modes = f"{' | '.join(POLICY_MODES)} [default: {POLICY_MODES[0]}]"
    parser.add_value(group, "--policy-mode", modes, "NAME")
    parser.add_value(group, "--seed", "another start [default: as after training]", "N")
    place = "FILE.gif or FILE.mp4 [default: episode-K.gif in the run's folder]"
    group.add_argument("-o", "--out", metavar="FILE", help=place)
    parser.names.append("--out")
    parser.add_switch(group, "--no-picture", "write the file only, draw nothing in the terminal")
    add_trust_flags(parser)


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    run = find_run("watch", flags)
    out = flags.get("out")
    if out is not None and not out.lower().endswith((".gif", ".mp4")):
        raise InputError(f"out={out!r} must end in .gif or .mp4.")
    member = find_member(flags) if "member" in flags else None
    seed = layers.whole_number("seed", flags["seed"]) if "seed" in flags else None
    checkpoint = find_checkpoint(flags)
    if "json" not in flags:
        print_progress(f"playing an episode of {quoted(run.as_posix())}")
    from ppo_jax.apps.run import watch

    report, episode = watch.watch(
        run,
        member=member,
        policy_mode=flags.get("policy_mode", POLICY_MODES[0]),
        seed=seed,
        out=out,
        checkpoint=checkpoint,
        trust=find_trust(flags),
    )
    if not {"json", "no_picture"} & set(flags) and sys.stdout.isatty():
        _play(episode.pictures)
    return Answer(report, _lines(report))


def _lines(report: dict[str, Any]) -> list[str]:
    end = "" if report["is_whole"] else ", cut there"
    return [
        f"episode   return {report['episode_return']:g} in {report['episode_steps']:,} steps{end}",
        f"policy    seed {report['seed']} (member {report['member']}), {report['policy_mode']}, "
        f"after {report['env_steps']:,} environment steps in {report['env']}",
        f"video     {quoted(report['video'])}",
    ]


def _play(pictures: Sequence[Any]) -> None:
    """Draw the episode in the terminal; Ctrl-C ends the drawing."""
    from rich.console import Console

    from ppo_jax.analysis.terminal import picture

    size = os.get_terminal_size(sys.stdout.fileno())
    columns, lines = min(size.columns - 1, MOST_COLUMNS), min(size.lines - 4, MOST_LINES)
    if columns < 8 or lines < 4:
        return
    colours = Console(file=sys.stdout).color_system
    every = -(-len(pictures) // SHOWN)
    height = 0
    try:
        sys.stdout.write("\x1b[?25l")  # no cursor meanwhile
        for frame in [*pictures[:-1:every], pictures[-1]]:
            drawn = picture(frame, columns, lines, colours)
            sys.stdout.write(f"\x1b[{height}A" * bool(height))
            sys.stdout.write("".join(f"\r{line}\x1b[K\n" for line in drawn))
            sys.stdout.flush()
            height = len(drawn)
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write("\x1b[?25h\n")
        sys.stdout.flush()


COMMAND = Command(
    "watch", "[RUN]", "an episode of a trained policy, as GIF and in the terminal", _run, _add_flags
)
