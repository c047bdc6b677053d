"""Networks with a memory: windows against steps, and memories that begin anew with each episode."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import shown

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import Box, Discrete
from ppo_jax.kernels.select import where_rows
from ppo_jax.models.body import Network
from ppo_jax.models.network import make_network
from ppo_jax.rl.types import Window

F, H, T, B = 3, 5, 7, 4
BOX = Box((2,), np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
SETTINGS = [{}, {"shared_torso": True}, {"policy": "gsde"}, {"policy": "gaussian-state-std"}]
DEEPER = [
    {"memory": "lru", "memory_layers": 2, "memory_start": "learned"},
    {"memory": "attention", "shared_torso": True},
]


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shaken(tree: Any) -> Any:
    """Parameters away from their start, so that biases and every gate count."""
    return jax.tree.map(
        lambda leaf: leaf + 0.2 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), tree
    )


# Networks -----------------------------------------------------------------------------------------


def build(**settings: Any) -> tuple[Network, Any]:
    settings = {"memory": "gru", "memory_size": H, "memory_window": 3, **settings}
    config = Config(hidden_sizes=(6,), **settings)
    network, _ = make_network(config, shown(F), BOX if "policy" in settings else Discrete(3))
    return network, shaken(network.init(jax.random.key(0), -0.5))


def window_of(network: Network, params: Any) -> Window:
    """T steps of B environments as rows [B x T], in the middle of episodes."""
    memory = jax.tree.map(
        lambda leaf: normal(2, *leaf.shape) if leaf.dtype != bool else ~leaf,
        network.start(params, B),
    )
    reset = np.random.default_rng(3).random((B, T)) < 0.3
    assert reset[:, 0].any()
    assert not reset[:, 0].all()
    return Window(normal(1, B * T, F), jnp.asarray(reset.reshape(-1)), memory)


def steps_of(window: Window) -> Any:
    """(observation [B, F], reset [B]) of one step after the other."""
    observation = window.observation.reshape(B, T, F)
    return [(observation[:, t], window.reset.reshape(B, T)[:, t]) for t in range(T)]


def fresh(network: Network, params: Any, memory: Any, reset: jax.Array) -> Any:
    start = network.start(params, B)
    return where_rows(reset, start, memory)


def assert_rows(found: Any, steps: list[Any]) -> None:
    """Rows [B x T, ...] hold the T steps [B, ...]; what has no rows is equal in all steps."""
    for leaf, *each in zip(jax.tree.leaves(found), *map(jax.tree.leaves, steps), strict=True):
        rows = np.stack(each, axis=1).reshape(leaf.shape) if leaf.shape[0] == B * T else each[0]
        np.testing.assert_allclose(leaf, rows, atol=1e-5)


@pytest.mark.parametrize("settings", [*SETTINGS, *DEEPER], ids=str)
def test_what_a_window_gives_is_what_acting_gave_step_by_step(settings: dict) -> None:
    """So the ratio of the first minibatch is 1."""
    network, params = build(**settings)
    window = window_of(network, params)
    memory, acted = window.memory, []
    for observation, reset in steps_of(window):
        memory = fresh(network, params, memory, reset)
        memory, distribution = network.act(params, memory, observation)
        acted.append(distribution)
    assert_rows(network.policy(params, window), acted)
    assert_rows(network.apply(params, window)[0], acted)


@pytest.mark.parametrize("settings", [*SETTINGS[:2], *DEEPER], ids=str)
def test_values_of_a_window_are_those_of_the_critics_memory_step_by_step(settings: dict) -> None:
    network, params = build(**settings)
    window = window_of(network, params)
    value, after = network.values(params, window)
    np.testing.assert_allclose(network.apply(params, window)[1], value, atol=1e-6)
    np.testing.assert_allclose(network.value(params, window), value, atol=1e-6)
    memory, by_hand = window.memory, []
    for t, (observation, reset) in enumerate(steps_of(window)):
        memory = fresh(network, params, memory, reset)
        name = "actor" if "shared_torso" in settings else "critic"
        by_hand.append(network.value_after(params, memory[name], observation))
        last = jax.tree.map(lambda leaf, t=t: leaf.reshape(B, T, *leaf.shape[1:])[:, t], after)
        memory = network.carry_on(network.act(params, memory, observation)[0], last)
    assert_rows(value, by_hand)


def test_nothing_flows_over_the_border_of_an_episode() -> None:
    """The gradient of steps 4 .. 6 to what was before the reset at step 4 is 0."""
    network, params = build()
    reset = jnp.zeros((B, T), bool).at[:, 4].set(True).reshape(-1)

    def after(memory: Any, x: jax.Array) -> jax.Array:
        distribution, value = network.apply(params, Window(x.reshape(-1, F), reset, memory))
        late = distribution.logits.reshape(B, T, -1)[:, 4:], value.reshape(B, T)[:, 4:]
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in late)

    by_memory, by_x = jax.grad(after, (0, 1))(network.start(params, B), normal(1, B, T, F))
    for leaf in [*jax.tree.leaves(by_memory), by_x[:, :4]]:
        np.testing.assert_array_equal(leaf, 0.0)
    assert np.all(np.asarray(by_x[:, 4:]) != 0.0)


def test_a_memory_carries_what_was_seen_to_the_end_of_the_window() -> None:
    network, params = build()
    never = jnp.zeros(B * T, bool)

    def last(memory: Any, x: jax.Array) -> jax.Array:
        distribution, value = network.apply(params, Window(x.reshape(-1, F), never, memory))
        return jnp.sum(distribution.logits.reshape(B, T, -1)[:, -1, 0]) + jnp.sum(
            value.reshape(B, T)[:, -1]
        )

    by_memory, by_x = jax.grad(last, (0, 1))(network.start(params, B), normal(1, B, T, F))
    assert np.all(np.asarray(by_x) != 0.0)
    assert by_memory.keys() == {"actor", "critic"}
    for leaf in jax.tree.leaves(by_memory):
        assert np.all(np.asarray(leaf) != 0.0)


def test_a_shared_torso_has_one_memory_for_both() -> None:
    network, params = build(shared_torso=True)
    assert network.start(params, B).keys() == {"actor"}
    separate = build()[1]
    count, more = (sum(x.size for x in jax.tree.leaves(tree)) for tree in (params, separate))
    assert count == more - (F * 6 + 6) - (6 * 3 * H + H * 3 * H + 4 * H)  # a torso and a core


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_first_standard_deviation_is_log_std_init_as_without_a_memory(settings: dict) -> None:
    config = Config(memory="gru", memory_size=H, hidden_sizes=(6,), **{**settings})
    if "policy" not in settings:
        config = Config(memory="gru", memory_size=H, hidden_sizes=(6,), policy="gaussian")
    network, _ = make_network(config, shown(F), BOX)
    params = network.init(jax.random.key(0), -1.5)
    observation = normal(1, B, F)
    _, distribution = network.act(params, network.start(params, B), observation)
    if settings.get("policy") == "gsde":
        assert params["log_std"].shape == (H, 2)
        np.testing.assert_array_equal(params["log_std"], -1.5)
    elif settings.get("policy") == "gaussian-state-std":
        np.testing.assert_allclose(distribution.log_std, -1.5, atol=0.05)  # the head's gain: 0.01
    else:
        np.testing.assert_array_equal(distribution.log_std, np.full((B, 2), -1.5))
