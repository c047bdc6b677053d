"""`ppo-jax envs [SUITE]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.parser import Parser
from ppo_jax.config import presets
from ppo_jax.envs import registration
from ppo_jax.envs import suite_table as table
from ppo_jax.envs.names import known


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    parser.add_argument("suite", nargs="?", metavar="SUITE", help="list a suite's environments")


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    suite = flags.get("suite")
    if suite in known.BUILT_IN:
        rows = [row for row in _rows() if (row["suite"] == "probe") == (suite == "probe")]
        return Answer({"suite": suite, "environments": len(rows), "envs": rows}, _table(rows))
    if suite:
        return _one_suite(known.find_suite(suite))
    rows = _rows()
    lines = _table(rows)
    suites = [_described(suite) for suite in table.SUITES.values()]
    lines += ["", f"{'suite':<12}{'envs':>4}  `ppo-jax envs SUITE` lists them"]
    for suite in suites:
        state = "installed" if suite["installed"] else f"not installed: {suite['install']}"
        lines.append(f"{suite['suite']:<12}{suite['environments']:>4}  {suite['summary']}; {state}")
    return Answer({"envs": rows, "suites": suites}, lines)


def _rows() -> list[dict[str, Any]]:
    """The environments of gymnax and the probes."""
    tuned = {preset.env for preset in presets.all_presets()}
    return [{**row._asdict(), "preset": row.name in tuned} for row in registration.available()]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"{'environment':<36}{'actions':<26}{'observation':<14}note".rstrip()]
    for row in rows:
        size = "" if row["observation_shape"] is None else _size(row["observation_shape"])
        note = "; ".join(part for part in ("preset" if row["preset"] else "", row["note"]) if part)
        lines.append(f"{row['name']:<36}{row['action_space']:<26}{size:<14}{note}".rstrip())
    return lines


def _size(shape: Any) -> str:
    """The shape of an array, or those of an observation's leaves."""
    if isinstance(shape, dict):
        return ", ".join(f"{name} {_size(inner)}" for name, inner in shape.items())
    if any(isinstance(inner, dict | tuple) for inner in shape):
        return ", ".join(map(_size, shape))
    return "x".join(map(str, shape)) or "scalar"


def _one_suite(suite: table.Suite) -> Answer:
    found = _described(suite)
    settings = presets.all_presets()
    tuned = [name for name in suite.names if name in {each.name for each in settings}]
    width = max(map(len, suite.names)) + 2
    lines = [f"{name:<{width}}{'preset' if name in tuned else ''}".rstrip() for name in suite.names]
    more = [each.name for each in settings if each.name.startswith(f"{suite.name}/")]
    more = [name for name in more if name not in suite.names]
    if more:
        lines += ["", f"further presets (--preset NAME): {', '.join(more)}"]
    if not found["installed"]:
        lines += ["", f"{suite.name} is not installed: {found['install']}"]
    return Answer({**found, "envs": list(suite.names), "presets": [*tuned, *more]}, lines)


def _described(suite: table.Suite) -> dict[str, Any]:
    return {
        "suite": suite.name,
        "environments": len(suite.names),
        "summary": suite.summary,
        "installed": table.is_installed(suite),
        "install": table.install_hint(suite),
    }


COMMAND = Command("envs", "[SUITE]", "list the environments", _run, _add_flags)
