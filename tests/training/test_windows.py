"""Windows of a memory: ratios of 1 with mutants, gradients by a loop, whole environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counter import CounterParams, counter
from jax.flatten_util import ravel_pytree
from own_network import RECURRENT_NETWORK
from toy import jit

from ppo_jax.config.config import Config, Hyper
from ppo_jax.envs.interface import Environment
from ppo_jax.kernels.collectives import ALONE
from ppo_jax.models.agent import assemble
from ppo_jax.rl.types import Batch, Rollout, TrainState
from ppo_jax.training import objectives, trainer
from ppo_jax.training.batch import make_batch
from ppo_jax.training.rollout import by_environment
from ppo_jax.training.update import take_minibatches

T, B = 9, 8


def ending() -> Environment:
    """The counter, whose episodes end after 3 to 6 steps."""
    return counter()._replace(default_params=CounterParams(np.int32(3), spread=np.int32(3)))


CONFIG = Config(
    env=ending(),
    memory="gru",
    memory_size=4,
    memory_window=3,
    hidden_sizes=(3,),
    num_envs=B,
    rollout_length=T,
    num_minibatches=2,
    normalize_advantages="none",
    normalize_observations=True,
    total_env_steps=T * B,
)
NETWORKS: dict[str, dict[str, Any]] = {
    "gru": {},
    "lstm": {"memory": "lstm", "shared_torso": True},
    "mingru": {"memory": "mingru", "memory_start": "learned"},
    "lru": {"memory": "lru", "memory_layers": 2},
    "attention": {"memory": "attention", "previous_inputs": "action+reward+start"},
    "own": {"memory": "none", "network": RECURRENT_NETWORK},
}


def shaken(tree: Any) -> Any:
    """Parameters away from their start: louder, and every bias and start counts."""
    return jax.tree.map(
        lambda leaf: 2.0 * leaf + 0.3 * jnp.cos(jnp.arange(leaf.size * 1.0)).reshape(leaf.shape),
        tree,
    )


def second_window(config: Config) -> tuple[TrainState, TrainState, Rollout]:
    """The states before two windows that follow each other, and the rollout of the second."""
    state = jit(partial(trainer.init, config, Hyper()))(jax.random.key(0))
    seen = state.observation_moments._replace(count=jnp.float32(9.0))
    seen = seen._replace(m2=jax.tree.map(lambda leaf: leaf + 90.0, seen.m2))
    first = state._replace(params=shaken(state.params), observation_moments=seen)
    sample = jit(lambda s: trainer.sample(config, Hyper(), s)[0])
    experience = sample(first)
    second = first._replace(carry=experience.carry, iteration=first.iteration + 1)
    return first, second, sample(second).rollout


# Ratios -------------------------------------------------------------------------------------------


def memory_after_the_step(steps: Rollout, act: Callable, before: Any) -> Rollout:
    first = jax.tree.map(lambda leaf: leaf[0], steps.window.observation)
    memory = act(steps.window.memory, first)
    return steps._replace(window=steps.window._replace(memory=memory))


def memory_of_the_window_before(steps: Rollout, act: Callable, before: Any) -> Rollout:
    return steps._replace(window=steps.window._replace(memory=before))


def flag_of_the_end_in_place_of_the_start(steps: Rollout, act: Callable, before: Any) -> Rollout:
    ended = steps.terminated | steps.truncated
    return steps._replace(window=steps.window._replace(reset=ended))


MUTANTS = (
    memory_after_the_step,
    memory_of_the_window_before,
    flag_of_the_end_in_place_of_the_start,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_ratios_of_a_second_window_are_one_and_the_known_mistakes_show(name: str) -> None:
    config = dataclasses.replace(CONFIG, **NETWORKS[name])
    first, second, steps = second_window(config)
    network, family = assemble(config)[1:]
    act = jit(lambda memory, x: network.act(second.params, memory, x)[0])
    reset = np.asarray(steps.window.reset)
    assert 0.1 < reset[1:].mean() < 0.4
    np.testing.assert_array_equal(reset[0], second.carry.episode_length == 0)

    @jit
    def largest(steps: Rollout) -> jax.Array:
        distribution = network.policy(second.params, by_environment(steps.window))
        action = jnp.swapaxes(steps.action, 0, 1).reshape(-1)
        log_prob = family.log_prob(distribution, action)
        return jnp.max(jnp.abs(log_prob - jnp.swapaxes(steps.log_prob, 0, 1).reshape(-1)))

    assert largest(steps) <= 1e-5
    for mutant in MUTANTS:
        assert largest(mutant(steps, act, first.carry.memory)) > 1e-3, mutant.__name__


# Gradients ----------------------------------------------------------------------------------------


def batch_of(config: Config, hyper: Hyper, steps: Rollout) -> Batch:
    nothing: Any = (0.0, 0.0, 0.0)
    return make_batch(config, hyper, steps, steps.reward, nothing, ALONE)[0]


def chosen(steps: Rollout, envs: list[int]) -> Rollout:
    """The rollout of some environments."""
    memory = jax.tree.map(lambda leaf: leaf[jnp.array(envs)], steps.window.memory)
    rest = jax.tree.map(
        lambda leaf: leaf[:, jnp.array(envs)],
        steps._replace(window=steps.window._replace(memory=())),
    )
    return rest._replace(window=rest.window._replace(memory=memory))


@pytest.mark.parametrize("name", ["gru", "attention"])
def test_a_minibatch_of_two_environments_has_the_gradient_of_these_two_alone(name: str) -> None:
    config, hyper = dataclasses.replace(CONFIG, **NETWORKS[name]), Hyper(entropy_coef=0.1)
    _, state, steps = second_window(config)
    _, network, family = assemble(config)

    @jit
    def gradient(batch: Batch) -> tuple[jax.Array, jax.Array]:
        def loss(params: Any) -> Any:
            return objectives.minibatch_loss(params, batch, hyper, config, network, family)

        found, (_, log_ratio) = jax.grad(loss, has_aux=True)(shaken(state.params))
        return ravel_pytree(found)[0], log_ratio

    batch = batch_of(config, hyper, steps)
    rows = jnp.concatenate([3 * T + jnp.arange(T), 7 * T + jnp.arange(T)])
    taken, log_ratio = gradient(take_minibatches(batch, B)(rows))
    alone, expected = gradient(batch_of(config, hyper, chosen(steps, [3, 7])))
    assert np.max(np.abs(taken)) > 0.1
    np.testing.assert_allclose(taken, alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_ratio, expected, atol=1e-6)
    turned, order = gradient(batch_of(config, hyper, chosen(steps, [7, 3])))
    np.testing.assert_allclose(turned, alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(order.reshape(2, T)[::-1].ravel(), expected, atol=1e-6)
