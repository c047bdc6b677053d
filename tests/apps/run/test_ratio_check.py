"""The sentence about a first minibatch whose ratios are not 1: each mistake is made and named."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.apps.run import ratio_check, runner
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.options import RunOptions
from ppo_jax.training import schedules, trainer

CONFIG = Config(
    env="probe:action-observation",
    num_envs=8,
    rollout_length=4,
    total_env_steps=32,
    num_epochs=1,
    num_minibatches=1,
    hidden_sizes=(8,),
)


def init_fn(key: jax.Array) -> dict[str, jax.Array]:
    return {"w": jax.random.normal(key, (1, 3))}


def pure(params: dict, observation: jax.Array) -> tuple:
    out = jnp.ravel(observation) @ params["w"]
    return out[:2], out[2]


def noisy(params: dict, observation: jax.Array) -> tuple:
    """Drawn anew in each trace, as by numpy's generator in a dropout."""
    logits, value = pure(params, observation)
    return logits + jnp.asarray(np.random.default_rng().normal(size=2)), value


@jax.custom_batching.custom_vmap
def centred(x: jax.Array) -> jax.Array:
    return x


@centred.def_vmap
def _(axis_size: int, in_batched: list, x: jax.Array) -> tuple:
    return 3.0 * (x - x.mean(0, keepdims=True)), True


def mixing(params: dict, observation: jax.Array) -> tuple:
    logits, value = pure(params, observation)
    return centred(logits), value


def state_of(config: Config) -> tuple:
    hyper = schedules.as_arrays(config, Hyper())
    state = jax.jit(partial(trainer.init, config, hyper))(jax.random.key(1))
    _, row = jax.jit(partial(trainer.iterate, config, hyper))(state)
    return state, float(row["log_ratio_abs_first"])


def test_a_pure_network_has_ratios_of_one_and_no_complaint() -> None:
    config = dataclasses.replace(CONFIG, network=(init_fn, pure))
    _, found = state_of(config)
    assert ratio_check.is_one(config, found)
    assert not ratio_check.is_one(config, float("nan"))
    assert not ratio_check.is_one(config, 0.01)
    assert ratio_check.is_one(dataclasses.replace(config, precision="tf32"), 0.01)


def test_a_network_that_draws_random_numbers_is_named() -> None:
    config = dataclasses.replace(CONFIG, network=(init_fn, noisy))
    state, found = state_of(config)
    assert not ratio_check.is_one(config, found)
    assert "draws random numbers" in ratio_check.complaint(config, state, found)


def test_a_network_whose_rows_depend_on_each_other_is_named() -> None:
    """The rollout sees 8 rows at a time, the loss 32."""
    config = dataclasses.replace(CONFIG, network=(init_fn, mixing))
    state, found = state_of(config)
    assert not ratio_check.is_one(config, found)
    assert "depends on the others beside it" in ratio_check.complaint(config, state, found)


@pytest.mark.parametrize(
    "shown, words",
    [(np.nan, "not finite"), (1e7, "as large as 1e+07"), (1.0, "a bug to be reported")],
)
def test_what_the_environment_shows_is_looked_at(shown: float, words: str) -> None:
    config = dataclasses.replace(CONFIG, network=(init_fn, pure))
    state = trainer.init(config, schedules.as_arrays(config, Hyper()), jax.random.key(0))
    seen = jnp.full_like(state.carry.observation, shown)
    state = state._replace(carry=state.carry._replace(observation=seen))
    sentence = ratio_check.complaint(config, state, 0.5)
    assert words in sentence
    assert "log-ratio of 0.5" in sentence


def test_a_run_warns_at_once_and_a_sound_one_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    for network, is_warned in ((noisy, True), (pure, False)):
        config = dataclasses.replace(CONFIG, network=(init_fn, network))
        options = RunOptions(out=str(tmp_path / network.__name__), eval_episodes=2)
        runner.run(config, Hyper(), options)
        said = capfd.readouterr().err
        assert ("warning: the first minibatch has a log-ratio of" in said) == is_warned
