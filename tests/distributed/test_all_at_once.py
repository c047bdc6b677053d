"""Masked joint actions, a dict, a memory and a KL penalty at once, in every layout."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from dials import dials
from toy import flat

from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import population, programs
from ppo_jax.training import schedules

pytestmark = pytest.mark.slow

CONFIG = Config(
    env=dials(),
    objective="kl",
    memory="mingru",
    memory_size=8,
    previous_inputs="action+reward+start",
    num_envs=16,
    rollout_length=8,
    num_epochs=2,
    num_minibatches=2,
    hidden_sizes=(8,),
    normalize_observations=True,
    orthogonal_init=False,
    total_env_steps=16 * 8 * 3,
)
DEVICES = tuple(jax.devices())


def trained(layout: layouts.Layout) -> Any:
    """The parameters of seed 0 before and after three iterations, of two settings in a row."""
    chunk = programs.make_chunk(CONFIG, layout)
    for hyper in (Hyper(learning_rate=1e-3), Hyper(learning_rate=1e-2, kl_coef=0.5)):
        arrays = schedules.as_arrays(CONFIG, hyper)
        state = population.init_population(CONFIG, arrays, 0, layout)
        start = flat(jax.tree.map(lambda leaf: leaf[0], state.params))
        state, rows = chunk(arrays, state, np.int32(3))
        rows = {name: np.asarray(value)[:, :3] for name, value in rows.items()}
        assert (rows["log_ratio_abs_first"] <= 1e-5).all()
        assert (rows["alive"] == 1.0).all()
        assert (rows["num_episodes"] > 0).all()
        assert (rows["episode_return_sum"] >= 0.0).all()  # an illegal choice costs 1000
    assert chunk._cache_size() == 1
    return start, flat(jax.tree.map(lambda leaf: leaf[0], state.params))


def test_layouts_train_alike_with_masks_a_dict_and_a_memory_in_one_compilation_each() -> None:
    """A seed alone, its environments on two devices, and beside another seed on one device."""
    start, spread = trained(layouts.Layout("map", DEVICES[:2], 1, 2, 4))
    _, side_by_side = trained(layouts.Layout("vmap", DEVICES[:1], 2, 1, 4))
    # Adam turns the last bits of tiny gradients into more; other draws differ by 1e-2.
    np.testing.assert_allclose(side_by_side, spread, atol=2e-3)
    assert np.abs(start - spread).max() > 1e-2
