"""The doctor's report on this machine and on an environment."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from tiny import Walk

from ppo_jax.apps.diagnose import doctor
from ppo_jax.config.errors import InputError


class Fading(Walk):
    """Its reward is no number once it has walked far: training would end at once."""

    name = "Fading"

    def step_env(self, key: jax.Array, state: Any, action: Any, params: Any) -> tuple:
        observation, state, reward, terminated, info = super().step_env(key, state, action, params)
        return (
            observation,
            state,
            jnp.where(jnp.abs(state.x) > 1.0, jnp.nan, reward),
            terminated,
            info,
        )


def test_the_machine_is_described_as_it_is() -> None:
    found = doctor.report()
    assert found["versions"]["jax"] == jax.__version__
    assert found["devices"] == [f"{d.platform}:{d.device_kind}" for d in jax.local_devices()]
    assert found["memory_bytes"] is None or found["memory_bytes"] > 2**28
    assert found["device_memory_bytes"] is None  # a CPU's is the machine's
    assert found["ok"]
    json.dumps(found, allow_nan=False)
    told = "\n".join(found["text"])
    assert jax.__version__ in told
    assert str(found["compilation_cache"]) in told


def test_an_environment_that_keeps_the_contract_is_told_to_do_so() -> None:
    found = doctor.report("tiny:Walk")
    assert (found["ok"], found["env"], found["findings"]) == (True, "tiny:Walk", [])
    told = "\n".join(found["text"])
    assert "observation (2,) float32, action discrete 2, time limit 6 steps" in told
    assert "keeps the contract" in told
    assert "one environment: state 8 bytes, observation 8 bytes; 4,096 of them: 64 KiB" in told
    assert "evaluation: deterministic actions; cannot be drawn" in told
    assert "random play of 8 environments here: " in told


def test_the_memory_is_that_of_as_many_environments_as_asked_for() -> None:
    found = doctor.report("tiny:Walk", num_envs=2**20)
    assert found["num_envs_bytes"] == 2**20 * 16
    assert "1,048,576 of them: 16 MiB" in "\n".join(found["text"])


def test_the_state_of_an_environment_outside_jax_is_not_counted() -> None:
    found = doctor.report("gymnasium/CartPole-v1", num_envs=1000)
    assert (found["state_bytes"], found["num_envs_bytes"]) == (None, 1000 * 16)
    told = "\n".join(found["text"])
    assert "one environment: its state is outside jax, observation 16 bytes" in told
    assert "random play of 8 environments here: " in told


def test_random_play_outside_jax_takes_legal_actions() -> None:
    """The environment refuses the others, and Gymnasium's own checker would play them."""
    assert doctor.report("gymnasium/gymnasium_tasks:Masked-v0")["findings"] == []


def test_steps_that_change_nothing_are_seen_outside_jax_as_well() -> None:
    told = "\n".join(doctor.report("gymnasium/FrozenLake-v1")["text"])
    assert "note: it can stall: " in told  # the lake has edges to walk against
    assert "it can stall" not in "\n".join(doctor.report("gymnasium/CartPole-v1")["text"])


def test_a_breach_is_told_with_what_goes_wrong_and_the_remedy() -> None:
    found = doctor.report(Fading())
    assert not found["ok"]
    errors = [each for each in found["findings"] if each["severity"] == "error"]
    assert errors
    assert any("reward" in each["what"] for each in errors)
    for each in errors:
        assert f"  error: {each['what']}" in found["text"]
        assert f"    {each['remedy']}" in found["text"]
    json.dumps(found, allow_nan=False)


def test_what_can_be_measured_is_told_of_an_environment_with_errors() -> None:
    found = doctor.report(Fading())
    assert not found["ok"]
    assert (found["state_bytes"], found["num_envs_bytes"]) == (8, 4096 * 16)
    assert (found["can_be_drawn"], found["evaluation_mode"]) == (False, "deterministic")
    told = "\n".join(found["text"])
    assert "one environment: state 8 bytes, observation 8 bytes; 4,096 of them: 64 KiB" in told
    assert "evaluation: deterministic actions; cannot be drawn" in told


def test_an_unknown_environment_is_bad_input() -> None:
    with pytest.raises(InputError, match="write CartPole-v1"):
        doctor.report("CartPole")
