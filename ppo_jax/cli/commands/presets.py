"""`ppo-jax presets [NAME]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.parser import Parser
from ppo_jax.cli.settings import title_lines
from ppo_jax.config import layers, presets
from ppo_jax.config.config import canonical
from ppo_jax.config.presets import Preset
from ppo_jax.runtime.text import score


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    note = "print this one as a TOML file, or list those of a suite"
    parser.add_argument("name", nargs="?", metavar="NAME", help=note)
    group = parser.add_argument_group("which one")
    parser.add_value(group, "--objective", "of the preset [default: its only one, or clip]", "NAME")


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    rows = presets.all_presets()
    if "name" in flags:
        name, objective = flags["name"], canonical("objective", flags.get("objective"))
        rows = [row for row in rows if row.name.startswith(f"{name}/")]  # those of a suite
        rows = [row for row in rows if objective in (None, row.objective)]
        if not rows:
            return _one(presets.find(name, None if objective is None else str(objective)))
    width = max(len(row.name) for row in rows) + 2
    lines = [f"{'preset':<{width}}{'objective':<12}{'measured':<24}published"]
    for row in rows:
        columns = f"{row.name:<{width}}{row.objective:<12}{score(row.score):<24}"
        lines.append(f"{columns}{score(row.reference)}")
    lines += [
        "",
        "Returns at environment steps of one seed. `ppo-jax presets NAME` prints the settings.",
    ]
    return Answer({"presets": [_data(row) for row in rows]}, lines)


def _data(row: Preset) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Preset._fields if name != "signature"}


def _one(preset: Preset) -> Answer:
    """Print one preset as a settings file, its origin and its scores as remarks."""
    known = [each.objective for each in presets.all_presets() if each.name == preset.name]
    others = [name for name in known if name != preset.objective]
    remarks = [
        f"preset {preset.name}, objective {preset.objective}",
        f"measured return: {score(preset.score)}",
        f"published return: {score(preset.reference)}",
        f"source: {preset.source}",
        *([f"other objectives of this preset: {', '.join(others)}"] if others else []),
        "ppo-jax train --config FILE takes this as a file; all other settings are defaults",
    ]
    layer = presets.layer(preset)
    settings = layers.resolve([layer._replace(source="")])
    lines = [line for remark in remarks for line in title_lines(remark)]
    tables = (("config", settings.config), ("hyper", settings.hyper))
    for table, record in tables:
        spec = [name for name, (owner, _) in layers.FIELDS.items() if owner is type(record)]
        lines += ["", f"[{table}]"]
        given = [name for name in spec if name in layer.values]
        lines += [f"{name} = {layers.toml_value(getattr(record, name))}" for name in given]
    if settings.hyper.env:
        lines += ["", "[hyper.env]"]
        lines += [f'"{k}" = {layers.toml_value(v)}' for k, v in settings.hyper.env.items()]
    return Answer(_data(preset), lines)


COMMAND = Command("presets", "[NAME]", "list the tuned settings, or print one", _run, _add_flags)
