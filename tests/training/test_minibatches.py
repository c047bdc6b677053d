"""Rows of minibatches: each sample once an epoch, and environments that stay together."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.config import Config
from ppo_jax.kernels import backend
from ppo_jax.rl.types import Batch, Window
from ppo_jax.training.update import minibatch_order, take_minibatches


def config_of(**fields: Any) -> Config:
    """T = 12, B = 8: 96 samples, minibatches of 24."""
    return Config(num_envs=8, rollout_length=12, num_epochs=2, **fields)


@pytest.mark.parametrize("num_minibatches", [1, 4])
@pytest.mark.parametrize("shuffle", ["samples", "env-rows"])
def test_minibatches_cover_each_sample_once(shuffle: str, num_minibatches: int) -> None:
    config = config_of(shuffle=shuffle, num_minibatches=num_minibatches)
    rows = np.asarray(minibatch_order(config, jax.random.key(0), 96, 8))
    assert rows.shape == (config.num_epochs, num_minibatches, 96 // num_minibatches)
    for epoch in rows:
        np.testing.assert_array_equal(np.sort(epoch.ravel()), np.arange(96))
        assert np.any(epoch.ravel() != np.arange(96))
    assert np.any(rows[0] != rows[1])
    other = minibatch_order(config, jax.random.key(1), 96, 8)
    assert np.any(rows != np.asarray(other))


def test_env_rows_keeps_the_steps_of_an_environment_together_and_in_order() -> None:
    """Row t B + b of the batch is step t of environment b: T = 12, B = 8."""
    config = config_of(shuffle="env-rows")
    rows = np.asarray(minibatch_order(config, jax.random.key(0), 96, 8))
    for minibatch in rows.reshape(-1, 24):
        step, environment = (x.reshape(2, 12) for x in divmod(minibatch, 8))
        assert np.all(environment == environment[:, :1])
        np.testing.assert_array_equal(step, np.broadcast_to(np.arange(12), (2, 12)))


def test_samples_mixes_environments() -> None:
    config = config_of()
    rows = np.asarray(minibatch_order(config, jax.random.key(0), 96, 8))
    assert min(len(set(minibatch % 8)) for minibatch in rows.reshape(-1, 24)) > 4


@pytest.mark.parametrize("shuffle", ["samples", "env-rows"])
def test_with_a_memory_each_environments_rows_stand_together_and_in_order(shuffle: str) -> None:
    """Row b T + t of the batch is step t of environment b."""
    config = config_of(shuffle=shuffle)
    rows = np.asarray(minibatch_order(config, jax.random.key(0), 96, 8, has_memory=True))
    for epoch in rows:
        np.testing.assert_array_equal(np.sort(epoch.ravel()), np.arange(96))
    environment, step = divmod(rows.reshape(-1, 12), 12)
    assert np.all(environment == environment[:, :1])
    np.testing.assert_array_equal(step, np.broadcast_to(np.arange(12), step.shape))
    assert np.any(environment[:8, 0] != np.arange(8))


def batch_of(memory: Any) -> Batch:
    """96 samples that hold their own numbers."""
    number = jnp.arange(96.0)
    window = Window(number[:, None], jnp.arange(96) % 12 == 0 if memory != () else (), memory)
    return Batch(window, jnp.arange(96), number, (number[:, None],), number, number, number)


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_a_minibatch_takes_its_rows_and_the_memory_of_their_environments(form: str) -> None:
    memory = {"h": 10.0 * jnp.arange(8.0)[:, None] + jnp.arange(3.0)[None], "c": jnp.arange(8)}
    order = minibatch_order(config_of(), jax.random.key(0), 96, 8, has_memory=True)
    batch = batch_of(memory)
    with backend.use(form):
        for index in order.reshape(-1, 24):
            found = take_minibatches(batch, num_envs=8)(index)
            environments = np.asarray(index).reshape(-1, 12)[:, 0] // 12
            np.testing.assert_array_equal(found.window.memory["c"], environments)
            np.testing.assert_array_equal(found.window.memory["h"][:, 0], 10.0 * environments)
            np.testing.assert_array_equal(found.window.reset, np.tile(np.arange(12) == 0, 2))
            np.testing.assert_array_equal(found.window.observation[:, 0], index)
            np.testing.assert_array_equal(found.advantage, index)


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_without_a_memory_a_minibatch_has_none(form: str) -> None:
    index = minibatch_order(config_of(), jax.random.key(0), 96, 8)[1, 2]
    with backend.use(form):
        found = take_minibatches(batch_of(()), num_envs=8)(index)
    assert found.window.memory == () == found.window.reset
    np.testing.assert_array_equal(found.distribution_old[0][:, 0], index)
