"""Units that any number of identical processes share: each claims one after the other.

The claims are trials of an Optuna study: its n-th setting ("root") is the n-th unit. A worker's
signs of life are attributes of the trial, as not every storage has heartbeats of its own. All
workers share the sweep's folder, so a unit of a dead worker goes on from its checkpoint. The
storage decides who claims; a unit's lock and its result on disk decide what is trained.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep import pack_files
from ppo_jax.apps.sweep.crew.units import Units
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.pack import Control
from ppo_jax.apps.sweep.search import study
from ppo_jax.apps.sweep.search.study import TrialClaim
from ppo_jax.config.errors import InputError, RunError
from ppo_jax.runtime.signals import Stopped
from ppo_jax.storage import lock
from ppo_jax.storage.lock import LockedError

JOURNAL = "study.log"  # the storage, if no other is named
POLL_SECONDS = 1.0
SEEN_SECONDS = (
    60.0  # until another host's files are seen: a shared disk may have old names in store
)


def train_shared(units: Units, sweep: Sweep, folder: Path, control: Control) -> None:
    """Claim and train units until all are finished, by whichever worker.

    Raises:
        Stopped: a signal; the unit in work is saved and given back.
        RunError: the study is over and a unit is not finished.
        InputError: the storage cannot be used.
    """
    options, count = sweep.options, len(units.folders)
    opened = open_claims(sweep, folder)
    worker = f"{socket.gethostname()}-{os.getpid()}"

    def number_of(root: int) -> int | None:
        known = study.roots(opened.get_trials(deepcopy=False), count)
        return known.index(root) if root in known else None  # a surplus trial has no unit

    def is_held(root: int) -> bool:
        number = number_of(root)
        return number is not None and is_written(units.folders[number])

    def has_progress(root: int, since: float) -> bool:
        number = number_of(root)
        return number is not None and pack_files.saved_since(units.folders[number], since)

    while not study.is_over(opened, count):
        control.stop.check()
        grace, now = options.grace_seconds, time.time()
        for root in study.take_over(opened, count, grace, now, is_held, has_progress):
            control.tell(f"pack {number_of(root)} has lost its worker and waits for another")
        claims = study.claim(opened, (), 1, count, worker)
        if not claims:
            time.sleep(POLL_SECONDS)
        for each in claims:
            number = number_of(each.root)
            assert number is not None  # `study.claim` takes no surplus trial
            train_claimed(units, number, opened, each, grace, control)
    until = time.monotonic() + SEEN_SECONDS
    while left := [units.folders[n] for n in range(count) if not units.is_finished(n)]:
        control.stop.check()
        if time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            continue
        raise RunError(
            f"{len(left)} of {count} packs are not finished and have no worker (first "
            f"{str(left[0])!r}), because {study.MAX_TAKEOVERS + 1} workers ended in each of them "
            "or its files were removed: find the cause, then give --study another name, which "
            "begins the claims anew and keeps what is finished."
        )


def open_claims(sweep: Sweep, folder: Path) -> Any:
    """The study with the claims of this sweep; its name holds the sweep's id.

    Raises:
        InputError: the storage cannot be used, or the sweep has no id.
    """
    own = folders.sweep_id(folder)
    if own is None:
        raise InputError(
            "version 0.1.0 began this sweep, so its folder names no id that workers could share: "
            "go on without --join."
        )
    options = sweep.options
    storage = options.storage or str(folder / JOURNAL)
    return study.open_study(f"{options.study}-{own}", storage, folder, options.seed)


def train_claimed(
    units: Units,
    number: int,
    opened: Any,
    claim: TrialClaim,
    grace_seconds: float,
    control: Control,
) -> None:
    """Train a claimed unit and report it, or give it back."""
    is_done = False
    with given_back(opened, claim, lambda: is_done), study.beating([claim], grace_seconds):
        try:
            is_done = units.train(number)
        except LockedError as error:  # somebody trains it without a claim
            control.tell(str(error))
            time.sleep(POLL_SECONDS)
    if is_done:
        study.tell(opened, claim, 0.0, {})  # too late is as good: the result is on the disk


@contextmanager
def given_back(opened: Any, claim: TrialClaim, is_done: Callable[[], bool]) -> Iterator[None]:
    """Leave a claim to others if the body does not finish it; an error counts against it."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, Stopped):
            study.fail(opened, claim.trial.number)
        raise
    finally:
        if not is_done():
            study.give_back(opened, [claim])  # no more than `fail` has done before


def is_written(folder: Path) -> bool:
    """Check whether a process holds a folder's lock."""
    try:
        lock.refuse_if_held(folder)
    except LockedError:
        return True
    return False


@contextmanager
def alone(folder: Path, control: Control) -> Iterator[None]:
    """Wait until no other worker holds the sweep's lock, then hold it.

    Raises:
        Stopped: a signal came first.
    """
    with ExitStack() as stack:
        while True:
            control.stop.check()
            try:
                stack.enter_context(lock.held(folder))
                break
            except LockedError:
                time.sleep(POLL_SECONDS)
        yield
