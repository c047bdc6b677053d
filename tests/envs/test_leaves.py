"""Own environments with trees: names of leaves, masks that do not fit, leaves that change."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from lane import lane

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import with_old_values
from ppo_jax.envs import leaves, registration
from ppo_jax.envs.interface import Discrete, Environment, action_mask, without_action_mask
from ppo_jax.models.agent import assemble, leaf_codes


class Seen(NamedTuple):
    speed: Any
    action_mask: Any


def test_leaves_have_dotted_names_in_the_order_of_jax() -> None:
    assert leaves.named(3.0) == {"observation": 3.0}
    assert leaves.named({"b": (1, 2), "a": {"c": 3}}) == {"a.c": 3, "b.0": 1, "b.1": 2}
    assert list(leaves.named({"b": (1, 2), "a": {"c": 3}})) == ["a.c", "b.0", "b.1"]


def test_a_named_tuple_has_a_mask_as_a_dict_has() -> None:
    for observation in (Seen(1, 2), {"speed": 1, "action_mask": 2}):
        assert action_mask(observation) == 2
        assert without_action_mask(observation) == {"speed": 1}
    assert action_mask((1, 2)) is None


def shows(first: Any, later: Any, declared: Any = None) -> Environment:
    """The lane with other observations."""
    environment = lane(Discrete(2))
    reset, transition = environment.reset, environment.transition
    return environment._replace(
        reset=lambda *given: (first, reset(*given)[1]),
        transition=lambda *given: (later, *transition(*given)[1:]),
        observation=jax.eval_shape(lambda: first if declared is None else declared),
    )


ONE, TWO = {"a": jnp.ones(1)}, {"a": jnp.ones(1), "b": jnp.ones(2)}


@pytest.mark.parametrize(
    "environment, sentence",
    [
        (shows(ONE, TWO), "leaf 'b' is missing from the declaration and of shape .* transition"),
        (shows(ONE, TWO, TWO), r"leaf 'b' is of shape \(2,\) from the decl.* missing from reset"),
        (shows(TWO, {**TWO, "b": jnp.ones(3)}), r"'b' is of shape \(2,\) .* \(3,\) from transit"),
    ],
)
def test_an_observation_that_changes_its_leaves_is_refused(
    environment: Environment, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        assemble(Config(env=environment))
    assert "\n" not in str(refused.value)


def test_whole_numbers_of_many_values_are_divided_by_the_largest_of_their_bounds() -> None:
    seen = {"tile": jnp.ones(4, jnp.int32), "time": jnp.ones(1), "word": jnp.ones(1, jnp.int32)}
    environment = shows(seen, seen)._replace(
        integers=(("tile", 0, 5), ("time", -10, 500), ("word", -(2**31), 2**31 - 1))
    )
    assert leaves.largest_integers(environment) == {"time": 500.0}
    config = Config(env=environment)
    assert [code.scale for code in leaf_codes(config, environment)] == [None, 500.0, None]
    for other in ({"scale_integers": False}, {"normalize_observations": True}):
        codes = leaf_codes(dataclasses.replace(config, **other), environment)
        assert [code.scale for code in codes] == [None, None, None]
    assert not with_old_values({"config": {}})["config"]["scale_integers"]  # of a saved run


def test_a_mask_that_does_not_fit_is_refused_where_it_is_named() -> None:
    seen = {"a": jnp.ones(1), "action_mask": jnp.ones(3, bool)}
    with pytest.raises(InputError, match=r"action_mask of bool\[3\] and its actions need bool\[2"):
        registration.make(shows(seen, seen))


@pytest.mark.parametrize(
    "metrics, sentence",
    [
        (lambda info: [1.0], "returns list"),
        (lambda info: {"a": jnp.zeros(2)}, "'a' of shape (2,)"),
        (lambda info: {"a": jax.random.key(0)}, "'a' of shape ()"),
    ],
)
def test_metrics_that_are_no_numbers_by_name_are_refused(metrics, sentence) -> None:
    environment = registration.make("probe:action-choice")._replace(metrics=metrics)
    with pytest.raises(InputError, match=re.escape(sentence)):
        assemble(Config(env=environment))


def test_an_environment_outside_jax_has_no_buffer_of_starts() -> None:
    outside: Any = registration.make("probe:action-choice")._replace(host=object())
    with pytest.raises(InputError, match="leave --start-states out"):
        assemble(Config(env=outside, start_states=4))
