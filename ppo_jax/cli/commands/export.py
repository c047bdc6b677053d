"""`ppo-jax export RUN`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppo_jax.apps.export import target
from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.commands.run_argument import (
    add_checkpoint_flag,
    add_run_argument,
    find_checkpoint,
    find_member,
    find_run,
)
from ppo_jax.cli.parser import Parser
from ppo_jax.cli.trust import add_trust_flags, find_trust
from ppo_jax.runtime.text import quoted

_USES = {
    "numpy": "python {script} prints its inputs; it needs NumPy only",
    "stablehlo": "jax.export.deserialize, or ppo_jax.load_policy({name})",
    "onnx": "any ONNX runtime, or ppo_jax.load_policy({name})",
}


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    add_run_argument(parser)
    group = parser.add_argument_group("artefact")
    parser.add_value(group, "--member", "which seed, counted from 0 [default: 0]", "K")
    add_checkpoint_flag(parser, group)
    formats = " | ".join(target.FORMATS)
    parser.add_value(group, "--format", f"{formats} [default: as PATH ends, else numpy]", "NAME")
    place = "folder, .stablehlo or .onnx file to make [default: policy-K in the run's folder]"
    group.add_argument("-o", "--out", metavar="PATH", help=place)
    parser.names.append("--out")
    add_trust_flags(parser)


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    run, member = find_run("export", flags), find_member(flags)
    checkpoint = find_checkpoint(flags)
    wanted = Path(flags["out"]) if "out" in flags else None
    format, out = target.choose(run, member, flags.get("format"), wanted)
    from ppo_jax.apps.export import export

    report = export.export(
        run, format=format, out=out, member=member, checkpoint=checkpoint, trust=find_trust(flags)
    )
    place, name = quoted(report["out"]), json.dumps(report["out"], ensure_ascii=False)
    script = quoted(str(Path(report["out"], "policy.py")))
    lines = [
        f"exported  {place} ({report['format']})",
        f"policy    member {member} after {report['env_steps']:,} environment steps",
        f"checked   {report['num_observations']:,} recorded observations, largest difference "
        f"{report['largest_difference']:.1e}",
        f"use       {_USES[report['format']].format(script=script, name=name)}",
    ]
    if not report["alive"]:
        lines.append(
            f"note      seed {member} turned non-finite in training: this is its last finite policy"
        )
    return Answer(report, lines)


COMMAND = Command(
    "export", "[RUN]", "the policy as a file for NumPy, XLA or ONNX", _run, _add_flags
)
