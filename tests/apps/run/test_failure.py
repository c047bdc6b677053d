"""A failed update leaves nothing behind, neither of itself nor in its neighbours."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import CHOICE, jit

from ppo_jax.config.config import Hyper
from ppo_jax.envs import registration
from ppo_jax.rl.types import TrainState
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
    assert state.failures[5] == Hyper().max_failures == 3
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


def step_and_lose(key, state, action, params):
    """Pendulum; a share of the rewards is NaN, and half as many observations."""
    observation, state, reward, *rest = PENDULUM.transition(key, state, action, params[0])
    lot = jax.random.uniform(jax.random.fold_in(key, 1))
    shown = jnp.where(lot > 1.0 - params[1] / 2, jnp.nan, observation)
    return shown, state, jnp.where(lot < params[1], jnp.nan, reward), *rest


LOSSY = dataclasses.replace(
    STRIDE, env=BRIBED._replace(transition=step_and_lose), drop_bad_transitions=True
)


@pytest.fixture(scope="module")
def lossy():
    """Five iterations of three members, which lose no reward, a tenth, and all."""

    def run(share, key):
        hyper = Hyper(env={"bribe": share})
        state = trainer.init(LOSSY, hyper, key)
        step = partial(trainer.iterate, LOSSY, hyper)
        return jax.lax.scan(lambda state, _: step(state), state, length=5)

    share, key = jnp.array([0.0, 0.1, 1.0]), jax.random.split(jax.random.key(0), 1)
    return jax.device_get(jit(jax.vmap(run, (0, None)))(share, key[0]))


def test_single_bad_transitions_are_left_out_and_the_batch_is_learnt(lossy):
    """At a tenth of NaN rewards a batch of 32 is clean once in 200 iterations."""
    state, rows = lossy
    assert state.alive.all()
    assert not state.failures.any()
    # A transition is lost by its reward, its observation, or that of its successor: 0.19 on
    # average, of 160 transitions with a standard deviation of 0.03.
    assert rows["dropped_fraction"][0].tolist() == [0.0] * 5
    assert 0.05 < rows["dropped_fraction"][1].mean() < 0.33
    assert rows["dropped_fraction"][2].tolist() == [1.0] * 5
    start = trainer.init(
        LOSSY, Hyper(env={"bribe": 0.0}), jax.random.split(jax.random.key(0), 1)[0]
    )
    moved = [np.abs(flat(state.params, i) - flat(start.params)).max() for i in range(3)]
    assert moved[0] > 1e-4
    assert moved[1] > 1e-4
    assert moved[2] < 1e-6  # nothing was learnt from nothing
    count = state.observation_moments.count
    assert count[0] == 160
    assert 120 < count[1] < 160


def test_without_bad_transitions_the_option_changes_nothing_but_roundings(lossy):
    plain = dataclasses.replace(LOSSY, drop_bad_transitions=False)
    hyper = Hyper(env={"bribe": 0.0})

    def run(key):
        state = trainer.init(plain, hyper, key)
        step = partial(trainer.iterate, plain, hyper)
        return jax.lax.scan(lambda state, _: step(state), state, length=5)

    state, rows = jit(run)(jax.random.split(jax.random.key(0), 1)[0])
    np.testing.assert_allclose(flat(lossy[0].params, 0), flat(state.params), atol=2e-5)
    np.testing.assert_allclose(lossy[1]["policy_loss"][0], rows["policy_loss"], atol=1e-5)


def flat(params, member=None):
    leaves = [leaf if member is None else leaf[member] for leaf in jax.tree.leaves(params)]
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


@pytest.mark.parametrize(
    ("limit", "updates", "frozen_after"),
    [
        (3, "xx.xx.xx.xx.", None),  # never three in a row
        (3, "xx.xxx", 6),
        (4, "xx.xxx.xxxx", 10),  # 2, 0, 3, 1, 4
        (4, "xxx.xxx", 7),
        (9, "xx." * 20, None),  # two of three batches fail, and the third makes them good
        (9, "xxx." * 20, 27),  # one more in four remains
        (float("inf"), "x" * 50, None),
    ],
)
def test_refused_updates_are_counted_against_accepted_ones(limit, updates, frozen_after):
    is_sound = jnp.array([update == "." for update in updates.ljust(60, ".")])
    alive = np.asarray(guarded(float(limit), is_sound))
    assert alive.sum() == (60 if frozen_after is None else frozen_after - 1)
    assert (np.diff(alive * 1) <= 0).all()


@jit
def guarded(limit, is_sound):
    """The flag `alive` after each of some updates, which are sound or not."""
    state = TrainState(*(jnp.zeros(()) for _ in TrainState._fields))
    state = state._replace(iteration=jnp.int32(0), alive=jnp.array(True), failures=jnp.int32(0))
    episodes = dict.fromkeys(("num_episodes", "episode_return_sum", "episode_length_sum"), 0.0)

    def step(state, is_sound):
        proposal = trainer.Proposal(state, dict(episodes), is_sound)
        state, _ = trainer.guard(Hyper(max_failures=limit), state, proposal)
        return state, state.alive

    return jax.lax.scan(step, state, is_sound)[1]


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
