"""Units of a sweep: its packs, each of which any worker can train alone in its own folder.

A unit of grid and random is a pack. Halving and pbt keep one population, which is their only unit.
A unit's folder has a lock, so that two processes never train it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep import pack, pack_files
from ppo_jax.apps.sweep.pack import Control, Outcome
from ppo_jax.apps.sweep.pack_files import PackJob, PackResult
from ppo_jax.apps.sweep.plan import Planned, Prepared
from ppo_jax.distributed import hosts
from ppo_jax.storage import files, lock


class Units(NamedTuple):
    """The units of a sweep."""

    folders: list[Path]  # in the order of their training
    is_finished: Callable[[int], bool]
    train: Callable[[int], bool]  # from its last state on; False if a stop cut it, all of it saved
    outcome: Callable[[], Outcome]  # everything that is finished


def train_alone(units: Units, control: Control) -> Outcome:
    """Train one unit after the other; a stop leaves out those that are not finished."""
    for number in range(len(units.folders)):
        control.stop.agree()
        if units.is_finished(number) or not control.stop:
            units.train(number)
    return units.outcome()


def pack_units(
    prepared: Prepared, planned: Sequence[Planned], folder: Path, control: Control
) -> Units:
    """Packs, in which every member trains for the whole budget."""
    jobs = [
        (each, job)
        for number, each in enumerate(planned)
        for job in jobs_of(prepared, folder, (number, len(planned)), each)
    ]
    results: dict[int, PackResult] = {}
    is_cut = False

    def is_finished(number: int) -> bool:
        return hosts.on_first(lambda: pack_files.is_finished(jobs[number][1].folder))

    def train(number: int) -> bool:
        nonlocal is_cut
        each, job = jobs[number]
        with owned(job.folder):
            result = pack.train_pack(each.engine, job, prepared.sweep.options, control)
        is_cut = is_cut or result is None
        results.update({} if result is None else {number: result})
        return result is not None

    def outcome() -> Outcome:
        for number, (_, job) in enumerate(jobs):
            if number not in results and is_finished(number):
                results[number] = pack_files.read_result(job.folder, job)
        words = f"{len(results)} of {len(jobs)} packs"
        words += ", and the one in work is saved" * is_cut
        return outcome_of_packs(prepared, planned, [results[n] for n in sorted(results)], words)

    return Units([job.folder for _, job in jobs], is_finished, train, outcome)


def jobs_of(
    prepared: Prepared, folder: Path, place: tuple[int, int], planned: Planned
) -> list[PackJob]:
    """The packs of one group; `place` is its number, and the number of groups."""
    found, names = [], folders.pack_names(folder)
    for number, members in enumerate(planned.packs):
        own = folder / pack_files.PACKS / f"{place[0]:03d}-{number:03d}"
        chosen = sorted({member.setting for member in members})
        found.append(
            PackJob(
                folder=own,
                run_id=names(own),
                config=planned.group.config,
                hyper=prepared.sweep.hyper,
                settings={setting: prepared.settings[setting] for setting in chosen},
                members=members,
                label=f"group {place[0] + 1}/{place[1]}, pack {number + 1}/{len(planned.packs)}",
            )
        )
    return found


def outcome_of_packs(
    prepared: Prepared, planned: Sequence[Planned], results: Sequence[PackResult], words: str
) -> Outcome:
    """The outcome of the packs that are finished; `words` count them."""
    members = [member for result in results for member in result.members]
    values = [value for result in results for value in result.final_return]
    whole = pack.by_setting(members, values)
    seeds = prepared.sweep.options.seeds
    return Outcome(
        settings=prepared.settings,
        returns={setting: found for setting, found in whole.items() if len(found) == seeds},
        env_steps=sum(result.env_steps * len(result.members) for result in results),
        train_seconds=sum(result.train_seconds for result in results),
        compile_seconds=sum(each.engine.compile_seconds for each in planned),
        compilations=[each.engine.compilations for each in planned],
        more={"finished": words},
        built=[each.engine for each in planned],
    )


def slot_unit(folder: Path, run: Callable[[], Outcome]) -> Units:
    """The one population of halving or pbt; `run` trains it from its last state on."""
    own = folder / pack_files.PACKS / "000-000"
    known: list[Outcome] = []

    def is_finished(number: int) -> bool:
        del number
        return (own / pack_files.STATUS).is_file()

    def train(number: int) -> bool:
        with owned(own):
            known[:] = [run()]
        return is_finished(number)

    def outcome() -> Outcome:
        if not known:
            train(0)  # a finished population is only read
        return known[0]

    return Units([own], is_finished, train, outcome)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Make a unit's folder, and be its only writer (the first host is); see `lock.held`."""
    with ExitStack() as stack:

        def claim() -> None:
            files.refuse_links(folder.parent, folder)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock.held(folder))

        hosts.on_first(claim)
        yield
