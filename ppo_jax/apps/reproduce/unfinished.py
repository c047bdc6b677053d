"""Packs of a reproduction that are still in training: their folders, checkpoints and identity.

`unfinished/NAME` exists from the start of a pack until the results of all its cells are written.
`pack.json` names cells, seeds and settings. The checkpoints are those of `storage/resume_point`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ppo_jax.apps.reproduce import store
from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.apps.reproduce.store import UNFINISHED
from ppo_jax.config.layers import with_new_fields
from ppo_jax.distributed import hosts, population
from ppo_jax.distributed.layout import Layout
from ppo_jax.rl.types import PyTree, TrainState
from ppo_jax.runtime.windows import Rows
from ppo_jax.storage import resume_point
from ppo_jax.storage.files import refuse_links, remove_folder
from ppo_jax.storage.fingerprint import fingerprint
from ppo_jax.storage.resume_point import Owner
from ppo_jax.storage.sealed import first_change, read_sealed, write_sealed

PACK = "pack.json"


class Job(NamedTuple):
    """A cell and those of its seeds that are still to be run."""

    cell: Cell
    seeds: tuple[int, ...]


class Reached(NamedTuple):
    """All that a stopped pack goes on from."""

    state: TrainState
    rows: Rows  # name -> [members, iteration], of every iteration so far
    iteration: int
    train_seconds: float
    train_cpu_seconds: float


class Pack(NamedTuple):
    """Jobs that train in one program, and the folder of their checkpoints."""

    jobs: list[Job]
    folder: Path
    run_id: str
    settings: Mapping[str, Any]  # cells, seeds and settings, as JSON

    @property
    def num_members(self) -> int:
        return sum(len(job.seeds) for job in self.jobs)


def new_pack(folder: Path, jobs: Sequence[Job]) -> Pack:
    """A pack with a name of its own; nothing is written."""
    run_id = uuid.uuid4().hex
    name = f"{store.plain_name(jobs[0].cell.task)}-{run_id[:8]}"
    settings = {
        job.cell.name: {"place": place, "seeds": list(job.seeds), **store.setting_of(job.cell)}
        for place, job in enumerate(jobs)
    }
    return Pack(list(jobs), folder / UNFINISHED / name, run_id, settings)


def open_packs(
    folder: Path,
    cells: Sequence[Cell],
    held: Mapping[str, Sequence[int]],
    missing: Mapping[str, Sequence[int]],
) -> tuple[list[Pack], dict[str, tuple[int, ...]], list[str]]:
    """Find packs that were stopped and can go on; one whose results are all written is removed.

    Args:
        held: cell's name -> seeds with a result. missing: seeds that are wanted and have none.

    Returns:
        these packs, the seeds that are missing beyond them, and a sentence for each other pack.

    Raises:
        InputError: a pack's description is damaged.
    """
    known, left = {cell.name: cell for cell in cells}, {n: set(s) for n, s in missing.items()}
    packs, notes = [], []
    for path in sorted((folder / UNFINISHED).glob(f"*/{PACK}")):
        remedy = f"restore it from a copy, or remove {str(path.parent)!r}, and it is trained again"
        pack = read_pack(path.parent, read_sealed(path, remedy), known)
        jobs = pack.jobs if pack else []
        is_held = [set(job.seeds) <= set(held.get(job.cell.name, ())) for job in jobs]
        is_left = [set(job.seeds) <= left.get(job.cell.name, set()) for job in jobs]
        if pack is None or not all(a or b for a, b in zip(is_held, is_left, strict=True)):
            notes.append(
                f"{path.parent} holds training of other cells, seeds or settings than those asked "
                "for: it is left as it is"
            )
        elif all(is_held):
            close(pack)
        else:
            packs.append(pack)
            for job in jobs:
                left[job.cell.name] = left.get(job.cell.name, set()) - set(job.seeds)
    return packs, {name: tuple(sorted(seeds)) for name, seeds in left.items() if seeds}, notes


def read_pack(folder: Path, content: Mapping[str, Any], known: Mapping[str, Cell]) -> Pack | None:
    """The pack of a description; None if a cell is not known with that setting."""
    settings = content["settings"]
    jobs = []
    for name, setting in sorted(settings.items(), key=lambda item: item[1]["place"]):
        cell = known.get(name)
        wanted = store.setting_of(cell) if cell else {}
        given = {key: value for key, value in setting.items() if key not in ("place", "seeds")}
        if cell is None or first_change(with_new_fields(given), wanted):
            return None
        jobs.append(Job(cell, tuple(setting["seeds"])))
    return Pack(jobs, folder, content["run_id"], settings)


def begin(pack: Pack, layout: Layout) -> Owner:
    """Write a pack's description, unless it is there; return the identity of its checkpoints.

    Raises:
        OSError: the folder cannot be written.
    """
    finger = fingerprint(layout)

    def described() -> None:
        refuse_links(pack.folder.parent, pack.folder)
        if (pack.folder / PACK).exists():
            return
        pack.folder.mkdir(parents=True)
        write_sealed(
            pack.folder / PACK,
            {"run_id": pack.run_id, "settings": pack.settings, "fingerprint": finger},
        )

    hosts.on_first(described)
    remedy = (
        f"Restore it from a copy, or remove {str(pack.folder)!r}, and its cells are trained again."
    )
    return Owner(pack.folder, pack.run_id, pack.settings, finger, remedy)


def save(owner: Owner, layout: Layout, batch_size: int, reached: Reached) -> None:
    """Save a checkpoint of a pack."""
    rows = reached.rows
    progress = {
        "iteration": reached.iteration,
        "train_seconds": reached.train_seconds,
        "train_cpu_seconds": reached.train_cpu_seconds,
        "rows": {name: str(value.dtype) for name, value in rows.items()},
    }
    tree = {"state": population.trimmed(reached.state, layout), "rows": rows}
    resume_point.save_pack(owner, reached.iteration * batch_size, tree, progress)


def restore(
    owner: Owner, layout: Layout, start: TrainState, tell: Callable[[str], None]
) -> Reached | None:
    """Load a pack's newest state; None if it has no checkpoint yet.

    Args:
        start: the population before its first iteration, for the shapes.

    Raises:
        InputError: no checkpoint can be read, or it is of another pack.
    """
    size = layout.num_seeds

    def like(metadata: dict[str, Any]) -> PyTree:
        shape = (size, metadata["iteration"])
        kinds = metadata["rows"].items()
        rows = {name: jax.ShapeDtypeStruct(shape, np.dtype(kind)) for name, kind in kinds}
        return {"state": population.of_width(start, size), "rows": rows}

    found = resume_point.restore_pack(owner, like)
    if found is None:
        return None
    for note in found.notes:
        tell(note)
    state = population.place(population.padded(found.tree["state"], layout), layout)
    rows = {name: np.asarray(value) for name, value in found.tree["rows"].items()}
    names = ("iteration", "train_seconds", "train_cpu_seconds")
    return Reached(state, rows, *(found.metadata[name] for name in names))


def close(pack: Pack) -> None:
    """Remove the folder of a pack whose results are all written."""
    remove_folder(pack.folder)
    with suppress(OSError):  # other packs are in training
        pack.folder.parent.rmdir()


def machines(folder: Path) -> Iterable[Mapping[str, Any]]:
    """Fingerprints of the packs that are in training."""
    for path in (folder / UNFINISHED).glob(f"*/{PACK}"):
        yield read_sealed(path, f"remove {str(path.parent)!r}")["fingerprint"]
