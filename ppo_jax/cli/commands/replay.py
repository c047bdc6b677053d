"""`ppo-jax replay RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import FAILED, Answer, Command, print_progress
from ppo_jax.cli.commands.run_argument import add_run_argument, find_member, find_run
from ppo_jax.cli.parser import Parser
from ppo_jax.cli.trust import add_trust_flags, find_trust
from ppo_jax.config import layers
from ppo_jax.config.errors import InputError


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    add_run_argument(parser)
    group = parser.add_argument_group("replay")
    parser.add_value(group, "--member", "which seed, counted from 0 [default: 0]", "K")
    kept = "iterations whose rollouts are written, or none [default: first and last]"
    parser.add_value(group, "--keep", kept, "N,N,...")
    parser.add_switch(group, "--video", "also draw an episode at these iterations, as a GIF")
    parser.add_value(group, "--out", "a new folder [default: replay-K in the run's folder]", "DIR")
    add_trust_flags(parser)


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    run, member = find_run("replay", flags), find_member(flags)
    keep = None
    if "keep" in flags:
        words = [] if flags["keep"] == "none" else flags["keep"].split(",")
        keep = [layers.whole_number("keep", word) for word in words]
        if not keep and "video" in flags:
            raise InputError("--video draws at kept iterations, and --keep none keeps none.")
    from ppo_jax.apps.diagnose import replay

    report = replay.replay(
        run,
        member=member,
        keep=keep,
        video="video" in flags,
        out=flags.get("out"),
        tell=print_progress,
        trust=find_trust(flags),
    )
    return Answer(report, _lines(report), 0 if report["is_equal"] else FAILED)


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [
        f"replayed  seed {report['seed']} (member {report['member']}), {report['iterations']:,} "
        f"iterations, {report['env_steps']:,} environment steps"
    ]
    if report["is_equal"]:
        lines.append("equal     0 differing bits to the run's last checkpoint")
    else:
        lines.append(
            f"DIFFERS   {report['differing_bits']:,} bits of the state, "
            f"{report['differing_bits_params']:,} of them of the parameters, which are at most "
            f"{report['largest_difference_params']:.2g} apart"
        )
        reasons = report["fingerprint_changes"]
        if reasons:
            lines += [f"because   {reason}" for reason in reasons]
        elif report["fingerprint_known"]:
            lines.append("because   of nothing that is recorded: the fingerprints are equal")
        else:
            lines.append("because   unknown: the checkpoint holds no fingerprint")
    for point in report["kept"]:
        names = [point["trajectory"], *([point["video"]] if "video" in point else [])]
        lines.append(f"kept      {', '.join(names)}")
    return lines


COMMAND = Command(
    "replay", "[RUN]", "train one seed again, bit for bit, and keep its rollouts", _run, _add_flags
)
