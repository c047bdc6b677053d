"""The files of a pack, each with a checksum and the name of its owner.

A pack's folder describes itself. `pack.json` holds settings and members. `metrics.jsonl` has a line
per logged point, with a list of one number per member for each metric. `checkpoints/` exists while
the pack trains, and `result.json` from its end on. It records the length and the hash of the rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.apps.sweep.axes import Values
from ppo_jax.apps.sweep.groups import Member
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed.layout import Layout
from ppo_jax.storage import files, resume_point, run_folder
from ppo_jax.storage.checkpoint import checkpoint_folder
from ppo_jax.storage.files import to_json
from ppo_jax.storage.fingerprint import fingerprint
from ppo_jax.storage.jsonl import LogFiles, Position
from ppo_jax.storage.resume_point import Owner
from ppo_jax.storage.sealed import DamagedError, checksum, first_change, read_sealed, write_sealed

PACKS = "packs"  # folder of them
PACK, RESULT, METRICS = "pack.json", "result.json", "metrics.jsonl"
STATUS = "standing.json"  # the result of a population of slots
# The shapes of pack.json and result.json, see `reading.expect`.
_PACK = {"settings": dict, "members": [[int, int]]}
_RESULT = {
    "members": [[int, int]],
    "final_return": [(float, None)],
    "env_steps": int,
    "train_seconds": float,
}


class PackJob(NamedTuple):
    """One pack to be trained, and its folder."""

    folder: Path
    run_id: str | None  # its name beyond this sweep; None in a sweep that 0.1.0 began
    config: Config
    hyper: Hyper  # the sweep's base
    settings: dict[int, Values]  # the settings of this pack
    members: list[Member]
    label: str  # shown to the user
    # (from this iteration on, values) of all members, in place of their settings' own values.
    schedule: Sequence[tuple[int, Values]] | None = None


class PackResult(NamedTuple):
    """The result of a finished pack."""

    members: list[Member]
    final_return: list[float | None]  # per member, None if it failed
    env_steps: int  # per member
    train_seconds: float


def remedy(folder: Path) -> str:
    """The way out of a pack's folder that cannot be used."""
    return f"restore it from a copy, or remove {str(folder)!r}, and its members are trained again"


def sentence(words: str) -> str:
    """Make a sentence of some words."""
    return f"{words[0].upper()}{words[1:]}."


def write_pack(job: PackJob, tell: Callable[[str], None]) -> bool:
    """Write the pack's own description, so that its folder can be read without the sweep's.

    A damaged one is reported and written anew, as all of it is known from the sweep.

    Returns:
        True if the pack was begun before.

    Raises:
        InputError: the folder holds a pack of another sweep.
    """
    path = job.folder / PACK
    content = to_json(
        {
            "run_id": job.run_id,
            "settings": job.settings,
            "members": job.members,
            "batch_size": job.config.batch_size,
            "label": job.label,
        }
    )
    above = [job.folder.parent] if job.folder.parent.name == PACKS else []  # else the user's own
    files.refuse_links(*above, job.folder, job.folder / "checkpoints")
    job.folder.mkdir(parents=True, exist_ok=True)
    was_begun = path.exists()
    if was_begun:
        try:
            found = read_sealed(path, "it is written anew", _PACK, may_be_open=job.run_id is None)
        except DamagedError as error:
            tell(str(error))
        else:
            refuse_other(path, found, content, ("label",))
            return True
    write_sealed(path, content)
    return was_begun


def read_pack(folder: Path) -> dict[str, Any]:
    """The description in a pack's folder, of this sweep or of another worker's.

    Raises:
        InputError: it is damaged.
    """
    return read_sealed(folder / PACK, remedy(folder), _PACK, may_be_open=True)


def refuse_other(
    path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], without: Iterable[str] = ()
) -> None:
    """Refuse a file of another pack than the one wanted.

    Args:
        wanted: entries that must be equal, except for those named in `without`.
    """
    names = [name for name in wanted if name not in without]
    ours, theirs = ({name: each.get(name) for name in names} for each in (wanted, found))
    if change := first_change(theirs, ours):
        raise InputError(
            f"{str(path)!r} belongs to another sweep or pack ({change}): {remedy(path.parent)}."
        )


def owner_of(job: PackJob, layout: Layout) -> Owner:
    """The identity that a pack's checkpoints must have."""
    described = run_folder.describe_run(job.config, job.hyper, RunOptions())
    names = ("settings", "members", "schedule")  # by their hash, as there may be 100,000
    hashes = {name: checksum({name: to_json(getattr(job, name))}) for name in names}
    settings = {"config": described["config"], "hyper": described["hyper"], "sha256": hashes}
    words = sentence(remedy(job.folder))
    return Owner(job.folder, job.run_id, to_json(settings), fingerprint(layout, job.config), words)


def is_finished(folder: Path) -> bool:
    return (folder / RESULT).is_file()


def saved_since(folder: Path, since: float) -> bool:
    """Check whether a pack was saved after its start, later than `since`."""
    saved = [*folder.glob("checkpoints/step_*"), *folder.glob(RESULT)]
    begin = checkpoint_folder("", 0).name
    return any(path.stat().st_mtime > since for path in saved if path.name != begin)


def finish_pack(job: PackJob, result: PackResult, logs: LogFiles) -> None:
    """Write the result of a pack that is done, and remove its checkpoints."""
    write_result(job.folder / RESULT, job.run_id, result._asdict(), logs)
    logs.close()
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)


def write_result(path: Path, run_id: str | None, result: Mapping[str, Any], logs: LogFiles) -> None:
    """Write a result with its owner and the positions of its rows, which are synced first."""
    for file in logs.files():
        file.sync()
    write_sealed(path, {**result, "run_id": run_id, "logs": logs.positions()})


def read_written(path: Path, run_id: str | None, shape: dict[str, Any]) -> dict[str, Any]:
    """The content that `write_result` was given; its rows are checked.

    Args:
        run_id: the owner's; None for any.
        shape: of the content, see `reading.expect`.

    Raises:
        InputError: the result or its rows are damaged, edited or of another owner.
    """
    words = remedy(path.parent)
    shape = {**shape, "logs?": dict}
    content = read_sealed(path, words, shape, may_be_open=run_id is None)
    found = content.pop("run_id", None)
    if run_id is not None and found != run_id:
        refuse_other(path, {"run_id": found}, {"run_id": run_id})
    for name, place in content.pop("logs", {}).items():
        rows = path.parent / name
        resume_point.refuse_other_rows(rows, Position(**place), sentence(words), is_whole=True)
    return content


def read_result(folder: Path, job: PackJob | None = None) -> PackResult:
    """The result in a finished pack's folder.

    Args:
        job: the pack that it must be of; None for any.

    Raises:
        InputError: it is damaged, edited, or of another pack.
    """
    path = folder / RESULT
    content = read_written(path, None if job is None else job.run_id, _RESULT)
    if job is not None:
        refuse_other(path, content, {"members": to_json(job.members)})
        # A kill may have come between the result and this removal.
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    pairs, returns = content["members"], content["final_return"]
    if len(pairs) != len(returns):
        raise InputError(f"{str(path)!r} is damaged: it lacks members or returns.")
    members = [Member(*pair) for pair in pairs]
    return PackResult(members, **{name: content[name] for name in PackResult._fields[1:]})
