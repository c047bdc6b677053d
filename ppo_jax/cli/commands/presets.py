"""`ppo-jax presets`."""

from __future__ import annotations

from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.config import presets
from ppo_jax.runtime.text import score


def _run(_: dict[str, Any], __: dict[str, str]) -> Answer:
    rows = presets.all_presets()
    lines = [f"{'preset':<28}{'objective':<12}{'measured':<24}published"]
    for row in rows:
        columns = f"{row.name:<28}{row.objective:<12}{score(row.score):<24}"
        lines.append(f"{columns}{score(row.reference)}")
    lines += ["", "Returns at environment steps of one seed; --json has settings and sources."]
    known = [name for name in presets.Preset._fields if name != "signature"]
    data = [{name: getattr(row, name) for name in known} for row in rows]
    return Answer({"presets": data}, lines)


COMMAND = Command("presets", "", "list the tuned settings", _run)
