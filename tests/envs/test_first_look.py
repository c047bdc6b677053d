"""Notices before the training: each by an environment that has the fault, and one that has not."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.envs import first_look, registration
from ppo_jax.envs.interface import Box, Discrete, Environment, MultiDiscrete, ObservationSpace, Raw

FLOAT_MAX = np.finfo(np.float32).max


def box(low: Any, high: Any) -> Box:
    low, high = np.atleast_1d(np.float32(low)), np.atleast_1d(np.float32(high))
    return Box(low.shape, low, high)


@pytest.mark.parametrize(
    "space, std, is_seen",
    [
        (box(100, 200), 1.0, True),
        (box(-200, -100), 1.0, True),
        (box([-1, 5], [1, 6]), 1.0, True),
        (box(100, np.inf), 1.0, True),
        (box(100, 200), 100.0, False),
        # 99% of N(0, 1) lie below 2.326.
        (box(2.32, 9), 1.0, False),
        (box(2.34, 9), 1.0, True),
        # 99% of N(0, 1) lie outside 0 +- 0.01253.
        (box(-0.0126, 0.0126), 1.0, False),
        (box(-0.0125, 0.0125), 1.0, True),
        (box([-1, -1e-3], [1, 1e-3]), 1.0, True),
        (box(50, 60), 1000.0, True),
        (box(-49, 50), 1.0, False),
        (box(-50, 50), 1.0, True),
        (box(-1000, 1000), 1.0, True),
        (box(-1000, 1000), 30.0, False),
        (box(-FLOAT_MAX, FLOAT_MAX), 1.0, False),  # no bounds
        (box(0, FLOAT_MAX), 1.0, False),
        (box(0, np.inf), 1.0, False),
        (box([-1, 5], [1, 5]), 1.0, False),  # nothing to choose there
        (Discrete(2), 1.0, False),
    ],
)
def test_a_box_that_misfits_the_policys_first_actions_is_seen(
    space: Any, std: float, is_seen: bool
) -> None:
    assert (first_look.unsuited_box(space, std) is not None) == is_seen


@pytest.mark.parametrize(
    "space, words",
    [
        (box(100, 200), "100% of them are clipped to the same bound, so nothing can be learnt"),
        (box(-0.01, 0.01), "99% of them are clipped to one bound or the other, so only the choice"),
        (box(-1000, 1000), "which are 2,000 standard deviations apart, so most of the box is"),
    ],
)
def test_each_misfit_has_its_own_words_and_one_remedy(space: Any, words: str) -> None:
    notice = first_look.unsuited_box(space, 1.0)
    assert notice is not None
    assert words in notice.what
    assert "--policy tanh-gaussian" in notice.remedy


def test_the_share_of_clipped_actions_is_the_normal_distributions() -> None:
    draws = np.random.default_rng(0).normal(0, 2, 100_000)
    for bound in (-1.0, 0.0, 3.0):
        share = first_look._share_below(bound, 2.0)
        # 4 standard errors of a share of 100,000 draws are at most 0.0064.
        assert share == pytest.approx(np.mean(draws < bound), abs=0.0064)
    assert first_look._share_below(math.inf, 1.0) == 1.0
    assert first_look._share_below(-math.inf, 1.0) == 0.0


@pytest.mark.parametrize(
    "shape, is_seen",
    [
        *(((4, 8, 8), True), ((3, 84, 84), True), ((1, 5, 5), True), ((8, 8, 4), False)),
        *(((4, 4, 4), False), ((10, 10, 10), False), ((8, 8), False), ((2,), False)),
        ((4, 8, 3), False),
    ],
)
def test_channels_first_are_seen(shape: tuple[int, ...], is_seen: bool) -> None:
    assert (first_look.channels_first(shape) is not None) == is_seen


def test_numbers_outside_a_discrete_space_are_named() -> None:
    space = ObservationSpace((), "int32", 2, 4, True)
    assert first_look.out_of_range(space, jnp.array([2, 3, 4])) is None
    notice = first_look.out_of_range(space, jnp.array([1, 2, 6]))
    assert notice is not None
    assert "from 1 to 6 lie outside the declared Discrete space, 2 to 4" in notice.what


class Limit(NamedTuple):
    max_steps_in_episode: Any = 1


def ending(terminates: bool, space: Any, params: Any = None) -> Environment:
    """Ends after its first step."""

    def reset(key: Any, params: Any) -> Any:
        return jnp.ones((4, 8, 8), jnp.uint8), jnp.int32(0)

    def transition(key: Any, state: Any, action: Any, params: Any) -> Any:
        over = state + 1 >= params.max_steps_in_episode
        ends = jnp.bool_(terminates)
        return reset(key, params)[0], state + 1, 0.0, over & ends, over & ~ends, {}

    declared = ObservationSpace((4, 8, 8), "uint8", 0, 255, False)
    return Environment(
        name="ending",
        reset=reset,
        transition=transition,
        default_params=Limit(),
        observation_shape=(4, 8, 8),
        observation_dtype="uint8",
        action_space=space,
        max_episode_steps=lambda params: int(params.max_steps_in_episode),
        override=lambda params, values: params._replace(**values),
        raw=Raw(declared, lambda key, params: reset(key, params)[0], lambda *given: given),
    )


def seen(environment: Environment, params: Any = None, **given: Any) -> list[str]:
    settings: dict[str, Any] = {
        "policy": "auto",
        "std": 1.0,
        "normalized": False,
        "scaled": False,
        "flagged": True,
        **given,
    }
    params = environment.default_params if params is None else params
    return [notice.what for notice in first_look.notices(environment, params, **settings)]


@pytest.mark.parametrize("space", [Discrete(2), MultiDiscrete((2, 2)), box(-1, 1)])
def test_an_episode_of_one_step_is_told_only_if_the_time_limit_cuts_it(space: Any) -> None:
    cut = ending(False, space)
    assert sum("cut after ONE step" in what for what in seen(cut)) == 1
    assert not any("ONE step" in what for what in seen(cut, Limit(2)))
    assert not any("ONE step" in what for what in seen(ending(True, space)))


def test_bytes_and_their_channels_are_told_unless_they_are_scaled() -> None:
    found = seen(ending(True, Discrete(2)))
    assert [what.split()[0] for what in found] == ["observations", "observations"]
    assert "[4, 8, 8] look like [channels, height, width]" in found[0]
    assert "bytes that reach 255, unscaled" in found[1]
    assert len(seen(ending(True, Discrete(2)), scaled=True)) == 1


def test_the_bounds_of_the_runs_own_parameters_count_and_a_squashed_policy_fills_them() -> None:
    environment = registration.make("MountainCarContinuous-v0")
    assert seen(environment) == []
    params = environment.override(
        environment.default_params, {"min_action": 50.0, "max_action": 60.0}
    )
    (what,) = seen(environment, params)
    assert "lie outside the bounds [50, 60] of action 0" in what
    assert seen(environment, params, policy="tanh-gaussian") == []
    assert seen(environment, params, std=100.0) == []
    (what,) = seen(environment, std=0.01)
    assert "hardly fill the bounds [-1, 1] of action 0" in what
    assert seen(environment, std=0.01, policy="gsde") == []  # its actions sum over the features


def test_nothing_is_told_of_gymnaxs_own() -> None:
    discrete = ("CartPole-v1", "FrozenLake-misc", "DeepSea-bsuite")
    for name in (*discrete, "Pendulum-v1", "PointRobot-misc", "Reacher-misc", "Swimmer-misc"):
        assert seen(registration.make(name)) == []


def test_a_run_is_told_the_notices_of_its_own_settings() -> None:
    environment = registration.make("MountainCarContinuous-v0")
    config = Config(env="MountainCarContinuous-v0")
    far = environment.override(environment.default_params, {"min_action": 50, "max_action": 60})
    hypers = (Hyper(), Hyper(log_std_init=5.0), Hyper(log_std_init=Schedule(5.0, 0.0)))
    lines = [first_look.warnings(config, hyper, environment, far) for hyper in hypers]
    assert [len(each) for each in lines] == [1, 0, 0]
    assert lines[0][0].startswith("warning: the policy's first actions, of mean 0 and standard")
    assert lines[0][0].endswith("which fills the box")


@pytest.mark.parametrize(
    "steps, num_envs, limit, is_seen",
    [
        (2**25, 1, None, True),
        (2**25, 2, None, False),  # 2^24 steps of each
        (2**25, 1, 10**6, False),
        (2**25, 1, 10**9, True),
    ],
)
def test_returns_that_float32_cannot_sum_are_told(
    steps: int, num_envs: int, limit: int | None, is_seen: bool
) -> None:
    environment = registration.make("CartPole-v1")._replace(max_episode_steps=limit)
    config = Config(total_env_steps=steps, num_envs=num_envs)
    found = first_look.warnings(config, Hyper(), environment, environment.default_params)
    assert any("the float32 sum of its rewards" in line for line in found) == is_seen
