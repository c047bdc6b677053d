"""Pgx: board and card games against an opponent, 2048, and MinAtar's games.

The policy is player 0, and the key of a reset draws who begins. The moves of the others belong to
the transition: it ends at the policy's next turn, or with the game. Its reward is what player 0 was
given on the way. Observations are from player 0's side, also when another one ended the game.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.envs.conform import arguments, conform
from ppo_jax.envs.interface import ACTION_MASK, Discrete, Environment
from ppo_jax.envs.render import grid_picture

suite: Any = import_module("pgx")

VIEW = "view"  # the leaf of a game's observation beside its mask
Opponent = Callable[[Any, Any], Any]  # ({VIEW, ACTION_MASK}, key) -> a legal action []

_ME = 0
# Checkers of a point: at most 15, and negative for the other side
_INTEGERS = {"backgammon": ((VIEW, -15, 15),)}
# Games with a picture, and the planes that are its cells
_PLANES = {"tic_tac_toe": 2, "connect_four": 2, "othello": 2, "go_9x9": 2, "go_19x19": 2}
_PLANES |= {"hex": 2, "2048": 31}


class MaskParams(NamedTuple):
    """The one parameter of a game with masked actions."""

    masked: Any  # bool; False allows every action, and Pgx ends the game at an illegal one


def play_randomly(observation: Any, key: Any) -> Any:
    """A legal action [], each with the same probability: the opponent unless one is given."""
    return jax.random.categorical(key, jnp.where(observation[ACTION_MASK], 0.0, -jnp.inf))


def make(name: str, opponent: Opponent = play_randomly) -> Environment:
    """The game `name` of Pgx.

    Args:
        opponent: (observation, key) -> action of every other player; the observation is theirs. A
            policy of `ppo_jax.load_policy` is one. Pgx lets it lose at an illegal action.
    """
    env = suite.make(name)
    is_masked = not name.startswith("minatar-")  # MinAtar allows every action

    def reset(key: Any, params: Any) -> tuple:
        key_init, key_others = jax.random.split(key)
        state = env.init(key_init)
        if env.num_players > 1:
            state, _ = _until_my_turn(env, opponent, key_others, state, begins=True)
        return _seen(env, state, params), state

    def step(key: Any, state: Any, action: Any, params: Any) -> tuple:
        key_step, key_others = jax.random.split(key)
        state = env.step(state, action, key_step)
        reward = state.rewards[_ME]
        if env.num_players > 1:
            state, more = _until_my_turn(env, opponent, key_others, state)
            reward += more
        info = {"won": reward > 0, "lost": reward < 0}
        return _seen(env, state, params), state, reward, state.terminated, state.truncated, info

    declared: dict[str, Any] = {}
    if env.num_players > 1:
        declared["fixed"] = lambda: arguments(make)
        declared["metrics"] = lambda info: {kind: is_so * 100.0 for kind, is_so in info.items()}
    if name in _PLANES or not is_masked:
        observe = jax.jit(lambda state: env._observe(state, jnp.int32(_ME)))
        planes = _PLANES.get(name)
        declared["render"] = lambda state, params: _picture(np.asarray(observe(state)), planes)
    return conform(
        f"pgx/{name}",
        reset,
        step,
        params=MaskParams(True) if is_masked else (),
        action_space=Discrete(env.num_actions),
        max_episode_steps=None,
        integers=_INTEGERS.get(name, ()),
        **declared,
    )


def _until_my_turn(
    env: Any, opponent: Opponent, key: Any, state: Any, begins: bool = False
) -> tuple[Any, Any]:
    """Let the others move until it is player 0's turn or the game ends; and player 0's rewards.

    Args:
        begins: a game that ends before player 0's first turn is thrown away for a new one.
    """

    def is_waiting(loop: Any) -> Any:
        state = loop[1]
        is_over = state.terminated | state.truncated
        is_theirs = ~is_over & (state.current_player != _ME)
        return is_theirs | is_over if begins else is_theirs

    def move(loop: Any) -> Any:
        key, state, reward = loop
        key, key_action, key_step, key_new = jax.random.split(key, 4)
        shown = {VIEW: state.observation, ACTION_MASK: state.legal_action_mask}
        after = env.step(state, opponent(shown, key_action), key_step)
        if begins:
            is_over = state.terminated | state.truncated
            after = jax.tree.map(
                lambda new, old: jnp.where(is_over, new, old), env.init(key_new), after
            )
        return key, after, reward + after.rewards[_ME]

    start = (key, state, jnp.zeros((), state.rewards.dtype))
    return jax.lax.while_loop(is_waiting, move, start)[1:]


def _seen(env: Any, state: Any, params: Any) -> Any:
    view = env._observe(state, jnp.int32(_ME))
    if params == ():
        return view
    return {VIEW: view, ACTION_MASK: state.legal_action_mask | ~jnp.asarray(params.masked, bool)}


def _picture(view: np.ndarray, planes: int | None) -> np.ndarray:
    """The cells of a board, player 0's in yellow and the other's in blue, with lines between."""
    view = view[..., :planes]
    picture = grid_picture(view)
    size = picture.shape[0] // view.shape[0]
    picture[::size] = picture[:, ::size] = 90
    return picture
