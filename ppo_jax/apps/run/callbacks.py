"""Functions of the user's that hear every logged row of a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.values import short
from ppo_jax.distributed import door, hosts, population
from ppo_jax.distributed.layout import Layout
from ppo_jax.rl.types import TrainState

Row: TypeAlias = "dict[str, Any]"
STATE = "state"  # the first host's word to the others: its callback asks for the state


class Moment(NamedTuple):
    """The run at a logged row, for a callback that takes a second argument."""

    config: Config
    hyper: Hyper  # as arrays
    folder: Path
    iteration: int  # iterations so far
    env_steps: int  # environment steps of one seed so far
    layout: Layout
    padded_state: TrainState  # as it lies on the devices, see `state`

    @property
    def state(self) -> TrainState:
        """Parameters, optimiser, normalisers and environments, each leaf [S, ...].

        The next iteration takes the memory of these arrays: copy what is needed
        after the call. On several hosts they are gathered here as NumPy arrays.
        """
        if hosts.count() == 1:
            return population.trimmed(self.padded_state, self.layout)
        hosts.from_first(STATE)
        return population.trimmed(door.fetch(self.padded_state), self.layout)


Answer: TypeAlias = "bool | np.bool_ | jax.Array | None"
Callback: TypeAlias = "Callable[[Row], Answer] | Callable[[Row, Moment], Answer]"
Heard: TypeAlias = "Callable[[Row, Moment], object]"  # a callback that takes both


def called(callbacks: Sequence[Heard], row: Row, moment: Moment) -> bool:
    """Call the callbacks, on the first host only; True if one of them ends the run.

    The other hosts wait for the answer, and give their part of the state if one asks for it.
    """
    if hosts.is_first():
        return hosts.from_first(any([_is_true(callback(row, moment)) for callback in callbacks]))
    while (word := hosts.from_first(None)) == STATE:
        door.give(moment.padded_state)
    return word


def _is_true(answer: object) -> bool:
    """True, also as NumPy's or jax's; nothing else, such as the length of a list, ends a run."""
    is_truth = isinstance(answer, bool | np.bool_ | np.ndarray | jax.Array)
    return is_truth and np.shape(answer) == () and np.asarray(answer).dtype == bool and bool(answer)


def as_callbacks(given: Callback | Iterable[Callback]) -> Sequence[Heard]:
    """One function or several as a tuple of functions of a row and a moment.

    Raises:
        InputError: something that is no function, or a function of another number of arguments.
    """
    if callable(given):
        given = (given,)
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"callbacks={short(given)} must be a function, or a list of functions.")
    return tuple(_heard(callback) for callback in given)


def _heard(callback: Any) -> Heard:
    if not callable(callback):
        raise InputError(
            f"callbacks holds {short(callback)}, which is no function: give functions that take a "
            "row."
        )
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # a function that is written in C
        return lambda row, moment: callback(row)
    if _takes(signature, 1):
        return lambda row, moment: callback(row)
    if _takes(signature, 2):
        return callback
    name = getattr(callback, "__name__", short(callback))
    raise InputError(
        f"The callback {name}{signature} cannot be called: it must take the row, or the row and "
        "the moment."
    )


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True
