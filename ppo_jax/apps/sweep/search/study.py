"""An Optuna study that several workers share: claim settings, beat while training, take over.

Everything is in the study's storage, so a worker may die at any moment. The first N trials that no
one took over from another are the sweep's settings ("roots"). A trial whose worker has been silent
for too long fails, and a new trial of the same root waits for the next worker. Rare races make a
trial too many (beyond the N, or a second one of a root). The worker that got it fails it before it
trains.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ppo_jax.apps.sweep.axes import Axis, Values
from ppo_jax.apps.sweep.search import storages
from ppo_jax.apps.sweep.search.parameters import distributions, load, values_of
from ppo_jax.config import layers
from ppo_jax.config.errors import InputError

if TYPE_CHECKING:
    import optuna  # pyright: ignore[reportMissingImports]

ROOT, BEAT, WORKER, VOID, DONE = "root", "heartbeat", "worker", "void", "done"
PLACE = "place"  # id of the sweep folder in which a trial is trained
RETURNS, PACK = "final_return", "pack"  # several packs are a list
ATTEMPTS = 6  # to open a storage that other workers make at the same time
_RACES = ("OperationalError", "IntegrityError", "ProgrammingError", "RuntimeError")
MAX_TAKEOVERS = 3  # a setting on which so many workers died is left alone, and reported


class TrialClaim(NamedTuple):
    """A setting that this worker has to train."""

    trial: Any  # optuna's
    root: int  # the setting's number in the sweep
    values: Values


def open_study(name: str, storage: str | None, folder: Path, seed: int) -> optuna.Study:
    """The study of that name, made if it does not exist.

    `storage` is a database's URL or a journal's FILE.log; None is a SQLite file in `folder`.
    """
    optuna = load()
    sampler = _sampler(optuna, seed)
    place = storage or f"sqlite:///{folder / 'study.db'}"
    for attempt in itertools.count(1):
        try:
            kept = storages.open_storage(optuna, place)
            return optuna.create_study(
                study_name=name,
                storage=kept,
                sampler=sampler,
                direction="maximize",
                load_if_exists=True,
            )
        except Exception as error:  # whatever a database's driver throws
            # Workers that start together all try to make the tables; all but one fail.
            if attempt < ATTEMPTS and type(error).__name__ in _RACES:
                time.sleep(0.5 * attempt)
                continue
            raise storages.refusal(place, error) from error
    raise AssertionError("unreachable: the loop returns or raises")


def _sampler(optuna: Any, seed: int) -> Any:
    """TPE whose draw of a setting depends on the seed, its place and the study's content alone.

    So a study that is opened again goes on as if it had never been closed, and two workers never
    draw the same numbers.
    """

    class Repeatable(optuna.samplers.TPESampler):
        def __init__(self, place: int) -> None:
            drawn = np.random.SeedSequence((seed, place)).generate_state(1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                super().__init__(multivariate=True, constant_liar=True, seed=int(drawn[0]))

        def before_trial(self, study: Any, trial: Any) -> None:
            trials = study.get_trials(deepcopy=False)
            known = roots(trials, len(trials))
            # A sampler takes its seed only when it is made, so each setting gets a new one.
            self.__init__(sum(number < trial.number for number in known))
            super().before_trial(study, trial)

    return Repeatable(0)


def require_same(study: optuna.Study, description: Mapping[str, Any]) -> None:
    """Refuse to join a study of another sweep; the sentence says what differs."""
    found = study.user_attrs.get("sweep")
    if found is None:
        study.set_user_attr("sweep", dict(description))
        return
    found = layers.with_new_fields(found)
    names = [name for name in description if description[name] != found.get(name)]
    if names:
        raise InputError(
            f"study={study.study_name!r} belongs to another sweep ({names[0]} is "
            f"{found.get(names[0])} there and {description[names[0]]} here): join with the same "
            "words, or name another --study."
        )


def root_of(trial: Any) -> int:
    """The setting that a trial is about: its own number, or that of the trial it took over."""
    return int(trial.user_attrs.get(ROOT, trial.number))


def is_done(trial: Any) -> bool:
    """Check whether a trial has the final result of its setting."""
    return trial.state.name == "COMPLETE" or bool(trial.user_attrs.get(DONE))


def roots(trials: Sequence[Any], count: int) -> list[int]:
    """The numbers of the sweep's settings: of the first `count` trials that took over none."""
    return sorted(trial.number for trial in trials if ROOT not in trial.user_attrs)[:count]


def families(trials: Sequence[Any], count: int) -> dict[int, list[Any]]:
    """The trials of each of the sweep's settings, by its root, in one pass over all trials."""
    found: dict[int, list[Any]] = {root: [] for root in roots(trials, count)}
    for trial in trials:
        if (root := root_of(trial)) in found:
            found[root].append(trial)
    return found


def void_reason(trials: Sequence[Any], number: int, count: int) -> str | None:
    """The reason not to train a trial that was just claimed, or None.

    The answer depends on numbers alone, so that of two workers exactly one goes on.
    """
    mine = next(trial for trial in trials if trial.number == number)
    root = root_of(mine)
    if root not in roots(trials, count):
        return "surplus"
    for other in trials:
        if other.number != number and root_of(other) == root:
            is_live = other.state.name in ("RUNNING", "WAITING") and other.number < number
            if is_live or is_done(other):
                return "duplicate"
    return None


def claim(
    study: optuna.Study, axes: Sequence[Axis], batch: int, count: int, worker: str
) -> list[TrialClaim]:
    """Up to `batch` settings that nobody else trains.

    Settings that wait to be taken over are not mixed with new ones, whose draw must know their
    results: so a study that was killed draws what one without a kill draws.
    """
    taken: list[TrialClaim] = []
    wanted = distributions(axes)
    takes_over = _has_waiting(study)
    while len(taken) < batch and _is_open(study, count):
        if takes_over and not _has_waiting(study):
            break
        trial = study.ask(wanted)
        trial.set_user_attr(WORKER, worker)
        trial.set_user_attr(BEAT, time.time())
        trials = study.get_trials(deepcopy=False)
        reason = void_reason(trials, trial.number, count)
        if reason is not None:
            trial.set_user_attr(VOID, reason)
            fail(study, trial.number)
            continue
        root = root_of(next(each for each in trials if each.number == trial.number))
        taken.append(TrialClaim(trial, root, values_of(axes, trial.params)))
    return taken


def _is_open(study: optuna.Study, count: int) -> bool:
    """Check whether a setting waits to be begun or taken over."""
    trials = study.get_trials(deepcopy=False)
    return _has_waiting(study) or len(roots(trials, count)) < count


def _has_waiting(study: optuna.Study) -> bool:
    return any(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False))


def take_over(
    study: optuna.Study,
    count: int,
    grace_seconds: float,
    now: float,
    is_held: Callable[[int], bool] = lambda root: False,
    has_progress: Callable[[int, float], bool] = lambda root, since: False,
) -> list[int]:
    """Fail trials of silent workers, and let every setting that nobody trains wait again.

    Args:
        is_held: root -> True if a process still writes there, silent or not: it is left alone.
        has_progress: (root, time) -> True if more was saved since. Such a death does not count
            towards `MAX_TAKEOVERS`.

    Returns:
        the settings (roots) that wait again.
    """
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name != "RUNNING" or now - _last_sign(trial) <= grace_seconds:
            continue
        root = root_of(trial)
        if is_held(root):
            continue
        if has_progress(root, _begun(trial)):
            give_back(study, [_claimed(study, trial)])
        fail(study, trial.number)
    trials = study.get_trials(deepcopy=False)
    again = []
    for root, family in families(trials, count).items():
        if any(is_done(trial) for trial in family) or _is_live(family) or _is_hopeless(family):
            continue
        if is_held(root):
            continue
        first = next(trial for trial in family if trial.number == root)
        study.enqueue_trial(dict(first.params), user_attrs={ROOT: root})
        again.append(root)
    return again


def _last_sign(trial: Any) -> float:
    return max(_begun(trial), float(trial.user_attrs.get(BEAT, 0.0)))


def _begun(trial: Any) -> float:
    return trial.datetime_start.timestamp() if trial.datetime_start else 0.0


def _claimed(study: optuna.Study, trial: Any) -> TrialClaim:
    """The claim of a trial that another process, or an earlier one, has made."""
    handle = load().trial.Trial(study, trial._trial_id)
    return TrialClaim(handle, root_of(trial), dict(trial.params))


def fail(study: optuna.Study, number: int) -> None:
    """Fail a trial unless somebody else was faster."""
    optuna = load()
    with contextlib.suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):
        study.tell(number, state=optuna.trial.TrialState.FAIL)


def mark_place(claims: Sequence[TrialClaim], place: str | None) -> None:
    """Record the folder in which claimed settings are trained."""
    for each in claims:
        each.trial.set_user_attr(PLACE, place)


def abandoned(study: optuna.Study, place: str) -> list[TrialClaim]:
    """The running trials of a folder whose last worker is dead; they need no grace."""
    return [
        _claimed(study, trial)
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "RUNNING" and trial.user_attrs.get(PLACE) == place
    ]


def give_back(study: optuna.Study, claims: Sequence[TrialClaim]) -> None:
    """Leave claimed settings to whoever asks next: this worker stops."""
    for each in claims:
        with contextlib.suppress(Exception):  # somebody else has it already
            each.trial.set_user_attr(VOID, "stopped")
        fail(study, each.trial.number)


def tell(
    study: optuna.Study, each: TrialClaim, score: float | None, facts: Mapping[str, Any]
) -> bool:
    """Report a trained setting's score; None if it failed for good.

    False: the setting was taken over in the meantime, and this result does not count.
    """
    optuna = load()
    try:
        for name, value in facts.items():
            each.trial.set_user_attr(name, value)
        if score is None:
            each.trial.set_user_attr(DONE, True)
            study.tell(each.trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(each.trial, score)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return False
    return True


@contextlib.contextmanager
def beating(claims: Sequence[TrialClaim], grace_seconds: float) -> Iterator[None]:
    """Sign of life for some trials, from a thread of its own, for as long as they are trained."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(grace_seconds / 6.0):
            for each in claims:
                with contextlib.suppress(Exception):  # a storage that is busy: the next beat
                    each.trial.set_user_attr(BEAT, time.time())

    thread = threading.Thread(target=beat, name="study-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def finished(study: optuna.Study, count: int) -> dict[int, Any]:
    """The trial that has the last word on each setting that has one."""
    trials = study.get_trials(deepcopy=False)
    known = set(roots(trials, count))
    found: dict[int, Any] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if root_of(trial) in known and is_done(trial):
            found.setdefault(root_of(trial), trial)
    return found


def is_over(study: optuna.Study, count: int) -> bool:
    """Check whether every setting is finished or given up."""
    trials = study.get_trials(deepcopy=False)
    known = families(trials, count)
    return len(known) == count and all(
        any(is_done(trial) for trial in family) or (not _is_live(family) and _is_hopeless(family))
        for family in known.values()
    )


def _is_live(family: Sequence[Any]) -> bool:
    return any(trial.state.name in ("RUNNING", "WAITING") for trial in family)


def _is_hopeless(family: Sequence[Any]) -> bool:
    return sum(not trial.user_attrs.get(VOID) for trial in family) > MAX_TAKEOVERS
