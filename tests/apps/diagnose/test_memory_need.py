"""Notes of `doctor` about masks, leaves and memory, each by an environment with and without it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from workshop import DIALS, Locked, LockedLeaf

from ppo_jax.apps.diagnose import contract, random_play
from ppo_jax.envs import registration
from ppo_jax.envs.actions import box_of
from ppo_jax.envs.interface import ACTION_MASK, Discrete, Environment


def found(environment: Environment, steps: int = 64) -> list[tuple[str, str]]:
    findings = contract.check(environment, jax.random.key(0), steps)
    return [(finding.severity, finding.what) for finding in findings]


def recall(shows: str) -> Environment:
    """Two steps: a coin is shown, or not, and the second action pays if it names the coin."""

    def seen(coin: Any, time: Any) -> Any:
        is_shown = (time == 0) | (shows == "always")
        clue = jnp.where(is_shown, coin, 0.5)
        return jnp.stack([clue if shows != "never" else 0.5 * jnp.ones(()), time * 1.0])

    def reset(key: Any, params: Any) -> tuple:
        coin = jax.random.bernoulli(key).astype(jnp.float32)
        return seen(coin, 0), (coin, jnp.int32(0))

    def transition(key: Any, state: Any, action: Any, params: Any) -> tuple:
        coin, time = state
        if shows == "never":  # chance decides, and no memory would help
            coin = jax.random.bernoulli(key).astype(jnp.float32)
        reward = jnp.where((time == 1) & (action == coin), 1.0, 0.0)
        return seen(coin, time + 1), (coin, time + 1), reward, time >= 1, jnp.bool_(False), {}

    return Environment(
        name="recall",
        reset=reset,
        transition=transition,
        default_params=(),
        observation_shape=(2,),
        action_space=Discrete(2),
        max_episode_steps=None,
        override=lambda params, values: params,
    )


@pytest.mark.parametrize("shows, is_noted", [("first", True), ("always", False), ("never", False)])
def test_a_reward_that_only_the_past_decides_is_noted(shows: str, is_noted: bool) -> None:
    words = [what for _, what in found(recall(shows)) if "may need memory" in what]
    assert len(words) == is_noted
    if is_noted:
        share = int(words[0].partition("in ")[2].partition("%")[0])
        assert 40 <= share <= 60  # the second step of each episode


def test_random_play_takes_legal_actions_within_the_bounds() -> None:
    made = registration.make(LockedLeaf())
    play = jax.jit(lambda key: random_play.play(made, key, 32))(jax.random.key(0))
    counts, reals = map(np.asarray, play.action)
    places = counts + np.cumsum([0, *DIALS[:-1]])
    mask = np.asarray(play.observation[ACTION_MASK])
    assert np.take_along_axis(mask, places, axis=-1).all()
    box = box_of(made.action_space)
    assert box is not None
    assert ((reals >= box.low) & (reals <= box.high)).all()


class Broken(Locked):
    """Locks a dial at every other step, and shows numbers outside the declared spaces."""

    def action_mask(self, state: Any, params: Any) -> Any:
        return super().action_mask(state, params).at[3:5].set(state.time % 2 == 0)

    def observed(self, key: Any) -> dict[str, Any]:
        seen = super().observed(key)
        return {**seen, "aim": 3.0 * seen["aim"], "number": seen["number"] + 1}


def test_a_dial_without_a_legal_action_and_leaves_out_of_range_are_named() -> None:
    findings = found(registration.make(Broken()))
    errors = [what for severity, what in findings if severity == "error"]
    assert len(errors) == 2
    assert "observations 5 lie outside the declared Discrete space, 2 to 4" in errors[0]
    assert "no action of dial 1 is legal in 50.00% of the steps" in errors[1]
    others = [what for severity, what in findings if severity != "error"]
    assert len(others) == 1
    assert "numbers of the leaf 'aim' reach" in others[0]
