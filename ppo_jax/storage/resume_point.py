"""The point from which training goes on: the newest checkpoint of its owner, and logs cut to it.

Runs, packs of a sweep and packs of a reproduction are all saved and restored here. A damaged
checkpoint is reported and the one before it is used. A checkpoint or rows of somebody else are
never used, and training that has left anything never begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.config import layers
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import hosts
from ppo_jax.rl.types import PyTree
from ppo_jax.storage import checkpoint, checkpoint_list, jsonl
from ppo_jax.storage.fingerprint import differences, other_programs
from ppo_jax.storage.jsonl import JsonlLog, LogFiles, Position
from ppo_jax.storage.sealed import first_change

KEEP = 2  # checkpoints of a pack: the newest, and the one before it in case that is damaged


class Found(NamedTuple):
    """The checkpoint to go on from."""

    path: Path
    metadata: dict[str, Any]
    notes: list[str]  # a sentence for each newer one that is damaged


class Owner(NamedTuple):
    """The identity of a pack: what must be equal in its checkpoints."""

    folder: Path
    run_id: str | None  # None if version 0.1.0 began it
    settings: Mapping[str, Any]  # JSON-ready tables
    fingerprint: Mapping[str, Any]
    remedy: str  # the sentence for a folder with nothing to go on from


class Restored(NamedTuple):
    """A pack's state, as it was saved."""

    tree: PyTree
    metadata: dict[str, Any]
    notes: list[str]  # for the user


def write(
    folder: Path,
    env_steps: int,
    taken: PyTree | checkpoint.Snapshot,
    metadata: dict[str, Any],
    logs: Iterable[JsonlLog],
    keep: int,
) -> None:
    """Sync the logs, write a checkpoint, and remove older ones."""
    for file in logs:
        file.sync()
    checkpoint.save(checkpoint.checkpoint_folder(folder, env_steps), taken, metadata)
    checkpoint_list.prune(folder, keep, metadata.get("run_id"))


def find(folder: Path, run_id: str | None, logs: Iterable[str], remedy: str) -> Found | None:
    """Find the newest undamaged checkpoint; None if the folder holds neither one nor rows.

    Args:
        run_id: of the owner; None for the one in the folder's config.json.
        logs: names of the files of rows.

    Raises:
        InputError: there are checkpoints or rows, and no checkpoint can be used.
    """
    newest, notes = checkpoint_list.latest(folder, run_id)
    if newest is not None:
        return Found(newest, checkpoint.metadata_of(newest), notes)
    rows = [folder / name for name in logs]
    if not notes and not any(path.exists() and path.stat().st_size for path in rows):
        return None
    raise InputError(
        f"{str(folder)!r} holds nothing to go on from: {checkpoint_list.in_short(notes)} {remedy}"
    ) from checkpoint_list.damage(folder)


def rewind(folder: Path, positions: Mapping[str, Position]) -> list[str]:
    """Cut the logs back to a checkpoint; a sentence for each that holds other rows."""
    found = [jsonl.rewind_to(folder / name, place) for name, place in positions.items()]
    return [warning for warning in found if warning]


def fingerprint_notes(metadata: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Sentences if the training goes on under another fingerprint."""
    changed = differences(metadata["fingerprint"], now)
    other = other_programs(metadata["fingerprint"], now)
    bits = None if changed is None else f"Not bit for bit any more: {changed}"
    return [note for note in (bits, other) if note is not None]


def save_pack(
    owner: Owner,
    env_steps: int,
    tree: PyTree,
    progress: Mapping[str, Any],
    logs: LogFiles | None = None,
) -> None:
    """Save a pack's arrays and progress under its owner's identity."""
    metadata = {
        **progress,
        "env_steps": env_steps,
        "run_id": owner.run_id,
        "settings": owner.settings,
        "fingerprint": owner.fingerprint,
        "logs": logs.positions() if logs else {},
    }
    taken = checkpoint.snapshot(tree)
    if hosts.is_first():
        write(owner.folder, env_steps, taken, metadata, logs.files() if logs else (), KEEP)


def restore_pack(
    owner: Owner, like: Callable[[dict[str, Any]], PyTree], logs: Iterable[str] = ()
) -> Restored | None:
    """Load a pack's newest state and cut its logs to it; None if it has not begun.

    On several hosts the first one chooses the checkpoint and cuts the logs, and all load it.

    Args:
        like: metadata -> the arrays wanted, by structure, shape and dtype.

    Raises:
        InputError: nothing can be read, or checkpoint or rows are of another owner.
    """
    known: list[Found] = []

    def chosen() -> str | None:
        known.extend(_find_own(owner, logs))
        return known[0].path.name if known else None

    name = hosts.on_first(chosen)
    if name is None:
        return None
    if not known:
        path = owner.folder / "checkpoints" / name
        known.append(Found(path, checkpoint.metadata_of(path), []))
    path, metadata, notes = known[0]
    tree, _ = checkpoint.load(path, like(metadata))
    is_old = "settings" not in metadata
    if hosts.is_first() and is_old:
        for name in logs:
            jsonl.rewind_jsonl(owner.folder / name, metadata["env_steps"])
    elif hosts.is_first():
        rewind(owner.folder, {name: Position(**metadata["logs"][name]) for name in logs})
    changed = [] if is_old else fingerprint_notes(metadata, owner.fingerprint)
    return Restored(tree, metadata, [*notes, *changed])


def _find_own(owner: Owner, logs: Iterable[str]) -> list[Found]:
    """The newest checkpoint of a pack, after checks; none if it has not begun."""
    is_old = owner.run_id is None  # version 0.1.0 wrote rows before the first checkpoint
    found = find(owner.folder, owner.run_id, () if is_old else logs, owner.remedy)
    if found is None:
        for name in logs:
            (owner.folder / name).unlink(missing_ok=True)
        return []
    if not is_old or "settings" in found.metadata:
        _refuse_other_settings(owner, found)
        for name in logs:
            place = Position(**found.metadata["logs"][name])
            refuse_other_rows(owner.folder / name, place, owner.remedy)
    return [found]


def _refuse_other_settings(owner: Owner, found: Found) -> None:
    trained = found.metadata.get("settings")
    known = layers.with_new_fields(trained) if isinstance(trained, Mapping) else trained
    change = first_change(known, owner.settings)
    if change or found.metadata.get("run_id") != owner.run_id:
        reason = change or f"its run_id is {found.metadata.get('run_id')}"
        raise InputError(
            f"{str(found.path)!r} belongs to other training ({reason}). {owner.remedy}"
        )


def refuse_other_rows(path: Path, place: Position, remedy: str, *, is_whole: bool = False) -> None:
    """Refuse a file of rows that does not hold what was written up to a position.

    Args:
        is_whole: nothing may follow that position.

    Raises:
        InputError: it holds other rows; nothing is changed.
    """
    if not jsonl.holds(path, place, is_whole=is_whole):
        raise InputError(
            f"{str(path)!r} does not hold the rows that were written to it (sha256 of "
            f"{place.num_bytes} bytes). {remedy}"
        )
