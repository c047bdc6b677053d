"""Settings that a suite fixes when it makes an environment: a refusal has a call that works."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.envs.conform import arguments, conform, with_time_limit
from ppo_jax.envs.interface import Discrete, Environment
from ppo_jax.training import schedules


def made(
    size: int = 4,
    speed: float = 0.5,
    physics: str = "exact",
    ends: tuple[float, float] = (0.0, 1.0),
    is_wide: bool = False,
    opponent: Any = len,
    **parts: Any,
) -> Environment:
    """An environment that needs 3 steps, made as an adapter of a suite makes it."""
    del size, speed, physics, ends, is_wide, opponent
    bare = conform(
        "mine/walk-v0",
        lambda key, params: (jnp.zeros(1), 0),
        lambda key, age, action, params: (jnp.ones(1), age + 1, 1.0, age >= 2, False, {}),
        params=(),
        action_space=Discrete(2),
        max_episode_steps=None,
        fixed=fixed,
    )
    return with_time_limit(bare, 5, fixed) if parts.get("is_timed") else bare


def fixed() -> dict[str, Any]:
    return {**arguments(made), "camera.width": 64}


def refusal(name: str, value: Any, **parts: Any) -> str:
    environment = made(**parts)
    with pytest.raises(InputError) as refused:
        environment.override(environment.default_params, {name: value})
    return str(refused.value)


@pytest.mark.parametrize(
    "name, value, argument",
    [
        ("size", 6, "size=6"),
        ("size", np.int64(6), "size=6"),
        ("size", 6.5, "size=4"),
        ("size", True, "size=4"),
        ("size", "large", "size=4"),
        ("speed", 2, "speed=2"),
        ("speed", "fast", "speed=0.5"),
        ("physics", "coarse", "physics='coarse'"),
        ("physics", 3, "physics='exact'"),
        ("ends", [0, 2.5], "ends=[0, 2.5]"),
        ("ends", 2, "ends=(0.0, 1.0)"),
        ("ends", [1, 2, 3], "ends=(0.0, 1.0)"),
        ("is_wide", True, "is_wide=True"),
        ("is_wide", 1, "is_wide=False"),
        ("opponent", "random", "opponent=opponent"),
        ("camera", {"width": 8}, "**{'camera.width': 8}"),
        ("camera.width", "wide", "**{'camera.width': 64}"),
    ],
)
def test_a_refusal_has_the_value_if_it_is_of_the_right_kind_and_else_an_example(
    name: str, value: Any, argument: str
) -> None:
    for is_timed in (False, True):
        found = refusal(name, value, is_timed=is_timed)
        assert "mine fixes it when mine/walk-v0 is made; name a factory module:function" in found
        assert found.endswith(f"ppo_jax.envs.suites.mine.make('walk-v0', {argument}).")


def test_a_name_that_the_suite_does_not_take_is_a_plain_refusal() -> None:
    assert refusal("sise", 6) == "'sise' is no parameter of this environment: it has none."
    assert refusal("sise", 6, is_timed=True) == (
        "'sise' is no parameter of this environment: it has max_steps_in_episode."
    )
    # `parts` takes any name and uses one
    assert "is no parameter" in refusal("parts", 6)


def test_a_run_is_refused_in_the_same_words() -> None:
    with pytest.raises(InputError, match=r"make\('walk-v0', physics='coarse'\)"):
        schedules.as_arrays(Config(env=made()), Hyper(env={"physics": "coarse"}))
