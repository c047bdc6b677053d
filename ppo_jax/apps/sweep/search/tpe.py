"""TPE through Optuna: ask for a batch of settings, train it as a population, report all scores.

Several workers, each with its own folder and device, join one study by its name and storage.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppo_jax.apps.sweep import engine as engines
from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep import pack as packs
from ppo_jax.apps.sweep import rules
from ppo_jax.apps.sweep.axes import apply
from ppo_jax.apps.sweep.groups import Member, compile_groups
from ppo_jax.apps.sweep.pack import Outcome
from ppo_jax.apps.sweep.pack_files import (
    PACK,
    PackJob,
    PackResult,
    is_finished,
    read_result,
    saved_since,
)
from ppo_jax.apps.sweep.plan import Planned, Prepared, longest_to_come
from ppo_jax.apps.sweep.search import parameters, study
from ppo_jax.apps.sweep.search.study import TrialClaim
from ppo_jax.config.errors import InputError
from ppo_jax.config.validate import validate
from ppo_jax.config.values import masked
from ppo_jax.runtime.signals import Stopped
from ppo_jax.storage.sealed import checksum

POLL_SECONDS = 1.0  # between looks at a study if other workers train its last settings


def run_tpe(
    prepared: Prepared, planned: Sequence[Planned], folder: Path, control: packs.Control
) -> Outcome:
    """Be one worker of the study: claim, train and report until every setting is done.

    Returns:
        the results of the whole study, with the packs that this machine can read.
    """
    options = prepared.sweep.options
    count = options.settings
    assert count is not None  # settled by `plan.prepare`
    opened = study.open_study(options.study, options.storage, folder, options.seed)
    study.require_same(opened, folders.identity(prepared.sweep))
    worker = f"{socket.gethostname()}-{os.getpid()}"
    own = folders.sweep_id(folder)
    if own is not None:  # this process holds the folder's lock, so whoever had it before is dead
        take_back(prepared, opened, own, folder, control)
    built = [each.engine for each in planned]
    while not control.stop and not study.is_over(opened, count):
        for root in study.take_over(opened, count, options.grace_seconds, time.time()):
            number = setting_numbers(opened, count, own)[root]
            control.tell(f"setting {number} is taken over from a worker that is silent")
        claims = study.claim(opened, prepared.sweep.axes, options.batch, count, worker)
        if not claims:
            time.sleep(POLL_SECONDS)
            continue
        study.mark_place(claims, own)
        with study.beating(claims, options.grace_seconds):
            try:
                train_batch(prepared, built, folder, opened, claims, control)
            except Stopped:  # while a program was compiled: nothing of it is trained
                study.give_back(opened, claims)
                break
    return _outcome(prepared, folder, opened, worker, built)


def _outcome(
    prepared: Prepared,
    folder: Path,
    opened: Any,
    worker: str,
    built: list[engines.Engine],
) -> Outcome:
    """The results of the whole study, with the steps and seconds of the packs that can be read."""
    options = prepared.sweep.options
    count = options.settings or 0
    own = folders.sweep_id(folder)
    numbers = setting_numbers(opened, count, own)
    done = {numbers[root]: trial for root, trial in study.finished(opened, count).items()}
    where = {number: packs_told(folder, trial) for number, trial in done.items()}
    refuse_lost_packs(folder, done, where)
    every = {path for paths in where.values() for path in paths}
    results = {path: read_result(path) for path in every if is_finished(path)}
    refuse_other_returns(done, where, results, options.seeds)
    held: dict[Path, set[int]] = {}
    for number, paths in where.items():
        for path in paths:
            held.setdefault(path, set()).add(number)
    settings = {
        number: parameters.values_of(prepared.sweep.axes, trial.params)
        for number, trial in done.items()
    }
    return Outcome(
        settings=settings,
        returns={
            number: trial.user_attrs[study.RETURNS]
            for number, trial in done.items()
            if study.RETURNS in trial.user_attrs
        },
        env_steps=sum(each.env_steps * len(each.members) for each in results.values()),
        train_seconds=sum(each.train_seconds for each in results.values()),
        compile_seconds=sum(engine.compile_seconds for engine in built),
        compilations=[engine.compilations for engine in built],
        more={
            "study": options.study,
            "storage": masked(options.storage or f"sqlite:///{folder / 'study.db'}"),
            "finished": f"{len(done)} of {count} settings",
            "worker": worker,
            "workers": sorted({trial.user_attrs[study.WORKER] for trial in done.values()}),
            "given_up": count - len(done) if study.is_over(opened, count) else 0,
        },
        built=built,
        reruns_winner=_told_last(done, worker, own),
        packs={path: held[path] for path in sorted(held) if (path / PACK).is_file()},
    )


def setting_numbers(opened: Any, count: int, own: str | None) -> dict[int, int]:
    """Root -> the setting's number in tables: its place among the roots.

    So it does not depend on trials that were taken over. In a sweep that version 0.1.0 began, it
    is the root itself.
    """
    known = study.roots(opened.get_trials(deepcopy=False), count)
    return {root: root if own is None else place for place, root in enumerate(known)}


def take_back(
    prepared: Prepared, opened: Any, own: str, folder: Path, control: packs.Control
) -> None:
    """Report the trials of this folder's dead worker that are trained, and let the others wait.

    A death after a new checkpoint does not count towards the limit of take-overs.
    """
    left, options = study.abandoned(opened, own), prepared.sweep.options
    numbers = setting_numbers(opened, options.settings or 0, own)
    found = sorted(folder.glob("packs/*/result.json")) if left else []
    results = {path.parent: read_result(path.parent) for path in found}
    for each in left:
        number = numbers.get(each.root, -1)
        trained = trained_packs(results, number)
        if len(returns := returns_of(trained, number)) == options.seeds:
            _tell_one(opened, number, each, (list(trained), returns), control)
            continue
        control.tell(f"setting {number} was left by a worker that is dead")
        if has_progress(folder, each.trial.datetime_start.timestamp()):
            study.give_back(opened, [each])
        else:
            study.fail(opened, each.trial.number)


def trained_packs(results: Mapping[Path, PackResult], setting: int) -> dict[Path, PackResult]:
    """Packs of a setting, with no seed twice: a narrower device may have trained some again."""
    seeds = {
        path: {member.seed for member in result.members if member.setting == setting}
        for path, result in results.items()
    }
    taken: set[int] = set()
    found = {}
    for path in sorted(seeds, key=lambda path: -len(seeds[path])):
        if seeds[path] and not seeds[path] & taken:
            taken |= seeds[path]
            found[path] = results[path]
    return found


def returns_of(results: Mapping[Path, PackResult], setting: int) -> list[float | None]:
    """Final returns of a setting's seeds, in their order, from the packs that hold them."""
    members = [member for result in results.values() for member in result.members]
    values = [value for result in results.values() for value in result.final_return]
    return packs.by_setting(members, values).get(setting, [])


def has_progress(folder: Path, since: float) -> bool:
    """Check whether a pack of this folder was saved after its start, later than `since`."""
    return any(saved_since(path, since) for path in folder.glob("packs/*"))


def packs_told(folder: Path, trial: Any) -> list[Path]:
    """The packs of a finished trial: in this folder, even if it was moved, or in another's."""
    told = trial.user_attrs.get(study.PACK, [])
    given = [Path(each) for each in ([told] if isinstance(told, str) else told)]
    place = trial.user_attrs.get(study.PLACE)
    is_ours = place is not None and place == folders.sweep_id(folder)
    return [folder / "packs" / each.name for each in given] if is_ours else given


def refuse_lost_packs(
    folder: Path, done: Mapping[int, Any], where: Mapping[int, Sequence[Path]]
) -> None:
    """Refuse a table without the rows of a pack of this folder; others' packs may be elsewhere.

    Args:
        done, where: setting -> its trial, and its packs.

    Raises:
        InputError: the description of a pack is gone.
    """
    pairs = [(number, pack / PACK) for number in done for pack in where[number]]
    for number, path in pairs:
        if path.parent.parent == folder / "packs" and not path.is_file():
            raise InputError(
                f"{str(path)!r} is gone, so the rows of setting {number} cannot be read: restore "
                "it from a copy, or begin the sweep again in another folder with another --study."
            )


def refuse_other_returns(
    done: Mapping[int, Any],
    where: Mapping[int, Sequence[Path]],
    results: Mapping[Path, PackResult],
    num_seeds: int,
) -> None:
    """Refuse returns in the study that are not those of the packs' own results.

    Args:
        done, where: setting -> its trial, and its packs.
        results: of the packs that can be read.

    Raises:
        InputError: one of the two was changed.
    """
    for number, trial in done.items():
        if study.RETURNS not in trial.user_attrs:
            continue
        mine = returns_of({p: results[p] for p in where[number] if p in results}, number)
        if len(mine) == num_seeds and mine != trial.user_attrs[study.RETURNS]:
            told = " and ".join(repr(str(path / "result.json")) for path in where[number])
            raise InputError(
                f"the study's final returns of setting {number} are not those of {told}: one of "
                "the two was changed; restore it from a copy, or begin the sweep again in another "
                "folder with another --study."
            )


def _told_last(done: Mapping[int, Any], worker: str, own: str | None) -> bool:
    """Check whether this worker reported last; that one trains the winner again.

    A worker that was stopped is the same one if it goes on in its folder, whose id is `own`.
    """
    order = sorted(done.values(), key=lambda trial: (trial.datetime_complete, trial.number))
    last = order[-1] if order else None
    if last is None:
        return False
    if own is not None and study.PLACE in last.user_attrs:
        return last.user_attrs[study.PLACE] == own
    return last.user_attrs.get(study.WORKER) == worker


def train_batch(
    prepared: Prepared,
    built: list[engines.Engine],
    folder: Path,
    opened: Any,
    claims: list[TrialClaim],
    control: packs.Control,
) -> None:
    """Train claimed settings, those of one program together."""
    sweep, options = prepared.sweep, prepared.sweep.options
    numbers = setting_numbers(opened, options.settings or 0, folders.sweep_id(folder))
    control.tell(f"training settings {', '.join(str(numbers[each.root]) for each in claims)}")
    runnable = []
    for each in claims:
        try:
            validate(*apply(sweep.config, sweep.hyper, each.values))
            runnable.append(each)
        except InputError as error:  # values that do not go together: no worker can train them
            control.tell(f"setting {numbers[each.root]} cannot run: {error}")
            study.tell(opened, each, None, {})
    groups = compile_groups(sweep.config, sweep.hyper, [each.values for each in runnable])
    for group in groups:
        mine = [runnable[place] for place in group.settings]
        engine = find_engine(built, prepared, group.config, mine[0], group.words)
        settings = {numbers[each.root]: each.values for each in mine}
        seeds = range(options.seed, options.seed + options.seeds)
        members = [Member(setting, seed) for setting in settings for seed in seeds]
        trained = []
        for number in range(0, len(members), engine.width):
            there = members[number : number + engine.width]
            own = pack_folder(folder, there)
            pack = PackJob(
                folder=own,
                run_id=folders.pack_names(folder)(own),
                config=group.config,
                hyper=sweep.hyper,
                settings=settings,
                members=there,
                label=f"settings {', '.join(map(str, settings))}",
            )
            result = packs.train_pack(engine, pack, options, control)
            if result is None:
                study.give_back(opened, claims)
                return
            trained.append((pack, result))
        _tell_all(opened, dict(zip(settings, mine, strict=True)), trained, control)


def pack_folder(folder: Path, members: Sequence[Member]) -> Path:
    """The folder of these members, the same for a batch that is claimed again."""
    digest = checksum({"members": [list(member) for member in members]})
    return folder / "packs" / f"{members[0].setting:05d}-{digest[:8]}"


def _tell_all(
    opened: Any,
    claims: Mapping[int, TrialClaim],  # by setting
    trained: list[tuple[PackJob, PackResult]],
    control: packs.Control,
) -> None:
    results = {work.folder: result for work, result in trained}
    for setting, each in claims.items():
        mine = trained_packs(results, setting)
        _tell_one(opened, setting, each, (list(mine), returns_of(mine, setting)), control)


def _tell_one(
    opened: Any,
    setting: int,
    each: TrialClaim,
    result: tuple[Sequence[Path], list[float | None]],
    control: packs.Control,
) -> None:
    """Report a setting's returns, and the packs that hold them, to the study.

    A setting with a failed seed scores -inf: a trial that is reported as failed would teach the
    sampler nothing, and it would go on to draw from there.
    """
    paths, returns = [str(path.resolve()) for path in result[0]], result[1]
    facts = {study.RETURNS: returns, study.PACK: paths if len(paths) > 1 else paths[0]}
    if not study.tell(opened, each, rules.score(returns), facts):
        control.tell(f"setting {setting} was taken over: this result does not count")


def find_engine(
    built: list[engines.Engine], prepared: Prepared, config: Any, first: TrialClaim, words: str
) -> engines.Engine:
    """The compiled program of a group, made when the first of its settings is asked for."""
    for engine in built:
        if engine.config == config:
            return engine
    options = prepared.sweep.options
    hyper = longest_to_come(prepared, config, first.values)
    built.append(engines.fastest(config, hyper, options.batch * options.seeds, options, words))
    return built[-1]
