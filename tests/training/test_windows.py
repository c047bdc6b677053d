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
from dials import dials
from jax.flatten_util import ravel_pytree
from objective_cases import VARIANTS
from own_network import RECURRENT_NETWORK
from toy import jit

from ppo_jax.config.config import Config, Hyper
from ppo_jax.envs.interface import Discrete, Environment
from ppo_jax.kernels.collectives import ALONE
from ppo_jax.models.agent import assemble
from ppo_jax.models.network import make_network
from ppo_jax.rl.types import Batch, Rollout, TrainState, Window
from ppo_jax.training import objectives, trainer
from ppo_jax.training.batch import make_batch
from ppo_jax.training.update import take_minibatches

pytestmark = pytest.mark.slow

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
        distribution = network.policy(second.params, steps.window.by_environment())
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


def test_every_objective_has_the_policy_gradient_with_joint_masks_a_dict_and_a_memory() -> None:
    """At the old policy; L^PG, L^CLIP and the penalties part away from it. Masks are kept."""
    shows = {"env": dials(), "memory": "lru", "previous_inputs": "action+reward+start"}
    config = dataclasses.replace(CONFIG, **shows)
    _, state, steps = second_window(config)
    _, network, family = assemble(config)
    hyper = Hyper(entropy_coef=0.1, kl_coef=0.5)

    @jit
    def gradients(params: Any, batch: Batch) -> dict[str, jax.Array]:
        found = {}
        for name, fields in VARIANTS.items():
            own = dataclasses.replace(config, **fields)

            def loss(p: Any, own: Config = own) -> Any:
                return objectives.minibatch_loss(p, batch, hyper, own, network, family)[0]

            found[name] = ravel_pytree(jax.grad(loss)(params))[0]
        return found

    batch = batch_of(config, hyper, steps)
    legal = np.asarray(steps.window.observation["action_mask"])
    assert 0.3 < legal.mean() < 0.9
    at_old = gradients(state.params, batch)
    assert np.max(np.abs(at_old["pg"])) > 0.1
    away = gradients(jax.tree.map(lambda leaf: 1.2 * leaf, state.params), batch)
    for name in VARIANTS:
        np.testing.assert_allclose(at_old[name], at_old["pg"], atol=2e-5, err_msg=name)
        assert np.all(np.isfinite(away[name])), name
        assert name == "pg" or np.max(np.abs(away[name] - away["pg"])) > 1e-3, name


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def gru_of_one(params: Any, h: float, x: np.ndarray) -> float:
    """A cell with one unit, by its equations."""
    r, z, n = x @ params["input"] + params["bias"]
    u_r, u_z, u_n = h * params["memory"][0]
    r, z = sigmoid(r + u_r), sigmoid(z + u_z)
    return (1.0 - z) * np.tanh(n + r * (u_n + params["memory_bias"][0])) + z * h


def loss_by_hand(params: Any, batch: Batch, hyper: Hyper) -> float:
    """The mean loss, one environment and one step after the other."""
    body, total, window = params["body"], 0.0, batch.window
    num_envs = len(window.memory["actor"])
    for b in range(num_envs):
        h = {name: window.memory[name][b, 0] for name in ("actor", "critic")}
        for i in range(b * T, b * T + T):
            for name in h:
                layer = body["net"][f"{name}_torso"]["Dense_0"]
                x = np.tanh(window.observation[i] @ layer["kernel"] + layer["bias"])
                h[name] = gru_of_one(body[name], 0.0 if window.reset[i] else h[name], x)
            head, critic = body["net"]["policy_head"], body["net"]["value_head"]
            logits = h["actor"] * head["kernel"][0] + head["bias"]
            log_probs = logits - np.log(np.sum(np.exp(logits)))
            value = h["critic"] * critic["kernel"][0, 0] + critic["bias"][0]
            ratio = np.exp(log_probs[batch.action[i]] - batch.log_prob_old[i])
            low, high = 1.0 - hyper.clip_epsilon, 1.0 + hyper.clip_epsilon
            gain = batch.advantage[i] * np.array([ratio, np.clip(ratio, low, high)])
            entropy = -np.sum(np.exp(log_probs) * log_probs)
            error = 0.5 * (value - batch.value_target[i]) ** 2
            total += -gain.min() + hyper.value_coef * error - hyper.entropy_coef * entropy
    return total / (num_envs * T)


def test_the_gradient_of_a_window_is_that_of_a_loop_over_environments_and_steps(
    double: None,
) -> None:
    """A GRU of one unit, resets in mid-window, and a memory from the window before."""
    config = Config(memory="gru", memory_size=1, hidden_sizes=(2,), num_envs=2, rollout_length=T)
    hyper, rng = Hyper(entropy_coef=0.1, clip_epsilon=0.3), np.random.default_rng(0)
    spec = jax.ShapeDtypeStruct((2,), "float64")
    network, family = make_network(config, spec, Discrete(3))
    params = shaken(network.init(jax.random.key(0)))
    n = 2 * T
    reset = np.zeros((2, T), bool)
    reset[[0, 0, 1], [3, 7, 5]] = True
    memory = {name: rng.normal(size=(2, 1)) for name in ("actor", "critic")}
    window = Window(rng.normal(size=(n, 2)), reset.ravel(), memory)
    old = network.policy(params, jax.tree.map(jnp.asarray, window))
    log_probs = np.asarray(jax.nn.log_softmax(old.logits))
    action = rng.integers(3, size=n)
    batch = Batch(
        window=window,
        action=action,
        log_prob_old=log_probs[np.arange(n), action] + rng.normal(0.0, 0.2, n),
        distribution_old=old,
        value_old=rng.normal(size=n),
        advantage=rng.normal(size=n),
        value_target=rng.normal(size=n),
    )

    @jit
    def gradient(params: Any) -> Any:
        def loss(p: Any) -> jax.Array:
            return objectives.minibatch_loss(p, batch, hyper, config, network, family)[0]

        return jax.value_and_grad(loss)(params)

    loss, found = gradient(params)
    flat, restore = ravel_pytree(params)
    flat, by_hand = np.asarray(flat), partial(loss_by_hand, batch=batch, hyper=hyper)

    def at(vector: np.ndarray) -> float:
        return by_hand(jax.tree.map(np.asarray, restore(jnp.asarray(vector))))

    np.testing.assert_allclose(loss, at(flat), rtol=1e-12)
    steps = 1e-5 * np.eye(len(flat))
    expected = [(at(flat + step) - at(flat - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(ravel_pytree(found)[0], expected, atol=1e-8)
    assert np.count_nonzero(np.abs(expected) > 1e-4) > 0.8 * len(flat)
