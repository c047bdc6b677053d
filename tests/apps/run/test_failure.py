"""What a failed update leaves behind: nothing of itself, and nothing in its neighbours."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import CHOICE, jit

from ppo_jax.config.config import Hyper
from ppo_jax.envs import registration
from ppo_jax.training import trainer

PENDULUM = registration.make("Pendulum-v1")


def step_and_bribe(key, state, action, params):
    observation, state, reward, *rest = PENDULUM.transition(key, state, action, params[0])
    return observation, state, reward + params[1], *rest


BRIBED = PENDULUM._replace(  # its rewards are larger by a parameter of their own
    default_params=(PENDULUM.default_params, 0.0),
    reset=lambda key, params: PENDULUM.reset(key, params[0]),
    transition=step_and_bribe,
    override=lambda params, values: (params[0], values["bribe"]),
    action_bounds=None,  # they follow the parameters, of which these are a pair
)

STRIDE = dataclasses.replace(
    CHOICE,
    env=BRIBED,
    num_minibatches=1,
    normalize_observations=True,
    normalize_rewards=True,
    activation="tanh",
)


@pytest.fixture(scope="module")
def many():
    """32 members' start states and a compiled iteration of all of them, each with its bribe."""

    def hyper(bribe):
        return Hyper(env={"bribe": bribe})

    bribe = jnp.zeros(32)
    keys = jax.random.split(jax.random.key(0), 32)
    state = jit(jax.vmap(lambda b, key: trainer.init(STRIDE, hyper(b), key)))(bribe, keys)
    step = jit(jax.vmap(lambda b, state: trainer.iterate(STRIDE, hyper(b), state)))

    def run(state, bribe=bribe, count=5):
        rows = []
        for _ in range(count):
            state, row = step(bribe, state)
            rows.append(row)
        return jax.device_get(state), jax.device_get(rows)

    return state, run, run(state)


def spoil_observations(state, bribe):
    """The environment shows NaN: its state holds one."""
    states = state.carry.state
    spoilt = states.replace(theta=states.theta.at[5].set(jnp.nan))
    return state._replace(carry=state.carry._replace(state=spoilt)), bribe


def spoil_rewards(state, bribe):
    return state, bribe.at[5].set(jnp.inf)


def spoil_gradients(state, bribe):
    """Parameters that are finite, and whose values' squares are not."""
    kernel = state.params["body"]["value_head"]["kernel"]
    state.params["body"]["value_head"]["kernel"] = kernel.at[5].set(1e30)
    return state, bribe


@pytest.mark.parametrize("spoil", [spoil_observations, spoil_rewards, spoil_gradients])
def test_one_spoilt_member_of_32_is_frozen_and_31_are_those_of_the_healthy_run(many, spoil):
    start, run, (healthy, healthy_rows) = many
    start = jax.tree.map(lambda leaf: leaf, start)  # its dictionaries are written to
    spoilt, bribe = spoil(start, jnp.zeros(32))
    state, rows = run(spoilt, bribe)
    others = np.delete(np.arange(32), 5)
    assert healthy.alive.all()
    assert state.alive.tolist() == [i != 5 for i in range(32)]
    for a, b in zip(jax.tree.leaves((healthy, healthy_rows)), jax.tree.leaves((state, rows))):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])
    # Nothing of it was taken over: all as at its start, but for the count of the failures.
    assert state.failures[5] == trainer.MAX_FAILURES == 3
    assert state.iteration[5] == 2  # the third iteration can be made again
    same = jax.tree.map(lambda leaf: leaf[5], (spoilt.params, spoilt.opt_state, spoilt.carry))
    kept = jax.tree.map(lambda leaf: leaf[5], (state.params, state.opt_state, state.carry))
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(kept)):
        np.testing.assert_array_equal(a, b)
    assert state.observation_moments.count[5] == state.return_moments.count[5] == 0.0
    assert [row["alive"][5] for row in rows] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert [row["refused_fraction"][5] for row in rows] == [1.0] * 5
    assert not any(row["refused_fraction"][others].any() for row in rows)


def test_a_member_that_recovers_in_time_learns_on(many):
    """Two iterations with rewards of infinity, then sound ones again."""
    start, run, _ = many
    state, _ = run(start, jnp.zeros(32).at[5].set(jnp.inf), count=2)
    assert (state.failures[5], state.alive[5], state.iteration[5]) == (2, True, 2)
    state, rows = run(jax.tree.map(jnp.asarray, state), count=1)
    assert (state.failures[5], state.alive[5], state.iteration[5]) == (0, True, 3)
    assert rows[0]["refused_fraction"][5] == 0.0
    assert state.observation_moments.count[5] == 32  # of one iteration only


@pytest.mark.parametrize(
    ("number", "is_sound"),
    [
        *((number, True) for number in (3.4e38, -3.4e38, 1e-45, 0.0)),
        *((number, False) for number in (jnp.inf, -jnp.inf, jnp.nan)),
    ],
)
def test_one_number_among_thousands_is_seen_where_it_is_not_finite(number, is_sound):
    tree = {"a": jnp.full(3000, 3.4e38), "b": (jnp.zeros((3, 2)).at[1, 0].set(number),)}
    assert bool(jit(trainer.all_finite)(tree)) == is_sound
