"""`ppo-jax envs`."""

from __future__ import annotations

from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.config import presets
from ppo_jax.envs import registration


def _run(_: dict[str, Any], __: dict[str, str]) -> Answer:
    tuned = {preset.env for preset in presets.all_presets()}
    rows = [{**row._asdict(), "preset": row.name in tuned} for row in registration.available()]
    lines = []
    for row in rows:
        size = "" if row["observation_shape"] is None else _size(row["observation_shape"])
        note = "; ".join(part for part in ("preset" if row["preset"] else "", row["note"]) if part)
        lines.append(f"{row['name']:<36}{row['action_space']:<26}{size:<12}{note}".rstrip())
    return Answer({"envs": rows}, lines)


def _size(shape: Any) -> str:
    """The shape of an array, or those of an observation's leaves."""
    if isinstance(shape, dict):
        return ", ".join(f"{name} {_size(inner)}" for name, inner in shape.items())
    if any(isinstance(inner, dict | tuple) for inner in shape):
        return ", ".join(map(_size, shape))
    return "x".join(map(str, shape)) or "scalar"


COMMAND = Command("envs", "", "list the environments", _run)
