"""The contract check: each breach is found, and what keeps it passes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.apps.diagnose import contract
from ppo_jax.envs import params as parameters
from ppo_jax.envs import registration
from ppo_jax.envs.interface import Box, Discrete, Environment


class Count(NamedTuple):
    time: jax.Array


def counting(**changes) -> Environment:
    """An environment that keeps the contract, ends after 10 steps, and can be broken."""

    def reset(key, params):
        return jax.random.uniform(key, (2,)), Count(jnp.int32(0))

    def transition(key, state, action, params):
        time = state.time + 1
        observation = jnp.stack([time / 10, jnp.float32(action)])
        return observation, Count(time), observation[1], time >= 10, jnp.bool_(False), {}

    parts = {"reset": reset, "transition": transition, **changes}
    return Environment(
        name="counting",
        default_params=(),
        observation_shape=(2,),
        observation_dtype="float32",
        action_space=Discrete(2),
        max_episode_steps=10,
        override=parameters.override,
        **parts,
    )


def found(environment, steps=64):
    return contract.check(environment, jax.random.key(0), steps)


def broken(change):
    """The counting environment with its transition's results passed through `change`."""
    keeps = counting()

    def transition(key, state, action, params):
        return change(key, *keeps.transition(key, state, action, params))

    return counting(transition=transition)


def test_an_environment_that_keeps_the_contract_has_no_findings():
    assert found(counting()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda k, o, s, r, d, t, i: (o[:1], s, r, d, t, i), "declares"),
        (lambda k, o, s, r, d, t, i: (o, Count(s.time * 1.0), r, d, t, i), "no loop can carry"),
        (lambda k, o, s, r, d, t, i: (o, s, r[None], d, t, i), "broadcast"),
        (lambda k, o, s, r, d, t, i: (o, s, r, d * 1.0, t, i), "broadcast"),
        (lambda k, o, s, r, d, t, i: (o, s, r / 0.0, d, t, i), "not finite"),
        (lambda k, o, s, r, d, t, i: (o, s, r, d, d, i), "at once"),
        (lambda k, o, s, r, d, t, i: (o, s, r, d & False, t, i), "limit is not kept"),
        (lambda k, o, s, r, d, t, i: (o.at[1].set(0), s, s.time / 9, d, t, i), "action changed"),
        (lambda k, o, s, r, d, t, i: (100 * o, s, r, d, t, i), "normalize-observations"),
        (
            lambda k, o, s, r, d, t, i: (o, Count(jnp.where(d, 0, s.time)), r, d, t, i),
            "resets by itself",
        ),
    ],
)
def test_each_breach_is_found_and_told(change, words):
    findings = found(broken(change))
    assert any(words in finding.what + finding.remedy for finding in findings), findings


def test_a_transition_that_cannot_be_traced_is_an_error():
    def transition(key, state, action, params):
        return (None,) if action > 0 else ()

    (finding,) = found(counting(transition=transition))
    assert finding.severity == "error"
    assert "fails" in finding.what


def test_an_unbounded_action_space_is_warned_about():
    box = Box((1,), np.full(1, -np.inf, np.float32), np.full(1, np.inf, np.float32))

    def transition(key, state, action, params):
        return counting().transition(key, state, action[0], params)

    environment = counting(transition=transition)._replace(action_space=box)
    assert ["unbounded" in finding.what for finding in found(environment)] == [True]


def test_a_gymnax_environment_passes_without_errors():
    findings = found(registration.make("CartPole-v1"), 200)
    assert not [finding for finding in findings if finding.severity == "error"]
