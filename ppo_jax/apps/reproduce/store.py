"""Results of cells as files: one JSON object a cell, with the sha256 of its own content.

A file is written in one step. A result that is read must fit its sha256, have the spec's setting
and hold all its seeds. Statistics are always computed again from the returns of the seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.config.data import DATA
from ppo_jax.config.layers import BEFORE, with_new_fields
from ppo_jax.config.reading import expect, read_json
from ppo_jax.storage.files import to_json, write_atomic
from ppo_jax.storage.manifest import MANIFEST
from ppo_jax.storage.sealed import checksum, first_change

FORMAT = 1
_BATCH = {
    "fingerprint": {"processor": (str, None), "platform": str, "cores": (int, None)},
    "manifest": MANIFEST,
    "date?": str,
}
# The shape of a cell's file, see `reading.expect`.
_SHAPE = {
    "setting": {"config": dict, "hyper": dict},
    "protocol": str,
    "note": str,
    "random": (float, None),
    "best": (float, None),
    "seeds": [{"curve": [(float, None)]}],
    "curve_env_steps": [int],
    "batches": [_BATCH],
}
RESULTS = Path("benchmarks") / "results"
SHIPPED = DATA / "results"  # those that come with the package, for reading only
UNFINISHED = "unfinished"  # folder of the packs that are in training


class Stored(NamedTuple):
    """The stored result of one cell."""

    content: dict[str, Any] | None  # None if there is no valid result
    problem: str | None  # a sentence, if there is a file that is not valid

    @property
    def seeds(self) -> tuple[int, ...]:
        return () if self.content is None else tuple(s["seed"] for s in self.content["seeds"])


def file_of(folder: Path, cell: Cell) -> Path:
    return folder / f"{plain_name(cell.task)}__{plain_name(cell.variant)}.json"


def plain_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def setting_of(cell: Cell) -> dict[str, Any]:
    """All of a spec that a result depends on, as JSON."""
    return to_json(
        {
            "config": vars(cell.config),
            "hyper": vars(cell.hyper),
            "protocol": cell.protocol,
            "episodes": cell.episodes,
            "is_quick": cell.is_quick,
        }
    )


def read_result(folder: Path, cell: Cell) -> Stored:
    """The result of a cell, with a sentence if its file is not valid."""
    path = file_of(folder, cell)
    try:
        content = read_json(path)
    except FileNotFoundError:
        return Stored(None, None)
    except (OSError, ValueError) as error:
        return Stored(None, f"{path} cannot be read ({error})")
    problem = _problem(content, cell)
    return Stored(None if problem else content, f"{path} {problem}" if problem else None)


def _problem(content: Any, cell: Cell) -> str | None:
    """The problem with a file's content, None if it is valid."""
    if not isinstance(content, dict) or "sha256" not in content:
        return "is no result of a cell"
    if content["sha256"] != checksum(content):
        return "is damaged: its content is not what was written (sha256)"
    if content.get("format") != FORMAT:
        return f"has format {content.get('format')!r}; this version reads {FORMAT}"
    if (content.get("suite"), content.get("task"), content.get("variant")) != (
        cell.suite,
        cell.task,
        cell.variant,
    ):
        return f"is the result of another cell than {cell.full_name}"
    setting = content.get("setting")
    if isinstance(setting, Mapping):
        setting = _completed(setting, cell)
    changed = first_change(setting, setting_of(cell))
    if changed:
        return f"was made with another setting than the spec's: {changed}"
    try:
        expect(content, {"seeds": [{"seed": int, "score": (float, None)}]})
    except ValueError:
        return "has a seed without a number for its return"
    if len({each["seed"] for each in content["seeds"]}) != len(content["seeds"]):
        return "has a seed twice"
    try:
        expect(content, _SHAPE)
    except ValueError as error:
        return f"is damaged: {error}"
    if {len(each["curve"]) for each in content["seeds"]} - {len(content["curve_env_steps"])}:
        return "has a curve of another length than its steps"
    return None


def _completed(setting: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """A stored setting with the fields that are newer than it."""
    completed, config = with_new_fields(setting), setting.get("config")
    env = str(cell.config.env)
    is_known = ":" not in env or env.startswith(("gymnasium/", "study_tasks:"))
    if isinstance(config, Mapping) and is_known:
        # No environment of the older results shows what these fields change.
        newer = BEFORE["config"].keys() - config.keys()
        completed["config"] |= {name: getattr(cell.config, name) for name in newer}
    return completed


def write_result(folder: Path, cell: Cell, content: Mapping[str, Any]) -> Path:
    """Write a cell's result in one step."""
    path = file_of(folder, cell)
    plain = to_json(dict(content))
    plain["sha256"] = checksum(plain)
    write_atomic(path, _laid_out(plain))
    return path


def _laid_out(content: Mapping[str, Any]) -> str:
    """One entry a line, and of the seeds one seed a line: short, and good to compare."""

    def dumped(value: Any) -> str:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)

    lines = []
    for name, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            inner = ",\n  ".join(dumped(each) for each in value)
            lines.append(f"{dumped(name)}: [\n  {inner}]")
        else:
            lines.append(f"{dumped(name)}: {dumped(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def fingerprints(folder: Path) -> list[Mapping[str, Any]]:
    """Machines of all results in a folder, whatever cells are asked for."""
    found: list[Mapping[str, Any]] = []
    for path in sorted(folder.glob("*__*.json")):
        try:
            content = expect(read_json(path), {"batches": [_BATCH]})
        except (OSError, ValueError):
            continue  # reported where its cell is read
        found += [batch["fingerprint"] for batch in content["batches"]]
    return found


def has_results(path: Path) -> bool:
    return any(path.glob("*__*.json"))


def is_begun(path: Path) -> bool:
    """Check whether a folder holds results or a pack in training."""
    return has_results(path) or any(path.glob(f"{UNFINISHED}/*/pack.json"))


def folders(suite: str, platform: str, is_quick: bool, root: Path = RESULTS) -> list[Path]:
    """Folders of a suite on this kind of device, the latest date first, with results or begun."""
    end = "_quick" if is_quick else ""
    found = [
        path
        for path in root.glob(f"{suite}_{platform}_????-??-??*{end}")
        if path.is_dir() and path.name.endswith("_quick") == is_quick and is_begun(path)
    ]
    return sorted(found, key=lambda path: path.name, reverse=True)


def readable(suite: str, platform: str, is_quick: bool) -> list[Path]:
    """Folders with results to look at: the user's own, else those of the package."""
    own, shipped = (folders(suite, platform, is_quick, root) for root in (RESULTS, SHIPPED))
    return [path for path in own if has_results(path)] or shipped


def unused(suite: str, platform: str, is_quick: bool, date: str, root: Path = RESULTS) -> Path:
    """The folder of this date; with a number behind the date if another machine has it."""
    end = "_quick" if is_quick else ""
    path, number = root / f"{suite}_{platform}_{date}{end}", 1
    while is_begun(path):
        number += 1
        path = root / f"{suite}_{platform}_{date}-{number}{end}"
    return path
