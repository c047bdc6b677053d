"""`ppo-jax report RUN...|SUITE`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.commands.run_argument import find_newest
from ppo_jax.cli.parser import Parser
from ppo_jax.cli.trust import add_trust_flags, find_trust
from ppo_jax.runtime.text import quoted


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    sources = (
        "run folders, the seeds of A,B as one group [the newest run]; or one suite: its name, its "
        "FILE.toml, or a folder of its results"
    )
    parser.add_argument("source", nargs="*", metavar="RUN|SUITE", help=sources)
    group = parser.add_argument_group("page")
    place = "file to write [default: report.html in a single run's folder, else here]"
    group.add_argument("-o", "--out", metavar="FILE", help=place)
    parser.names.append("--out")
    parser.add_switch(group, "--force", "replace the file if it exists")
    parser.add_switch(group, "--no-animation", "play no episode of the runs, and load no jax")
    results = "folder of a suite's results [default: the newest in benchmarks/results]"
    parser.add_value(group, "--results", results, "DIR")
    parser.add_switch(group, "--quick", "take the suite's results of the smaller budget")
    add_trust_flags(parser)


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    sources = flags.get("source") or [str(find_newest("json" not in flags))]
    from ppo_jax.apps.report import write

    done = write.report(
        sources,
        flags.get("out"),
        results=flags.get("results"),
        quick="quick" in flags,
        force="force" in flags,
        animate="no_animation" not in flags,
        trust=find_trust(flags),
    )
    lines = [f"report    {quoted(done['out'])} ({done['bytes'] / 1000:,.0f} kB)"]
    lines += [f"note      {note}" for note in done["notes"]]
    return Answer(done, lines)


COMMAND = Command("report", "[RUN...|SUITE]", "runs or a suite as one HTML page", _run, _add_flags)
