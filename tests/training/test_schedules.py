"""Schedules: their ends exactly, their middles by hand, and that their values compile nothing."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.training import schedules

# 10 iterations of 4 x 8 = 32 environment steps; the budget of 300 is rounded up to 320.
CONFIG = Config(num_envs=4, rollout_length=8, total_env_steps=300)


def at(schedule: Schedule, progress: float) -> float:
    return float(schedules.value_at(schedule, jnp.float32(progress)))


@pytest.mark.parametrize("cosine", [0.0, 1.0])
@pytest.mark.parametrize("ends", [(3e-4, 0.0), (0.1, 0.7), (1e-3, 1e-7)])
def test_the_ends_are_exact(ends: tuple[float, float], cosine: float) -> None:
    start, end = (float(np.float32(x)) for x in ends)
    assert at(Schedule(start, end, cosine), 0.0) == start
    assert at(Schedule(start, end, cosine), 1.0) == end


def test_linear_and_cosine_between_the_ends() -> None:
    # 2 -> 10: linear at 1/4: 4. Cosine: (1 - cos(pi/4)) / 2 = 0.146447 of the way: 3.171573.
    assert at(Schedule(2.0, 10.0), 0.25) == 4.0
    assert at(Schedule(2.0, 10.0), 0.5) == 6.0
    assert at(Schedule(2.0, 10.0, 1.0), 0.25) == pytest.approx(3.171573, abs=1e-5)
    assert at(Schedule(2.0, 10.0, 1.0), 0.5) == pytest.approx(6.0, abs=1e-5)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("constant", [0.1, 0.5, math.inf])
def test_a_constant_stays_itself_bit_for_bit_and_infinity_too(
    constant: float, progress: float
) -> None:
    number = np.float32(constant)
    assert at(Schedule(number, number, np.float32(0)), progress) == number


def test_resolve_replaces_schedules_and_leaves_numbers_alone() -> None:
    hyper = Hyper(learning_rate=Schedule(1.0, 0.0), gamma=0.9, env={"mass": 2})
    now = schedules.resolve(hyper, jnp.float32(0.25))
    assert float(now.learning_rate) == 0.75
    assert now.gamma == 0.9
    assert isinstance(now.gamma, float)
    assert now.env == {"mass": 2}
    assert isinstance(now.env["mass"], int)


def test_progress_is_zero_before_the_first_iteration_and_never_more_than_one() -> None:
    def of(iteration: int, steps: float = 0.0) -> float:
        hyper = Hyper(schedule_env_steps=steps)
        return float(schedules.progress(CONFIG, hyper, jnp.int32(iteration)))

    assert of(0) == 0.0
    assert of(1) == pytest.approx(0.1)  # 32 of the 320 steps that a run takes
    assert of(9) == pytest.approx(0.9)
    assert of(10) == 1.0
    assert of(1, 64.0) == 0.5
    assert of(2, 64.0) == 1.0
    assert of(7, 64.0) == 1.0


def test_as_arrays_makes_every_number_an_array_of_one_type() -> None:
    hyper = Hyper(
        learning_rate=Schedule(3e-4, 0, 1),
        clip_epsilon=1,
        env={"gravity": 2, "max_steps_in_episode": 200.0},
    )
    arrays = schedules.as_arrays(CONFIG, hyper)
    for name in Hyper.__dataclass_fields__:
        if name not in ("env", "schedule_env_steps"):
            assert isinstance(getattr(arrays, name), Schedule), name
    env = arrays.env
    assert (env["gravity"].dtype, env["max_steps_in_episode"].dtype) == (np.float32, np.int32)
    leaves = jax.tree.leaves(arrays)
    assert len(leaves) == 3 * (len(Hyper.__dataclass_fields__) - 2) + 1 + 2
    assert all(leaf.shape == () and leaf.dtype in (np.float32, np.int32) for leaf in leaves)
    assert sum(leaf.dtype == np.int32 for leaf in leaves) == 1


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_as_arrays_changes_no_value_at_any_time(share: float) -> None:
    """Above all the infinite ones, which disable a feature."""
    hyper = Hyper(learning_rate=Schedule(3e-4, 1e-5), entropy_coef=Schedule(0.1, 0.0, 1.0))
    progress = jnp.float32(share)
    plain = schedules.resolve(hyper, progress)
    arrays = schedules.resolve(schedules.as_arrays(CONFIG, hyper), progress)
    for name in Hyper.__dataclass_fields__:
        if name not in ("env", "schedule_env_steps"):
            expected, found = (np.float32(getattr(x, name)) for x in (plain, arrays))
            assert found == pytest.approx(expected, rel=1e-6), name
    assert math.isinf(arrays.kl_stop)
    assert math.isinf(arrays.value_clip_epsilon)


def test_as_arrays_fills_in_the_length_of_the_schedules() -> None:
    assert schedules.as_arrays(CONFIG, Hyper()).schedule_env_steps == 320.0
    assert schedules.as_arrays(CONFIG, Hyper(schedule_env_steps=96)).schedule_env_steps == 96.0


def test_no_value_compiles_anything_anew() -> None:
    traced = []

    @jax.jit
    def learning_rate(hyper: Hyper, progress: jax.Array) -> jax.Array:
        traced.append(1)
        return schedules.resolve(hyper, progress).learning_rate

    values = (3e-4, 0, 1, Schedule(1.0, 0.0), Schedule(1, 0, 1), np.float64(0.5))
    for value in values:
        hyper = schedules.as_arrays(CONFIG, Hyper(learning_rate=value, kl_stop=value or 0.1))
        learning_rate(hyper, jnp.float32(0.5))
    assert len(traced) == 1


def test_members_of_a_population_may_differ_in_shape_and_ends() -> None:
    hyper = [Hyper(learning_rate=x) for x in (0.5, Schedule(1.0, 0.0), Schedule(1.0, 0.0, 1.0))]
    arrays = [schedules.as_arrays(CONFIG, each) for each in hyper]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *arrays)
    together = jax.vmap(lambda h: schedules.resolve(h, jnp.float32(0.25)).learning_rate)(stacked)
    # The third: 1 - (1 - cos(pi / 4)) / 2 = 0.853553.
    np.testing.assert_allclose(together, [0.5, 0.75, 0.853553], atol=1e-6)
