"""The command `ppo-jax reproduce`: run missing cells, store their results, and judge them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.analysis import verdicts
from ppo_jax.apps.reproduce import (
    comparison,
    drawing,
    records,
    scoring,
    specs,
    store,
    tables,
    training,
    unfinished,
)
from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.apps.reproduce.specs import Suite
from ppo_jax.apps.reproduce.unfinished import Job, Pack
from ppo_jax.config.errors import InputError, RunError
from ppo_jax.config.options import RunOptions, validate_options
from ppo_jax.distributed import hosts
from ppo_jax.kernels import backend
from ppo_jax.runtime import devices, signals
from ppo_jax.storage import lock
from ppo_jax.storage.files import replacing, set_aside
from ppo_jax.storage.fingerprint import program_words
from ppo_jax.storage.sealed import checksum

WORSE = 3  # exit code

Tell = Callable[[str], None]


class Request(NamedTuple):
    """The suites to reproduce, and the options for it."""

    suites: tuple[Suite, ...]
    out: str | None = None  # folder of one suite; None for one in benchmarks/results
    is_quick: bool = False
    is_check: bool = False
    is_show: bool = False  # read stored results, run nothing
    platform: str | None = None
    time_limit: float | None = None
    save_seconds: float = 60.0  # training time between checkpoints of a pack
    joining: Mapping[str, Any] = {}  # options that join several hosts, see `RunOptions`


class Reproduced(NamedTuple):
    data: dict[str, Any]
    lines: list[str]
    exit_code: int


def reproduce(request: Request, tell: Tell) -> Reproduced:
    """Run the missing cells of every suite, write its table, and report the result.

    Raises:
        InputError: a folder cannot be used, or another process is writing to it.
    """
    if request.out is not None and len(request.suites) > 1:
        raise InputError("--out names the folder of one suite: leave it out for several.")
    options = RunOptions(platform=request.platform, **request.joining)
    validate_options(options)
    parts = []
    with signals.listening() as own_stop, devices.joined(options, own_stop) as stop:
        devices.prepare_jax(options)
        hosts.require_equal(partial(common_settings, request))
        tell = tell if hosts.is_first() else silent
        stop.tell = tell
        stop.limit(request.time_limit)
        for suite in request.suites:
            with writing(suite):
                parts.append(one_suite(request, suite, stop, tell))
            if stop:
                break
    exit_code = max((part.exit_code for part in parts), default=0)
    lines = [line for part in parts for line in [*part.lines, ""]][:-1]
    if stop:
        there = f" with --out {parts[-1].data['folder']}" * (request.is_check and not request.out)
        lines += ["", f"Stopped by {stop.reason}: all is saved; run it again{there} to go on."]
        exit_code = stop.exit_code or exit_code
    return Reproduced({"suites": [part.data for part in parts]}, lines, exit_code)


def silent(line: str) -> None:
    """Print nothing: the first host does."""
    del line


def common_settings(request: Request) -> dict[str, str]:
    """The cells and programs that all hosts must have, in words."""
    cells = [cell for suite in request.suites for cell in suite.cells]
    found = {
        cell.name: checksum(
            {"cell": store.setting_of(cell), "seeds": [*scoring.wanted_seeds(cell)]}
        )
        for cell in cells
    }
    own = {"out": str(request.out), "check": str(request.is_check)}
    return {**own, **found, **(program_words(cells[0].config) if cells else {})}


@contextmanager
def writing(suite: Suite) -> Iterator[None]:
    """End the reproduction with one sentence if its folder cannot be written.

    Raises:
        RunError: an OSError came from within; the sentence has the file, if it is known.
    """
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise RunError(
            f"Stopped, because the folder of {suite.name} cannot be written{where}: "
            f"{error.strerror or error}. What is in it is untouched: mend that and run it again."
        ) from error


def one_suite(request: Request, suite: Suite, stop: Any, tell: Tell) -> Reproduced:
    """Reproduce one suite: its folder, its missing cells, its table.

    The first host has the files and judges; all train.
    """
    folder = Path(hosts.on_first(lambda: str(folder_of(request, suite))))
    with opened(folder, request.is_show):
        notes, packs = shared_work(request, suite, folder, tell)
        run_packs(folder, suite, packs, request.save_seconds, stop, tell)
        judged: list[Reproduced] = []

        def judge() -> int:
            judged.append(judged_suite(request, suite, folder, notes))
            return judged[0].exit_code

        exit_code = hosts.on_first(judge)
    return judged[0] if judged else Reproduced({"folder": str(folder)}, [], exit_code)


def shared_work(
    request: Request, suite: Suite, folder: Path, tell: Tell
) -> tuple[list[str], list[Pack]]:
    """Notes for the table, and the packs to train, as the first host finds them in the folder."""
    notes: list[str] = []
    packs: list[Pack] = []

    def found() -> list[Any]:
        notes.extend(f"{suite.name}/{name} has no setting: no preset" for name in suite.missing)
        held: dict[str, tuple[int, ...]] = {}
        for cell in suite.cells:
            result = store.read_result(folder, cell)
            if result.problem:
                notes.append(put_away(folder, cell, result.problem, request.is_show))
                tell(notes[-1])
            held[cell.name] = result.seeds
        if not request.is_show:
            left, more = packs_to_train(folder, suite, held)
            packs.extend(left)
            notes.extend(more)
            for note in more:
                tell(note)
        return [[pack.folder.name, pack.run_id, pack.settings] for pack in packs]

    described, known = hosts.on_first(found), {cell.name: cell for cell in suite.cells}
    for name, run_id, settings in described if not hosts.is_first() else ():
        content = {"run_id": run_id, "settings": settings}
        pack = unfinished.read_pack(folder / store.UNFINISHED / name, content, known)
        assert pack is not None  # all hosts have the same cells
        packs.append(pack)
    return notes, packs


def judged_suite(request: Request, suite: Suite, folder: Path, notes: Sequence[str]) -> Reproduced:
    """The table of the cells asked for, and its verdicts.

    The stored table has all cells that the folder holds. Nothing is stored if the table is only
    to be shown.
    """
    table = made_table(folder, suite, notes)
    if table.rows and not request.is_show:
        whole, asked = specs.load(suite.file, request.is_quick), {c.name: c for c in suite.cells}
        cells = tuple(asked.get(cell.name, cell) for cell in whole.cells)
        is_whole = len(cells) == len(asked)
        every = table if is_whole else made_table(folder, whole._replace(cells=cells), notes)
        store_table(folder, every)
    lines, data = tables.lines(table), tables.table_data(table)
    words = [each.verdict for each in (*table.rows, *table.judged)]
    exit_code = WORSE if any(each.startswith(verdicts.WORSE) for each in words) else 0
    if request.is_check:
        against = comparison.stored_folder(suite, folder, request.is_quick)
        compared, said = comparison.check(suite, table.rows, against)
        data["check"] = {"against": str(against), "cells": [each._asdict() for each in compared]}
        for each in data["check"]["cells"]:
            each["cell"] = each["cell"].name
        data["check"]["not_compared"] = comparison.not_compared(suite, compared)
        lines += ["", *said]
        exit_code = WORSE if any(each.is_regression for each in compared) else 0
    return Reproduced(data, lines, exit_code)


def made_table(folder: Path, suite: Suite, notes: Sequence[str]) -> tables.Table:
    """Compute a suite's table from the seeds of its stored results."""
    rows, lacking, machines = comparison.measured_rows(folder, suite)
    chosen = {cell.variant for cell in suite.cells}
    judged = [
        scoring.judge(suite, rows, claim)
        for claim in suite.claims
        if {claim.higher, claim.lower} <= chosen
    ]
    variants = scoring.variants(suite, rows) if suite.is_normalised else []
    return tables.Table(suite, rows, variants, judged, lacking, [*notes], machines, str(folder))


def store_table(folder: Path, table: tables.Table) -> None:
    """Write a suite's table as README.md and summary.json, and its picture."""
    tables.write_tables(folder, table)
    if table.variants:
        with replacing(folder / "normalised_scores.svg") as path:
            drawing.draw(table, path)


def folder_of(request: Request, suite: Suite) -> Path:
    """Choose a suite's folder: the one asked for, else the newest one, else a new one.

    Results of another class of machine are shown, but not continued. A check starts in a new
    folder, as it would otherwise compare stored results with themselves.

    Raises:
        InputError: stored results are to be shown, and there are none.
    """
    if request.out is not None:
        return Path(request.out)
    platform = backend.platform()
    now = datetime.now(UTC)
    if request.is_check:
        return store.RESULTS / f"check_{suite.name}_{platform}_{now:%Y-%m-%dT%H%M%S}"
    if request.is_show:
        there = store.readable(suite.name, platform, request.is_quick)
    else:
        there = store.folders(suite.name, platform, request.is_quick, store.RESULTS)
    if request.is_show and not there:
        raise InputError(
            f"There are no {'quick ' if request.is_quick else ''}results of {suite.name} on "
            f"{platform} in {str(store.RESULTS)!r}: run it without --show, or name their folder "
            "with --out."
        )
    if not request.is_show:
        there = [each for each in there if comparison.is_of_here(each)]
    new = store.unused(suite.name, platform, request.is_quick, f"{now:%Y-%m-%d}", store.RESULTS)
    return there[0] if there else new


@contextmanager
def opened(folder: Path, is_show: bool) -> Iterator[None]:
    """Open the folder, made if need be, with this process, or the first host, as its writer."""
    if is_show:
        if not folder.is_dir():
            raise InputError(f"There are no results in {str(folder)!r}: run it without --show.")
        yield
        return
    with ExitStack() as stack:

        def claim() -> None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"The folder {str(folder)!r} cannot be made ({error.strerror}): name another "
                    "with --out."
                ) from None
            stack.enter_context(lock.held(folder))

        hosts.on_first(claim)
        yield


def put_away(folder: Path, cell: Cell, problem: str, is_show: bool) -> str:
    """Set aside a file that cannot be used; return the note about it."""
    if is_show:
        return f"{problem}: it is not used."
    aside = set_aside(store.file_of(folder, cell))
    return f"{problem}: it is kept as {aside.name}, and the cell is run again."


def packs_to_train(
    folder: Path, suite: Suite, held: Mapping[str, tuple[int, ...]]
) -> tuple[list[Pack], list[str]]:
    """Packs that were stopped, then new ones for all other missing seeds; and notes.

    Args:
        held: cell's name -> seeds with a result.
    """
    missing = {
        cell.name: [seed for seed in scoring.wanted_seeds(cell) if seed not in held[cell.name]]
        for cell in suite.cells
    }
    stopped, left, notes = unfinished.open_packs(folder, suite.cells, held, missing)
    jobs = [Job(cell, left[cell.name]) for cell in suite.cells if cell.name in left]
    return [*stopped, *(unfinished.new_pack(folder, each) for each in training.packs(jobs))], notes


def run_packs(
    folder: Path, suite: Suite, packs: Sequence[Pack], save_seconds: float, stop: Any, tell: Tell
) -> None:
    """Train missing cells pack by pack; each is on the disk before the next pack starts."""
    start = time.perf_counter()
    kept: dict[str, training.Programs] = {}
    for number, pack in enumerate(packs, 1):
        if stop:
            return
        tell(f"{suite.name} {number}/{len(packs)}: {describe(pack.jobs)}")
        trained = None
        with suppress(signals.Stopped):
            trained = training.train_jobs(pack, save_seconds, stop, tell, kept)
        if trained is None:
            return
        stop.progress()
        hosts.on_first(partial(store_pack, folder, pack, trained, tell))
        spent = time.perf_counter() - start
        tell(f"    {spent:.0f} s, about {spent / number * (len(packs) - number):.0f} s left")


def store_pack(folder: Path, pack: Pack, trained: training.Trained, tell: Tell) -> None:
    """Write the results of a pack's cells, and remove its folder."""
    first = 0
    for job in pack.jobs:
        last = first + len(job.seeds)
        store_result(folder, job, trained, slice(first, last), tell)
        first = last
    unfinished.close(pack)


def store_result(
    folder: Path, job: Job, trained: training.Trained, members: slice, tell: Tell
) -> None:
    """Write the seeds of a job into their cell's file, unless a kill came after that."""
    before = store.read_result(folder, job.cell)
    if set(job.seeds) <= set(before.seeds):
        return
    content = records.record(job, trained, members, before.content)
    store.write_result(folder, job.cell, content)
    tell(tables.short_line(scoring.measured(job.cell, content)))


def describe(pack: Sequence[Job]) -> str:
    """Describe the runs of a pack in one line."""
    cell = pack[0].cell
    variants = ", ".join(job.cell.variant for job in pack)
    seeds = sum(len(job.seeds) for job in pack)
    quick = f" of {cell.full_env_steps:,} (quick)" if cell.is_quick else ""
    return f"{cell.task}: {variants}; {seeds} runs x {cell.config.trained_env_steps:,} steps{quick}"
