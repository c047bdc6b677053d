"""The adapter of Pgx beside its own functions, and games whose value is known."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import get_args

import beside
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppo_jax
from ppo_jax.config.errors import InputError
from ppo_jax.envs import leaves, registration
from ppo_jax.envs.interface import Discrete
from ppo_jax.envs.suite_table import SUITES

pgx = pytest.importorskip("pgx", reason="pip install -e '.[pgx]'")
NAME = "pgx/tic_tac_toe"
LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
EMPTY = (0,) * 9


def first_legal(observation, key):
    """An opponent without chance, so that its moves can be repeated."""
    return jnp.argmax(observation["action_mask"])


@cache
def value(board, is_mine):
    """Return of perfect play against a random opponent, from a board of 1 (mine), -1 and 0."""
    for side in (1, -1):
        if any(all(board[place] == side for place in line) for line in LINES):
            return float(side)
    after = [
        value((*board[:place], 1 if is_mine else -1, *board[place + 1 :]), not is_mine)
        for place in range(9)
        if board[place] == 0
    ]
    return 0.0 if not after else max(after) if is_mine else sum(after) / len(after)


@pytest.fixture(scope="module")
def environment():
    return registration.make(NAME)


def test_the_table_has_the_ids_that_the_suite_registers():
    suite = SUITES["pgx"]
    assert sorted(suite.ids) == sorted(pgx.available_envs())
    assert {*suite.ids, *dict(suite.left_out)} == {*get_args(pgx.EnvId)}


def test_random_play_is_the_suites_own_with_the_opponents_moves_inside_the_step():
    from ppo_jax.envs.suites import pgx as adapter

    env = pgx.make("connect_four")

    def shown(state):
        return {"action_mask": state.legal_action_mask, "view": env._observe(state, jnp.int32(0))}

    def answered(state):  # by the first column that is free, once at most
        theirs = (state.current_player == 1) & ~state.terminated
        after = env.step(state, jnp.argmax(state.legal_action_mask))
        after = jax.tree.map(lambda new, old: jnp.where(theirs, new, old), after, state)
        return after, jnp.where(theirs, after.rewards[0], 0.0)

    def reset(key):
        state, _ = answered(env.init(jax.random.split(key)[0]))
        return shown(state), state

    def step(key, state, action):
        state = env.step(state, action)
        reward = state.rewards[0]
        state, more = answered(state)
        return shown(state), state, reward + more, state.terminated, False & state.terminated

    environment = adapter.make("connect_four", opponent=first_legal)
    actions, ours, own = beside.play(environment, reset, step)
    beside.require_equal(ours, own)
    assert set(np.unique(ours.reward)) == {-1.0, 0.0, 1.0}  # games are won, and lost to its move
    assert not ours.truncated.any()
    mask, going_on = ours.observation["action_mask"], ~ours.terminated[:, :-1]
    legal = np.take_along_axis(mask[:, 1:-1], actions[:, 1:, None], -1)[..., 0]
    assert legal[going_on].all()
    stones = ours.observation["view"].sum((2, 3))  # [B, T + 1, 2]
    lost = ours.reward < 0
    assert (stones[:, 1:][lost][:, 1] >= 4).all()  # the last observation shows the lost game


def test_who_begins_is_drawn_and_the_opponent_has_moved_first(environment):
    keys = jax.random.split(jax.random.key(0), 400)
    seen, states = jax.vmap(environment.reset, (0, None))(keys, environment.default_params)
    stones = np.asarray(seen["view"]).sum((1, 2))  # [n, 2]: mine, theirs
    assert not stones[:, 0].any()
    assert set(stones[:, 1]) == {0, 1}
    assert abs(stones[:, 1].mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
    assert (np.asarray(states.current_player) == 0).all()
    places = np.asarray(seen["view"])[..., 1].reshape(-1, 9).sum(0)
    assert (places > 0).all()  # a random opponent takes every place


def test_types_are_steady_and_games_without_an_opponent_are_arrays():
    for name in ("kuhn_poker", "2048"):
        beside.require_steady_types(registration.make(f"pgx/{name}"))
        beside.require_fresh_keys(registration.make(f"pgx/{name}"))
    breakout = registration.make("pgx/minatar-breakout")
    assert (breakout.observation_shape, breakout.action_space) == ((10, 10, 4), Discrete(3))
    assert leaves.categories(registration.make("pgx/backgammon")) == {"view": (-15, 31)}
    with pytest.raises(InputError, match="masked"):
        breakout.override(breakout.default_params, {"masked": 0})


def test_an_opponent_is_set_by_a_factory_where_there_is_one(environment):
    with pytest.raises(InputError, match=r"make\('tic_tac_toe', opponent=opponent\)"):
        environment.override(environment.default_params, {"opponent": "random"})
    alone = registration.make("pgx/2048")
    with pytest.raises(InputError, match=r"'opponent' is no parameter.* it has masked.$"):
        alone.override(alone.default_params, {"opponent": "random"})


def test_without_its_mask_an_illegal_move_loses(environment):
    params = environment.override(environment.default_params, {"masked": 0})
    _, state = environment.reset(jax.random.key(0), params)
    seen, state, *_ = environment.transition(jax.random.key(1), state, jnp.int32(4), params)
    assert seen["action_mask"].all()
    _, _, reward, terminated, _, info = environment.transition(
        jax.random.key(2), state, jnp.int32(4), params
    )
    assert (reward, bool(terminated)) == (-1.0, True)
    assert environment.metrics(info) == {"won": 0.0, "lost": 100.0}


def test_a_policy_that_looks_ahead_earns_what_the_enumeration_of_the_game_says(environment):
    boards = np.stack(np.meshgrid(*[[0, 1, -1]] * 9, indexing="ij"), -1).reshape(-1, 9)
    table = np.zeros((len(boards),), np.int32)
    for i, board in enumerate(map(tuple, boards.tolist())):
        free = [place for place in range(9) if board[place] == 0]
        if free and sum(board) in (0, -1):
            table[i] = max(free, key=lambda p: value((*board[:p], 1, *board[p + 1 :]), False))
    weights, best = jnp.asarray(3 ** np.arange(8, -1, -1)), jnp.asarray(table)
    params = environment.default_params

    @jax.vmap
    def game(key):
        seen, state = environment.reset(key, params)

        def step(loop, key):
            seen, state, over, total = loop
            digits = seen["view"].reshape(9, 2).astype(jnp.int32) @ jnp.array([1, 2])
            action = best[digits @ weights]
            seen, state, reward, ended, *_ = environment.transition(key, state, action, params)
            return (seen, state, over | ended, total + jnp.where(over, 0.0, reward)), None

        loop = (seen, state, jnp.zeros((), bool), jnp.zeros(()))
        return jax.lax.scan(step, loop, jax.random.split(key, 5))[0][2:]

    over, totals = jax.jit(game)(jax.random.split(jax.random.key(0), 4096))
    optimum = (value(EMPTY, True) + value(EMPTY, False)) / 2
    assert over.all()
    assert optimum == pytest.approx(0.9598, abs=1e-4)
    assert abs(totals.mean() - optimum) < 4 * totals.std() / 64


@pytest.mark.parametrize("name", ["tic_tac_toe", "minatar-breakout"])
def test_a_state_is_drawn(name):
    environment = registration.make(f"pgx/{name}")
    params = environment.default_params
    _, state = environment.reset(jax.random.key(0), params)
    picture = environment.render(state, params)
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1


@pytest.mark.usefixtures("kept_programs")
def test_a_stopped_run_goes_on_with_the_same_bits_and_its_policy_is_an_opponent(
    environment, tmp_path: Path, capsys
):
    summary = beside.trained(NAME, tmp_path, capsys)
    assert summary["episodes_cut"] == 0
    beside.require_stops_and_exports(environment, tmp_path)

    from ppo_jax.envs.suites import pgx as adapter

    policy = ppo_jax.load_policy(tmp_path / "run")
    exported = ppo_jax.load_policy(tmp_path / "policy")
    against = adapter.make("tic_tac_toe", opponent=lambda seen, key: policy(seen))
    keys, params = jax.random.split(jax.random.key(5), 32), against.default_params
    seen, _ = jax.vmap(against.reset, (0, None))(keys, params)
    begun = np.asarray(seen["view"])[..., 1].any((1, 2))
    assert len(np.unique(np.asarray(seen["view"])[begun], axis=0)) == 1  # it always opens alike
    empty = {"view": np.zeros((3, 3, 2), bool), "action_mask": np.ones(9, bool)}
    opening = np.asarray(seen["view"])[begun][0, ..., 1].reshape(-1).argmax()
    assert opening == policy(empty) == exported(empty)
