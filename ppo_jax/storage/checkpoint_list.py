"""The checkpoints that a run folder holds: the newest, the best, one by its steps; and pruning."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ppo_jax.config.errors import InputError
from ppo_jax.storage import checkpoint, checkpoint_files, files
from ppo_jax.storage.checkpoint_files import CheckpointError
from ppo_jax.storage.run_folder import run_id

LISTED = 8  # checkpoints that an error message names


def latest(run_folder: Path | str, own_id: str | None = None) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint of a run, and a sentence for each newer one that is not.

    Args:
        own_id: the run's name; None for the one in its config.json.
    """
    reasons = []
    for folder, metadata in _surveyed(Path(run_folder), own_id):
        if not isinstance(metadata, str):
            fall_back = "Falling back to the checkpoint before it."
            return folder, [f"{reason} {fall_back}" for reason in reasons]
        reasons.append(metadata)
    return None, reasons


def chosen(run_folder: Path | str, choice: str | int) -> tuple[Path, list[str]]:
    """The checkpoint that `choice` names, and a sentence for each damaged one passed over.

    Args:
        choice: "newest", "best", or the environment steps (per seed) of one that is kept.

    Raises:
        InputError: there is none, it cannot be read, or no evaluation has scored any.
    """
    run_folder = Path(run_folder)
    if isinstance(choice, int):
        return _kept(run_folder, choice), []
    if choice == "newest":
        folder, reasons = latest(run_folder)
    else:
        found = list(_surveyed(run_folder, None))
        folder, reasons = _best(found), [each for _, each in found if isinstance(each, str)]
        if folder is not None:
            return folder, [f"{reason} It may have been the best." for reason in reasons]
        if len(reasons) < len(found):
            raise InputError(
                f"checkpoint='best' needs an evaluation, and no readable checkpoint of "
                f"{str(run_folder)!r} has one: train with --eval-every, or take 'newest'."
                + "".join(f" {reason}" for reason in reasons[:1])
            )
    if folder is not None:
        return folder, reasons
    why = f": {in_short(reasons)}" if reasons else "."
    sentence = f"{str(run_folder)!r} holds no checkpoint that can be read{why}"
    raise InputError(sentence) from damage(run_folder)


def in_short(reasons: Sequence[str]) -> str:
    """One sentence on why no checkpoint of a run can be used."""
    if len(reasons) < 2:
        return reasons[0] if reasons else "It has no checkpoint."
    return f"none of its {len(reasons)} checkpoints can be used, of which the newest: {reasons[0]}"


def damage(run_folder: Path | str) -> CheckpointError | None:
    """The error of the newest checkpoint that cannot be read, with its cause."""
    for folder in _newest_first(Path(run_folder)):
        try:
            checkpoint.checked(folder, checkpoint_files.verify(folder))
        except CheckpointError as error:
            return error
    return None


def best(run_folder: Path | str) -> Path | None:
    """The undamaged checkpoint with the highest metadata["score"], the newest of equals."""
    return _best(list(_surveyed(Path(run_folder), None)))


def prune(run_folder: Path | str, keep: int, own_id: str | None = None) -> None:
    """Delete all but the best and the newest `keep` undamaged checkpoints, and dead saves' rests.

    Only what can be read counts as kept, and damaged ones newer than those stay for inspection.

    Raises:
        InputError: `keep` is below 1, or the folder of the checkpoints is a symbolic link.
    """
    if keep < 1:
        raise InputError(f"keep={keep} leaves no checkpoint to resume from: keep at least 1.")
    files.refuse_links(Path(run_folder) / "checkpoints")
    found = list(_surveyed(Path(run_folder), own_id))
    kept_best, num_kept = _best(found), 0
    for folder, metadata in found:
        if num_kept < keep:
            num_kept += not isinstance(metadata, str)
        elif folder != kept_best:
            checkpoint_files.delete(folder)
    for leftover in (Path(run_folder) / "checkpoints").glob(".step_*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _surveyed(run_folder: Path, own_id: str | None) -> Iterator[tuple[Path, dict[str, Any] | str]]:
    """Each checkpoint, newest first, with its metadata or a sentence on why it cannot be used."""
    own_id = own_id or run_id(run_folder)
    for folder in _newest_first(run_folder):
        try:
            yield folder, _own_metadata(folder, own_id)
        except CheckpointError as error:
            yield folder, str(error)


def _own_metadata(folder: Path, own_id: str | None) -> dict[str, Any]:
    """The metadata of an undamaged checkpoint of the run `own_id`; None for any run."""
    metadata = checkpoint.checked(folder, checkpoint_files.verify(folder)).metadata
    found = metadata.get("run_id", own_id)
    if own_id is not None and found != own_id:
        raise CheckpointError(f"{folder} is of another run ({found}; this one is {own_id}).")
    return metadata


def _kept(run_folder: Path, env_steps: int) -> Path:
    """The undamaged checkpoint after `env_steps`."""
    folder, folders = checkpoint.checkpoint_folder(run_folder, env_steps), _newest_first(run_folder)
    if folder not in folders:
        kept = [int(path.name.removeprefix("step_")) for path in folders]
        near = sorted(sorted(kept, key=lambda steps: abs(steps - env_steps))[:LISTED])
        more = f" (the nearest of {len(kept)})" if len(kept) > LISTED else ""
        remedy = f"name one after {', '.join(map(str, near))} environment steps{more}"
        raise InputError(
            f"checkpoint={env_steps} is not kept in {str(run_folder)!r}: "
            f"{remedy if kept else 'it has no checkpoint'}."
        )
    _own_metadata(folder, run_id(run_folder))
    return folder


def _best(found: list[tuple[Path, dict[str, Any] | str]]) -> Path | None:
    scored = [
        (metadata["score"], -age, folder)
        for age, (folder, metadata) in enumerate(found)
        if not isinstance(metadata, str) and isinstance(metadata.get("score"), int | float)
    ]
    return max(scored)[2] if scored else None


def _newest_first(run_folder: Path) -> list[Path]:
    numbered = [
        (int(match[1]), path)
        for path in (run_folder / "checkpoints").glob("step_*")
        if (match := checkpoint.STEP.fullmatch(path.name))
    ]
    return [path for _, path in sorted(numbered, reverse=True)]
