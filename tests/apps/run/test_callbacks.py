"""Callbacks: one function or several, of a row or of a row and a moment."""

from __future__ import annotations

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.apps.run.callbacks import as_callbacks, called
from ppo_jax.apps.run.runner import run
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError


def test_one_function_is_a_list_of_one() -> None:
    heard: list[Any] = []
    for given in (
        heard.append,
        [heard.append],
        lambda row: heard.append(row),
        iter([heard.append]),
    ):
        callbacks: Any = as_callbacks(cast("Any", given))
        (callback,) = callbacks
        callback({"env_steps": 1}, "moment")
    assert heard == [{"env_steps": 1}] * 4


def test_a_function_of_two_arguments_gets_the_moment() -> None:
    def both(row: Any, moment: Any) -> bool:
        return row + moment == 3

    def either(row: Any, moment: Any = 5) -> int:
        return row + moment

    callbacks: Any = as_callbacks([both, either])
    first, second = callbacks
    assert first(1, 2) is True
    assert second(1, 2) == 6


@pytest.mark.parametrize(
    "answer, ends",
    [
        *((truth, True) for truth in (True, np.True_, np.array(True), jnp.array(True))),
        *((truth, False) for truth in (False, np.False_, np.array(False), jnp.array(False))),
        *((other, False) for other in (None, 1, 0.5, "yes", [True], np.int64(1), np.array([True]))),
    ],
)
def test_a_truth_of_numpy_or_jax_ends_a_run_as_pythons_does(answer: Any, ends: bool) -> None:
    given: Any = {}, "moment"
    assert called(as_callbacks(lambda row: answer), *given) is ends
    assert called(as_callbacks([lambda row: None, lambda row: answer]), *given) is ends


@pytest.mark.parametrize(
    "given, words",
    [
        (5, "callbacks=5 must be a function, or a list of functions"),
        ("log", "callbacks='log' must be a function"),
        ([print, 5], "callbacks holds 5, which is no function"),
        (lambda: True, r"must take the row, or the row and the moment"),
        ([lambda a, b, c: True], r"must take the row, or the row and the moment"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_runs(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(Config(), Hyper(), callbacks=given)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: run(Hyper(), Config()), "A Config and a Hyper are wanted in this order"),
        (lambda: run(Config(), Hyper(), n_seeds=4), "no option of a run. Its name here: seeds"),
        (lambda: run(Config(), Hyper(), gamma=0.9), "It is a field of Hyper"),
        (lambda: Config(n_envs=4), "Config has no 'n_envs'. Its name here: num_envs"),  # type: ignore[call-arg]
        (lambda: Config(learning_rate=4), "It is a field of Hyper"),  # type: ignore[call-arg]
        (lambda: Hyper(num_env=4), "Hyper has no 'num_env'"),  # type: ignore[call-arg]
    ],
)
def test_the_command_lines_sentences_come_from_python_too(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
