"""The command `ppo-jax reproduce`: run missing cells, store their results, and judge them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.analysis import verdicts
from ppo_jax.apps.reproduce import (
    drawing,
    records,
    scoring,
    store,
    tables,
    training,
    unfinished,
)
from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.apps.reproduce.specs import Suite
from ppo_jax.apps.reproduce.unfinished import Job, Pack
from ppo_jax.config.errors import InputError, RunError
from ppo_jax.config.options import RunOptions
from ppo_jax.kernels import backend
from ppo_jax.runtime import devices, signals
from ppo_jax.storage import lock
from ppo_jax.storage.files import replacing, set_aside

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
    devices.prepare_jax(RunOptions(platform=request.platform))
    parts = []
    with signals.listening() as stop:
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


@contextmanager
def writing(suite: Suite) -> Iterator[None]:
    """End the reproduction with one sentence if its folder cannot be written."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise RunError(
            f"Stopped, because the folder of {suite.name} cannot be written{where}: "
            f"{error.strerror or error}. What is in it is untouched: mend that and run it again."
        ) from error


def one_suite(request: Request, suite: Suite, stop: Any, tell: Tell) -> Reproduced:
    """Reproduce one suite: its folder, its missing cells, its table."""
    folder = folder_of(request, suite)
    with opened(folder, request.is_show):
        notes = [f"{suite.name}/{name} has no setting: no preset" for name in suite.missing]
        held: dict[str, tuple[int, ...]] = {}
        for cell in suite.cells:
            found = store.read_result(folder, cell)
            if found.problem:
                notes.append(put_away(folder, cell, found.problem, request.is_show))
                tell(notes[-1])
            held[cell.name] = found.seeds
        if not request.is_show:
            packs, more = packs_to_train(folder, suite, held)
            for note in more:
                tell(note)
            notes += more
            run_packs(folder, suite, packs, request.save_seconds, stop, tell)
        table = made_table(folder, suite, notes)
        if table.rows and not request.is_show:
            store_table(folder, table)
    lines, data = tables.lines(table), tables.table_data(table)
    words = [each.verdict for each in (*table.rows, *table.judged)]
    exit_code = WORSE if any(each.startswith(verdicts.WORSE) for each in words) else 0
    if request.is_check:
        against = stored_folder(suite, folder, request)
        compared, said = check(suite, table.rows, against)
        data["check"] = {"against": str(against), "cells": [each._asdict() for each in compared]}
        for each in data["check"]["cells"]:
            each["cell"] = each["cell"].name
        data["check"]["not_compared"] = not_compared(suite, compared)
        lines += ["", *said]
        exit_code = WORSE if any(each.is_regression for each in compared) else 0
    return Reproduced(data, lines, exit_code)


def made_table(folder: Path, suite: Suite, notes: Sequence[str]) -> tables.Table:
    """Compute a suite's table from the seeds of its stored results."""
    rows, lacking, machines = measured_rows(folder, suite)
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
        there = [each for each in there if is_of_here(each)]
    new = store.unused(suite.name, platform, request.is_quick, f"{now:%Y-%m-%d}", store.RESULTS)
    return there[0] if there else new


def is_of_here(folder: Path) -> bool:
    """Check whether all of a folder's results come from a machine like this one."""
    return records.machine_of(folder) == records.machine_here()


@contextmanager
def opened(folder: Path, is_show: bool) -> Iterator[None]:
    """Open the folder, made if need be, with this process as its only writer."""
    if is_show:
        if not folder.is_dir():
            raise InputError(f"There are no results in {str(folder)!r}: run it without --show.")
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder {str(folder)!r} cannot be made ({error.strerror}): name another with "
            "--out."
        ) from None
    with lock.held(folder):
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
    for number, pack in enumerate(packs, 1):
        if stop:
            return
        tell(f"{suite.name} {number}/{len(packs)}: {describe(pack.jobs)}")
        trained = None
        with suppress(signals.Stopped):
            trained = training.train_jobs(pack, save_seconds, stop, tell)
        if trained is None:
            return
        stop.progress()
        first = 0
        for job in pack.jobs:
            last = first + len(job.seeds)
            store_result(folder, job, trained, slice(first, last), tell)
            first = last
        unfinished.close(pack)
        spent = time.perf_counter() - start
        tell(f"    {spent:.0f} s, about {spent / number * (len(packs) - number):.0f} s left")


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


def measured_rows(
    folder: Path, suite: Suite
) -> tuple[list[scoring.Measured], list[str], list[str]]:
    """Stored rows, the names of the cells without one, and the machines in words."""
    found = [(cell, store.read_result(folder, cell).content) for cell in suite.cells]
    rows = [scoring.measured(cell, content) for cell, content in found if content]
    lacking = [cell.name for cell, content in found if not content]
    return rows, lacking, records.machines(content for _, content in found if content)


def stored_folder(suite: Suite, folder: Path, request: Request) -> Path | None:
    """Find the newest other results of this suite from a machine of the same class."""
    there = store.folders(suite.name, backend.platform(), request.is_quick, store.RESULTS)
    usable = [each for each in there if each != folder and store.has_results(each)]
    return next((each for each in usable if is_of_here(each)), None)


def check(
    suite: Suite, rows: Sequence[scoring.Measured], against: Path | None
) -> tuple[list[scoring.Compared], list[str]]:
    """Compare new rows with the stored ones; return the comparisons and the lines to print.

    Raises:
        InputError: there are no stored results to compare with.
    """
    if against is None:
        raise InputError(
            f"There are no stored results of {suite.name} from a machine like this one to check "
            "against: run `ppo-jax reproduce` here first, with a trusted version."
        )
    stored = {row.cell.name: row for row in measured_rows(against, suite)[0]}
    compared = [
        each
        for row in rows
        if row.cell.name in stored
        and (each := scoring.compare(row, stored[row.cell.name])) is not None
    ]
    lines = [tables.check_line(each) for each in compared if each.is_regression]
    worse = len(lines)
    omitted = not_compared(suite, compared)
    if omitted:
        lines.append(
            f"not compared: {len(omitted)} cells ({tables.listed(omitted)}), because new or stored "
            "results lack them or have fewer than two seeds with a score"
        )
    lines.append(
        f"check: {len(compared)} of {len(suite.cells)} cells compared with {against}, "
        f"{worse or 'none'} worse than chance explains (99% interval of the difference) or with "
        "more failed seeds."
    )
    return compared, lines


def not_compared(suite: Suite, compared: Sequence[scoring.Compared]) -> list[str]:
    """Names of the cells that were asked for and are not among those compared."""
    there = {each.cell.name for each in compared}
    return [cell.name for cell in suite.cells if cell.name not in there]
