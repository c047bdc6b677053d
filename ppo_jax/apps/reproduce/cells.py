"""One cell of a suite: an environment with one setting, and how it is scored.

Nothing here loads jax.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ppo_jax.apps.reproduce import references
from ppo_jax.apps.reproduce.references import Reference
from ppo_jax.config import layers as settings
from ppo_jax.config import presets
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.reading import expect
from ppo_jax.config.validate import check_count, validate
from ppo_jax.envs import registration

PROTOCOLS = ("deterministic", "sampled", "training")
QUICK_SHARE = 0.1  # share of the budget with --quick, if a spec names no quick budget

_PLAIN = {
    "env": str,
    # The objective of the environment's preset, or the name of another one; "" for none
    "preset": str,
    "objective": str,
    "seeds": int,
    "first_seed": int,
    "protocol": str,
    "episodes": int,  # evaluated after training; for `training` the last ones of training
    "total_env_steps": int,
    "quick_env_steps": int,
    "random": float,  # return of the random policy, normalised score 0
    "best": float,  # best known return, normalised score 1
    "constants": str,  # the source of these two
    "compare": bool,  # False: published values are shown without a verdict
    "note": str,
    "unlike": str,  # reason why the published number is easier or harder
}
# name: (lowest, highest whole number); the sum of the first two stays below 2^32
_COUNTS = {
    "seeds": (1, 2**20),
    "first_seed": (0, 2**32 - 2**20 - 1),
    "episodes": (1, 2**24),
    "quick_env_steps": (1, 2**53),
}
_FIELDS = (*_PLAIN, "task", "variant", "config", "hyper", "published")


class Cell(NamedTuple):
    """One environment with one setting: one row of a table."""

    suite: str
    task: str
    variant: str
    config: Config
    hyper: Hyper
    seeds: int
    first_seed: int
    protocol: str
    episodes: int
    random: float | None
    best: float | None
    published: tuple[Reference, ...]  # the verdict compares with the hardest one, put first
    compare: bool
    is_quick: bool
    full_env_steps: int  # the whole budget, even if `is_quick`
    note: str
    unlike: str = ""

    @property
    def name(self) -> str:
        return f"{self.task}/{self.variant}"

    @property
    def full_name(self) -> str:
        return f"{self.suite}/{self.name}"


def build(
    suite: str,
    label: str,
    layers: Sequence[Mapping[str, Any]],
    is_quick: bool,
    seeds: int | None,
) -> Cell | None:
    """Build a cell from its layers, later ones winning; None if its preset does not exist.

    Raises:
        InputError: an entry does not exist, or a setting cannot run.
    """
    where = f"{suite}/{label}"
    merged = _merged(layers, where)
    env = str(merged.get("env", merged["task"]))
    registration.check_name(env, must_be_installed=False)  # stored results can be shown
    preset_of = str(merged.get("preset", ""))
    preset = _preset(env, preset_of) if preset_of else None
    if preset_of and preset is None:
        return None
    own = {**merged.get("config", {}), "env": env}
    for name in ("objective", "total_env_steps"):
        if name in merged:
            own[name] = merged[name]
    given = settings.file_layer(where, {"config": own, "hyper": merged.get("hyper", {})})
    found = settings.resolve([*([presets.layer(preset)] if preset else []), given])
    validate(found.config, found.hyper)
    full = found.config.trained_env_steps
    config = found.config
    if is_quick:
        budget = int(merged.get("quick_env_steps", QUICK_SHARE * config.total_env_steps))
        config = dataclasses.replace(config, total_env_steps=max(config.batch_size, budget))
        validate(config, found.hyper)
    for name, bounds in _COUNTS.items():
        if name in merged:
            check_count(f"{where}: {name}", merged[name], *bounds)
    protocol = str(merged.get("protocol", "deterministic"))
    if protocol not in PROTOCOLS:
        raise InputError(
            f"{where}: protocol={protocol!r} is not one of {', '.join(PROTOCOLS)}."
            + nearest(protocol, PROTOCOLS)
        )
    task, _, variant = label.rpartition("/")  # a task may have a slash in its name
    return Cell(
        suite=suite,
        task=task,
        variant=variant,
        config=config,
        hyper=found.hyper,
        seeds=seeds or int(merged.get("seeds", 10)),
        first_seed=int(merged.get("first_seed", 0)),
        protocol=protocol,
        episodes=int(merged.get("episodes", 100 if protocol == "training" else 128)),
        random=merged.get("random"),
        best=merged.get("best"),
        published=references.hardest_first(
            [references.find(row, where) for row in merged.get("published", [])], full
        ),
        compare=bool(merged.get("compare", True)),
        is_quick=is_quick,
        full_env_steps=full,
        note=str(merged.get("note", "")),
        unlike=str(merged.get("unlike", "")),
    )


def _preset(env: str, wanted: str) -> presets.Preset | None:
    """Find the preset of that name, or of that objective: the environment's own file goes first."""
    if "/" in wanted:
        return presets.find(wanted)
    objective, found = wanted, presets.load(env, wanted)
    if found is not None:
        return found
    for each in presets.all_presets():
        if each.env == env and each.objective == objective:
            return each
    return None


def _merged(layers: Sequence[Mapping[str, Any]], where: str) -> dict[str, Any]:
    merged: dict[str, Any] = {"config": {}, "hyper": {}}
    for layer in layers:
        for key, value in layer.items():
            if key not in _FIELDS:
                raise InputError(f"{where}: a cell has no entry {key!r}.{nearest(key, _FIELDS)}")
            if key in ("config", "hyper", "published"):
                _expect(value, [dict] if key == "published" else dict, f"{where}: {key}")
            if key in ("config", "hyper"):
                merged[key] = {**merged[key], **value}
            elif key in _PLAIN and not _is_a(value, _PLAIN[key]):
                raise InputError(f"{where}: {key}={value!r} must be {_PLAIN[key].__name__}.")
            else:
                merged[key] = value
    return merged


def _expect(value: Any, shape: Any, at: str) -> None:
    try:
        expect(value, shape, at)
    except ValueError as error:
        raise InputError(f"{error}.") from None


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
