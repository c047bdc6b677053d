"""Environments with one fault or oddity each: the right answer, or one sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from case_folder import FAST, ONCE, Shell

# NumPy's warnings are errors.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error::RuntimeWarning")]

Enter = Callable[[str], Shell]


def test_numbers_outside_a_discrete_space_are_an_error_of_doctor(shell: Enter) -> None:
    ppo = shell("discrete-observation-from-one")
    answer = ppo("doctor", "env:FromOne")
    assert answer.code == 1
    assert "error: observations from 3 to 5 lie outside the declared Discrete space" in answer.out
    assert "lie outside the declared Discrete space" in ppo.train("FromOne", *ONCE).err


def test_a_one_hot_row_of_a_discrete_space_is_refused(shell: Enter) -> None:
    answer = shell("discrete-observation-from-one").train("OneHotAlready", *ONCE)
    assert answer.is_refused("declares the observations Discrete(5) and returns float32 of shape")
    assert "return one whole number, or declare a Box" in answer.err


def test_a_forgotten_time_limit_is_told(shell: Enter) -> None:
    ppo = shell("forgotten-time-limit")
    found = "every episode is cut after ONE step by the time limit"
    assert f"warning: {found}" in ppo("doctor", "env:Corridor").out
    assert f"warning: {found}" in ppo.train("Corridor", *ONCE).err
    set_to = ("--env.max_steps_in_episode", 50)
    answer = ppo.train("Corridor", *set_to, *FAST, "--json", out="longer")
    assert found not in answer.err
    assert answer.returns == [1.0]


@pytest.mark.parametrize("env, is_turned", [("Lamp", False), ("ChannelsFirst", True)])
def test_pictures_of_bytes_are_told_and_learnt(shell: Enter, env: str, is_turned: bool) -> None:
    ppo = shell("image-bytes")
    doctor = ppo("doctor", f"env:{env}")
    assert doctor.code == 0
    assert "bytes that reach 255, unscaled" in doctor.out
    assert ("channels, height" in doctor.out) == is_turned
    answer = ppo.train(env, *FAST, "--total-env-steps", 4096, "--json")
    assert ("channels, height" in answer.err) == is_turned
    assert "unscaled" not in answer.err  # a built-in network divides them by 255
    assert answer.returns == [1.0]


@pytest.mark.parametrize("env", ["UnitBox", "NoLimit"])
def test_an_everyday_environment_trains_without_a_warning(shell: Enter, env: str) -> None:
    answer = shell("near-misses").train(env, *ONCE)
    assert answer.code == 0
    assert "arning" not in answer.err


@pytest.mark.parametrize(
    "env, words",
    [
        ("GymnasiumSpaces", "gymnasium's own Discrete(2): write gymnax.environments.spaces"),
        ("MethodParams", "default_params is a method"),
        ("SixValues", "step_env returns 6 values and must return 5"),
        ("TextParams", "parameter mode='easy', which is a text"),
        ("RawKey", "takes its key apart as if it were two numbers"),
        ("DictState", "state, a dict, has no field `time`"),
        ("ListObservation", "observation of type list; return one array"),
        ("RewardNone", "reward of shape (2,); return one number"),
        ("NotDeclared", "declares observations of shape (7,) and returns them of shape (1,)"),
    ],
)
def test_a_slip_is_named(shell: Enter, env: str, words: str) -> None:
    ppo = shell("near-misses")
    assert ppo.train(env, *ONCE).is_refused(words)
    assert ppo("doctor", f"env:{env}").is_refused(words)


@pytest.mark.parametrize(
    "env",
    [
        "Scalar",
        "Double",
        "Whole",
        "WholeBox",
        "Matrix",
        "Point",
        "Fixed",
        "HalfOpen",
        "Many",
        "InfoOk",
    ],
)
def test_an_odd_shape_trains(shell: Enter, env: str) -> None:
    answer = shell("odd-shapes").train(env, *ONCE)
    assert answer.code == 0
    assert "arning" not in answer.err


@pytest.mark.parametrize(
    "env, words",
    [
        ("Empty", "observations of shape (0,), which hold no number"),
        ("Swapped", "whose lower bound lies above the upper one"),
        ("NotANumber", "whose bound is NaN"),
        ("RewardRow", "info['note'] is a text"),
    ],
)
def test_a_shape_that_cannot_be_trained_is_refused(shell: Enter, env: str, words: str) -> None:
    assert shell("odd-shapes").train(env, *ONCE).is_refused(words)


def test_a_box_off_the_first_actions_is_told(shell: Enter) -> None:
    ppo = shell("offcentre-box")
    found = "lie outside the bounds [100, 200] of action 0"
    assert found in ppo("doctor", "env:Dial").out
    assert found in ppo.train("Dial", *ONCE).err
    remedy = ppo.train("Dial", *FAST, "--policy", "tanh-gaussian", "--json", out="squashed")
    assert found not in remedy.err
    (score,) = remedy.returns
    assert score is not None
    assert score > -0.05


def test_an_environment_that_resets_itself_is_an_error_of_doctor(shell: Enter) -> None:
    answer = shell("resets-itself")("doctor", "env:Auto")
    assert answer.code == 1
    assert "error: it resets by itself" in answer.out


def test_a_static_parameter_is_refused(shell: Enter) -> None:
    ppo = shell("static-param")
    assert ppo.train("Ring", "--env.n", 8, *ONCE).is_refused("n is static")
    assert ppo("sweep", "env:Ring", "env.n=5,8", *ONCE).is_refused("n is static")
    assert not list(ppo.runs.iterdir())
    assert ppo.train("Ring", *ONCE).code == 0
