"""`ppo-jax debug RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.commands.run_argument import add_run_argument, find_member, find_run
from ppo_jax.cli.parser import Parser
from ppo_jax.cli.trust import add_trust_flags, find_trust
from ppo_jax.config.errors import InputError


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    add_run_argument(parser)
    group = parser.add_argument_group("what to explain")
    parser.add_value(group, "--member", "which seed, counted from 0 [default: 0]", "K")
    parser.add_value(group, "--out", "a new folder [default: debug-K in the run's folder]", "DIR")
    add_trust_flags(parser)


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    run, member = find_run("debug", flags), find_member(flags)
    out = Path(flags["out"]) if "out" in flags else run / f"debug-{member}"
    if out.exists():
        raise InputError(f"out={str(out)!r} exists already: name a new folder.")
    from ppo_jax.apps.diagnose import debug

    report = debug.debug(run, member=member, out=out, trust=find_trust(flags))
    return Answer(report, _lines(report))


def _lines(report: dict[str, Any]) -> list[str]:
    times = "1 update" if report["failures"] == 1 else f"{report['failures']} updates"
    lines = [
        f"seed {report['seed']} (member {report['member']}): {times} refused, "
        f"{'still learning' if report['alive'] else 'then frozen'}; the last one in iteration "
        f"{report['iteration']:,}, at {report['env_steps']:,} environment steps"
    ]
    fault = report["fault"]
    if fault is None:
        lines.append(
            "nothing   non-finite comes out when it is computed one operation at a time: the "
            "compiled program rounds differently, at the edge of an overflow"
        )
    else:
        is_input = fault["operation"] == "input"
        what = "came in as" if is_input else "made by"
        lines.append(f"first     {what} {fault['operation']} of {fault['source']}")
        if fault["code"]:
            lines.append(f"line      {fault['code']}")
        if fault["is_backward"]:
            lines.append("          (in the gradient of this line)")
        for kind, step, count in fault["path"]:
            of = f" of {count:,}" if count else ""
            lines.append(f"within    step {step + 1:,}{of} of a {kind}")
        lines += [f"from      {words}" for words in ([] if is_input else fault["inputs"])]
        lines += [f"came      {words}" for words in fault["outputs"]]
    lines.append(f"samples   {report['batch']}")
    if "minibatch" in report:
        lines.append(
            f"minibatch {report['minibatch']} (number {report['minibatch_number']} of epoch "
            f"{report['epoch']})"
        )
    return lines


COMMAND = Command("debug", "[RUN]", "why a seed turned non-finite", _run, _add_flags)
