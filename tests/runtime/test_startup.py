"""The start and the loop, made at the same time, are those made one after the other."""

from __future__ import annotations

import dataclasses
import gc

import jax
import numpy as np
import pytest
from dials import dials

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import population, programs
from ppo_jax.runtime.startup import begin
from ppo_jax.training import schedules

CONFIG = Config(num_envs=4, rollout_length=8, num_minibatches=2, total_env_steps=64)


@pytest.mark.parametrize("seeds", [1, 3])
def test_begin_is_the_population_and_the_program_made_apart(seeds):
    hyper = schedules.as_arrays(CONFIG, Hyper())
    layout = layouts.choose_layout(CONFIG, seeds)
    begun = begin(CONFIG, hyper, 5, layout)
    state = population.init_population(CONFIG, hyper, 5, layout)
    apart = programs.make_chunk(CONFIG, layout).lower(hyper, state, np.int32(1))
    assert begun.chunk.as_text() == apart.as_text()
    for found, expected in zip(jax.tree.leaves(begun.state), jax.tree.leaves(state), strict=True):
        assert found.sharding == expected.sharding
        if jax.dtypes.issubdtype(found.dtype, jax.dtypes.prng_key):
            found, expected = jax.random.key_data(found), jax.random.key_data(expected)
        np.testing.assert_array_equal(found, expected)
    after, _ = begun.chunk.compile()(hyper, begun.state, np.int32(2))
    np.testing.assert_array_equal(after.iteration[:seeds], 2)


def test_what_fails_while_the_start_compiles_is_told(monkeypatch):
    def failing(*_):
        raise ValueError("not traced")

    monkeypatch.setattr(programs, "make_chunk", failing)
    layout = layouts.choose_layout(CONFIG, 1)
    with pytest.raises(ValueError, match="not traced"):
        begin(CONFIG, schedules.as_arrays(CONFIG, Hyper()), 0, layout)


@pytest.mark.parametrize("is_collecting", [True, False])
def test_garbage_is_looked_for_afterwards_as_before(is_collecting, monkeypatch):
    def failing(*_):
        assert not gc.isenabled()
        raise ValueError("not traced")

    monkeypatch.setattr(programs, "make_chunk", failing)
    layout = layouts.choose_layout(CONFIG, 1)
    was_collecting = gc.isenabled()
    try:
        gc.enable() if is_collecting else gc.disable()
        with pytest.raises(ValueError, match="not traced"):
            begin(CONFIG, schedules.as_arrays(CONFIG, Hyper()), 0, layout)
        assert gc.isenabled() == is_collecting
    finally:
        gc.enable() if was_collecting else gc.disable()


def test_an_episode_that_starts_without_a_legal_action_is_refused(monkeypatch):
    """Some start so; the second dial's flags lie behind the first one's three."""
    base = dials()

    def reset(key, params):
        observation, state = base.reset(key, params)
        flags = observation["action_mask"]
        flags = flags.at[3:].set(flags[3:] & jax.random.bernoulli(key))
        return {**observation, "action_mask": flags}, state

    monkeypatch.setattr(programs, "make_chunk", lambda *_: jax.jit(lambda *given: given))
    config = dataclasses.replace(CONFIG, env=base._replace(reset=reset), num_envs=16)
    hyper = schedules.as_arrays(config, Hyper())
    layout = layouts.choose_layout(config, 1)
    with pytest.raises(InputError, match="an episode in which no action of dial 1 is legal"):
        begin(config, hyper, 5, layout)
    config = dataclasses.replace(config, env=base)
    assert begin(config, hyper, 5, layout).state.alive.all()
