"""Whole numbers of gymnax's API: when a network sees them as flags, scaled, or as real numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from ppo_jax.apps.export import numpy_policy
from ppo_jax.apps.export.layers import describe_network
from ppo_jax.apps.run import evaluate
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.envs import first_look, leaves, registration
from ppo_jax.models.agent import assemble, leaf_codes
from ppo_jax.models.policy import Policy
from ppo_jax.models.torsos import LeafCode
from ppo_jax.rl.types import Window
from ppo_jax.runtime import saved_run


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 5
    size: int = 10


class Grid(environment.Environment):
    """Shows a place as two whole numbers; the space and the form are set from outside."""

    def __init__(self, space: Any, form: Any = lambda place: place, first: int = 3) -> None:
        self.space, self.form, self.first = space, form, first

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: Any, params: Any) -> Any:
        return self._seen(), environment.EnvState(time=0)

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        state = environment.EnvState(time=state.time + 1)
        return self._seen(), state, 1.0, jnp.array(False), {}

    def _seen(self) -> Any:
        return self.form(jnp.array([self.first, 4], jnp.int32))

    def action_space(self, params: Any) -> Any:
        return spaces.Discrete(2)

    def observation_space(self, params: Any) -> Any:
        return self.space(params)


def whole(low: int, high: int) -> Any:
    return lambda params: spaces.Box(low, high, (2,), jnp.int32)


def codes(env: Grid) -> tuple[LeafCode, ...]:
    return leaf_codes(Config(), registration.make(env))


def test_a_parameter_that_changes_the_number_of_flags_cannot_be_set() -> None:
    """A network has an input for each value, so it cannot follow."""

    def one(params: Any) -> Any:
        return spaces.Box(0, params.size - 1, (2,), jnp.int32)

    def leaf(params: Any) -> Any:
        return spaces.Dict({"place": spaces.Box(0, params.size - 1, (2,))})  # of no whole dtype

    for env in (Grid(one), Grid(leaf, lambda place: {"place": place})):
        assert codes(env) == (LeafCode(low=0, count=10),)
        made = registration.make(env)
        with pytest.raises(InputError, match=r"env\.size cannot be set: .* widest bounds of whole"):
            made.override(made.default_params, {"size": 30})
        assert made.override(made.default_params, {"max_steps_in_episode": 9})


def test_a_scale_does_not_follow_a_parameter_and_it_can_be_set() -> None:
    env = Grid(lambda params: spaces.Box(0, 100 * params.size, (2,), jnp.int32))
    assert codes(env) == (LeafCode(scale=1000.0),)
    made = registration.make(env)
    assert made.override(made.default_params, {"size": 30}).size == 30


def test_numbers_beyond_the_scale_are_the_same_in_an_exported_policy() -> None:
    env = Grid(whole(0, 100))
    config = Config(env=env, hidden_sizes=(8,))
    assert codes(env) == (LeafCode(scale=100.0),)
    agent = assemble(config)
    params = agent.network.init(jax.random.key(0))
    policy = Policy(agent.network, agent.family, params, None)
    exported = describe_network(config, agent, policy, "grid")
    rows = np.random.default_rng(0).uniform(-9_000, 9_000, (200, 2)).astype(np.float32)
    found = numpy_policy.actions(exported.description, exported.arrays, {"observation": rows})
    logits = agent.network.policy(params, Window(jnp.asarray(rows))).logits
    np.testing.assert_array_equal(found, np.argmax(logits, -1))


def test_real_numbers_under_a_whole_space_stay_real() -> None:
    env = Grid(whole(0, 9), lambda place: place / 10.0)
    assert codes(env) == (LeafCode(),)
    in_tree = Grid(
        lambda params: spaces.Dict({"place": whole(0, 9)(params)}),
        lambda place: {"place": place / 10.0},
    )
    assert codes(in_tree) == (LeafCode(),)


def test_whole_numbers_of_a_leaf_count_whatever_dtype_its_box_declares() -> None:
    """gymnax's Box is of float32 by default."""
    for high, code in ((5, LeafCode(low=0, count=6)), (1000, LeafCode(scale=1000.0))):
        env = Grid(
            lambda params, high=high: spaces.Dict({"place": spaces.Box(0, high, (2,))}),
            lambda place: {"place": place},
        )
        assert codes(env) == (code,)


def test_numbers_outside_a_box_of_flags_are_named_at_the_start() -> None:
    made = registration.make(Grid(whole(0, 9), first=-1))
    (line,) = first_look.warnings(Config(), Hyper(), made, made.default_params)
    assert "observations -1 lie outside the declared Box, 0 to 9" in line
    assert "or declare bounds from -1 to 9" in line
    for config in (Config(one_hot_integers=False), Config(normalize_observations=True)):
        assert first_look.warnings(config, Hyper(), made, made.default_params) == []


@pytest.mark.parametrize("masked", [False, True])
def test_a_tuple_with_previous_inputs_has_the_same_names_in_its_own_words(masked: bool) -> None:
    class Pair(Grid):
        if masked:

            def action_mask(self, state: Any, params: Any) -> Any:
                return jnp.ones(2, bool)

    env = Pair(
        lambda params: spaces.Tuple((spaces.Discrete(10), spaces.Box(0.0, 9.0, (1,)))),
        lambda place: (place[0], place[1:] * 1.0),
    )
    config = Config(env=env, previous_inputs="action+reward")
    made = assemble(config).environment
    seen = leaves.named(first_look.first_observations(made, made.default_params))
    assert made.raw is not None
    assert set(seen) - {"action_mask"} == {"observation.0", "observation.1"}
    assert set(seen) - {"action_mask"} <= set(leaves.shown(made))
    assert first_look.warnings(config, Hyper(), made, made.default_params) == []


@pytest.mark.parametrize("low, high", [(-3, 6), (0, 11), (0, 99)])
def test_a_policy_is_not_moved_to_numbers_that_it_would_see_in_another_way(
    low: int, high: int
) -> None:
    trained, other = Grid(whole(0, 9)), Grid(whole(low, high))
    with pytest.raises(InputError, match=r"\(whole numbers from 0 to 9\)") as refused:
        evaluate.moved(Config(env=trained), Hyper(), other)
    assert "\n" not in str(refused.value)


def test_a_run_starts_only_from_a_policy_that_saw_the_same_numbers() -> None:
    """Only named environments can differ, so the check is called by itself."""
    config = Config(env=Grid(whole(0, 9)))
    saved_run.require_same_codes(Path("a"), config, config)
    other = dataclasses.replace(config, env=Grid(whole(-3, 6)))
    words = r"leaf 'observation' \(whole numbers from 0 to 9\), but .* numbers from -3 to 6\)"
    with pytest.raises(InputError, match=words):
        saved_run.require_same_codes(Path("a"), config, other)
    real = dataclasses.replace(config, one_hot_integers=False, scale_integers=False)
    with pytest.raises(InputError, match="'observation' as real numbers, but this run has it"):
        saved_run.require_same_codes(Path("a"), real, config)
