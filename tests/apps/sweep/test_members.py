"""Each member of a population of settings x seeds is the run of its setting and seed alone.

One `map` layout on one device: there the members' bits are those of a run of one seed, because each
is computed by the same instructions at the same width. (On two devices XLA's CPU backend sums in
another order than on one, see `parallel`.)
"""

from __future__ import annotations

import dataclasses
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny import CONFIG, HYPER

from ppo_jax.apps.sweep import driver, engine
from ppo_jax.apps.sweep.axes import apply, parse
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.groups import Member
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import population, programs
from ppo_jax.training import schedules

pytestmark = pytest.mark.slow


@lru_cache
def single_chunk() -> tuple[Any, layouts.Layout]:
    layout = layouts.Layout("map", tuple(jax.local_devices()[:1]), 1)
    return programs.make_chunk(CONFIG, layout), layout


def alone(config: Config, hyper: Hyper, seed: int, iterations: int) -> tuple[Any, dict]:
    """One seed of one setting by itself, numbers shared by all (one) members, on one device."""
    chunk, layout = single_chunk()
    arrays = schedules.as_arrays(config, hyper)
    state = population.init_population(config, arrays, seed, layout)
    state, rows = chunk(arrays, state, np.int32(iterations))
    return state, {name: np.asarray(value)[0, :iterations] for name, value in rows.items()}


def bits(state: Any, member: int) -> list[np.ndarray]:
    def data(leaf: jax.Array) -> np.ndarray:
        is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)[member]

    return [data(leaf) for leaf in jax.tree.leaves(state)]


SETTINGS = {
    0: {"learning_rate": 0.01, "gamma": 0.9, "env.speed": 0.5, "log_std_init": 0.0},
    1: {"learning_rate": Schedule(0.1, 0.0), "gamma": 0.5, "env.speed": 0.25, "log_std_init": 1.0},
    2: {"learning_rate": 0.03, "gamma": 0.99, "env.speed": 0.6, "log_std_init": 0.0},
}


def trained(layout: str, iterations: int) -> tuple[Any, dict, list[Member]]:
    """3 settings x 2 seeds and what fills up the devices, after some iterations."""
    options = SweepOptions(layout=layout, seeds=2, devices=1)
    built = engine.build(CONFIG, apply(CONFIG, HYPER, SETTINGS[0])[1], 6, options, "it")
    members = [Member(setting, 5 + seed) for setting in SETTINGS for seed in range(2)]
    hypers = engine.hypers_of(CONFIG, HYPER, SETTINGS, members)
    hyper = engine.stacked(CONFIG, hypers, built.layout)
    state = engine.start(built, hyper, [member.seed for member in members])
    state, rows = engine.advance(built, hyper, state, iterations)
    return state, rows, members


def test_each_member_is_bit_for_bit_the_run_of_its_setting_and_seed_alone() -> None:
    state, rows, members = trained("map", CONFIG.num_iterations)
    for place, member in enumerate(members):
        hyper = apply(CONFIG, HYPER, SETTINGS[member.setting])[1]
        single, single_rows = alone(CONFIG, hyper, member.seed, CONFIG.num_iterations)
        for mine, other in zip(bits(state, place), bits(single, 0), strict=True):
            np.testing.assert_array_equal(mine, other)
        for name, value in single_rows.items():
            np.testing.assert_array_equal(rows[name][place], value)


def test_side_by_side_a_member_is_the_run_alone_to_rounding() -> None:
    # Products of matrices of another width are summed in another order, and each update amplifies
    # the difference: 2 updates of 2 epochs x 2 minibatches stay within 1e-4 of the parameters.
    state, _, members = trained("vmap", 2)
    for place, member in enumerate(members):
        hyper = apply(CONFIG, HYPER, SETTINGS[member.setting])[1]
        single, _ = alone(CONFIG, hyper, member.seed, 2)
        for mine, other in zip(
            jax.tree.leaves(state.params), jax.tree.leaves(single.params), strict=True
        ):
            np.testing.assert_allclose(mine[place], other[0], rtol=1e-4, atol=1e-4)


def test_a_sweep_over_every_number_at_once_compiles_one_program_a_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [
        *("learning_rate=1e-4..1e-2:log", "gamma=0.5..0.99", "gae_lambda=0.5..1"),
        *("clip_epsilon=0.1..0.3", "clip_epsilon_high=0,0.3", "dual_clip=3,inf"),
        *("value_clip_epsilon=0.2,inf", "value_coef=0.2..1", "entropy_coef=0..0.01"),
        *("max_grad_norm=0.5,inf", "adam_epsilon=1e-8..1e-5:log", "kl_coef=0.5..2"),
        *("kl_target=0.01,inf", "kl_lr_target=0.01,inf", "kl_stop=0.05,inf"),
        *("trust_region_kl=0.01..0.1", "fisher_damping=0.01..0.1", "log_std_init=-1..0"),
        *("schedule_env_steps=0,100", "env.speed=0.2..0.6", "objective=clip,kl"),
        *("max_failures=3..9", "weight_decay=0..0.1", "momentum=0..0.9", "rmsprop_decay=0.9..0.99"),
    ]
    axes = parse(words)
    fields = {spec.name for spec in dataclasses.fields(Hyper)} - {"env"}
    assert fields == {axis.name for axis in axes} - {"env.speed", "objective"}
    options = SweepOptions(
        sampler="random", settings=6, seeds=2, fresh_seeds=0, eval_episodes=2, layout="map",
        devices=1, out=str(tmp_path / "all"),
    )  # fmt: skip
    given = Sweep(CONFIG, HYPER, axes, [{}], options)
    before = jax.config.jax_log_compiles
    jax.config.update("jax_log_compiles", True)  # for all threads: one of its own compiles
    try:
        with caplog.at_level(logging.WARNING):
            found = driver.carry_out(given, driver.UNHEARD, None)
    finally:
        jax.config.update("jax_log_compiles", before)
    compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.msg]
    chunks = [message for message in compiled if "jit(chunk)" in message]
    objectives = {row["values"]["objective"] for row in found.settings}
    assert objectives == {"clip", "kl"}  # both were drawn
    assert len(chunks) == 2
    assert found.summary["compilations"] == [1, 1]
    assert len({row["values"]["gamma"] for row in found.settings}) == 6
