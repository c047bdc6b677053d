"""The shared loss: gradient identities at theta_old, and a slow NumPy loop over its samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from ppo_jax import envs
from ppo_jax.config import OBJECTIVES, Config, Hyper
from ppo_jax.densities import Categorical
from ppo_jax.distributions import Family, make_family
from ppo_jax.envs.interface import Box, Discrete, MultiDiscrete
from ppo_jax.networks import Network, make_network
from ppo_jax.objectives import SURROGATES, minibatch_loss
from ppo_jax.types import Batch

BOX = Box((2,), np.array([-1.0, -2.0]), np.array([1.0, 3.0]))
POLICIES = {
    "categorical": ("categorical", Discrete(3)),
    "multi-categorical": ("categorical", MultiDiscrete((3, 2))),
    "gaussian": ("gaussian", BOX),
    "gaussian-state-std": ("gaussian-state-std", BOX),
    "gsde": ("gsde", BOX),
    "tanh-gaussian": ("tanh-gaussian", BOX),
}
HYPER = Hyper(entropy_coef=0.03, value_coef=0.7, kl_coef=0.9, value_clip_epsilon=0.2)


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def draw_batch(network: Network, family: Family, params: Any, shape: tuple, size: int) -> Batch:
    """A batch as the rollout makes one: `params` are those of pi_old, which draws the actions."""
    rng = np.random.default_rng(1)
    observation = jnp.asarray(rng.normal(size=(size, *shape)))
    distribution, value = network.apply(params, observation)
    noise = family.draw_noise(jax.random.key(2), size)
    draw = family.draw(jax.random.key(3), (size,))
    action = family.sample(draw, distribution, noise)
    return Batch(
        observation=observation,
        action=action,
        log_prob_old=family.log_prob(distribution, action),
        distribution_old=family.keep(distribution),
        value_old=value,
        advantage=jnp.asarray(rng.normal(size=size)),
        value_target=value + jnp.asarray(rng.normal(size=size)),
    )


def gradient_of(name: str, config: Config, network: Network, family: Family) -> Any:
    """(params, batch) -> the gradient of the objective's loss, compiled."""
    config = dataclasses.replace(config, objective=name)

    def loss(params: Any, batch: Batch) -> tuple[jax.Array, Any]:
        return minibatch_loss(params, batch, HYPER, config, network, family)

    return jax.jit(lambda *args: jax.grad(loss, has_aux=True)(*args)[0])


@pytest.mark.parametrize("policy", POLICIES)
def test_at_the_old_policy_every_objective_has_the_policy_gradient(policy: str) -> None:
    """nabla L^PG = nabla L^IS = nabla L^CLIP = nabla (r A - drift) = nabla (r A - beta KL)."""
    word, space = POLICIES[policy]
    config = Config(policy=word, hidden_sizes=(6,))
    network, family = make_network(config, (3,), space)
    params = jax.jit(network.init)(jax.random.key(0), -0.3)
    batch = jax.jit(lambda p: draw_batch(network, family, p, (3,), 16))(params)

    @jax.jit
    def gradients(params: Any) -> dict[str, jax.Array]:
        every = {name: gradient_of(name, config, network, family) for name in OBJECTIVES}
        return {name: ravel_pytree(f(params, batch))[0] for name, f in every.items()}

    at_old = gradients(params)
    assert np.abs(at_old["pg"]).max() > 1e-3
    for name in OBJECTIVES:
        np.testing.assert_allclose(at_old[name], at_old["pg"], atol=1e-10, err_msg=name)

    flat, unravel = ravel_pytree(params)
    away = gradients(unravel(flat + 0.3 * np.random.default_rng(4).normal(size=flat.shape)))
    for name in OBJECTIVES[1:]:
        assert np.abs(away[name] - away["clip"]).max() > 1e-4, name


def test_the_table_has_a_row_for_every_objective() -> None:
    assert set(SURROGATES) == set(OBJECTIVES)


# Against a loop -----------------------------------------------------------------------------------

NUM_ACTIONS = 3


def linear_network() -> tuple[Network, Family]:
    """logits = W s, V = w . s: what a loop can do by hand."""
    family = make_family("categorical", Discrete(NUM_ACTIONS), 1)

    def apply(params: Any, observation: jax.Array) -> tuple[Categorical, jax.Array]:
        return Categorical(observation @ params["policy"]), observation @ params["value"]

    return Network(lambda key: None, apply, lambda params, s: s @ params["value"]), family


@cache
def loop_batch(size: int = 40) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Batch]:
    """New and old parameters far enough apart for ratios on both sides of the clip."""
    rng = np.random.default_rng(5)
    old = {"policy": rng.normal(size=(4, NUM_ACTIONS)), "value": rng.normal(size=4)}
    new = {name: x + 0.4 * rng.normal(size=x.shape) for name, x in old.items()}
    network, family = linear_network()
    draw = jax.jit(lambda params: draw_batch(network, family, params, (4,), size))
    batch = draw(jax.tree.map(jnp.asarray, old))
    return new, old, batch


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())


def surrogate_of(name: str, log_prob: float, ratio: float, a: float, kl: float) -> float:
    """The objective to be *maximised*, as the papers write it."""
    eps = HYPER.clip_epsilon
    if name == "pg":
        return log_prob * a
    if name == "is":
        return ratio * a
    if name == "clip":
        return min(ratio * a, max(min(ratio, 1 + eps), 1 - eps) * a)
    if name == "kl":
        return ratio * a - HYPER.kl_coef * kl
    if name == "spo":
        return ratio * a - abs(a) * (ratio - 1) ** 2 / (2 * eps)
    x, scale = ((ratio - 1) * a, 2.0) if a >= 0 else (math.log(ratio) * a, 0.6)
    return ratio * a - max(0.0, x - scale * math.tanh(x / scale))


def loop(name: str, new: dict, old: dict, batch: Batch) -> dict[str, float]:
    rows: dict[str, list[float]] = {
        key: [] for key in ("policy", "value", "entropy", "kl", "ratio", "clipped", "log_ratio")
    }
    for i in range(len(batch.advantage)):
        s, action = np.asarray(batch.observation[i]), int(batch.action[i])
        log_new, log_old = (log_softmax(s @ params["policy"]) for params in (new, old))
        kl = float(sum(math.exp(o) * (o - n) for o, n in zip(log_old, log_new)))
        log_ratio = float(log_new[action] - log_old[action])
        ratio, a = math.exp(log_ratio), float(batch.advantage[i])
        v, v_old, target = s @ new["value"], s @ old["value"], float(batch.value_target[i])
        eps = HYPER.value_clip_epsilon
        v_clipped = v_old + min(max(v - v_old, -eps), eps)
        rows["policy"].append(-surrogate_of(name, log_new[action], ratio, a, kl))
        rows["value"].append(0.5 * max((v - target) ** 2, (v_clipped - target) ** 2))
        rows["entropy"].append(-sum(math.exp(n) * n for n in log_new))
        rows["kl"].append(kl)
        rows["ratio"].append(ratio)
        rows["clipped"].append(float(abs(ratio - 1) > HYPER.clip_epsilon))
        rows["log_ratio"].append(abs(log_ratio))
    mean = {key: float(np.mean(x)) for key, x in rows.items()}
    return {
        "total": mean["policy"] + 0.7 * mean["value"] - 0.03 * mean["entropy"],
        "policy_loss": mean["policy"],
        "value_loss": mean["value"],
        "entropy": mean["entropy"],
        "kl_old_new": mean["kl"],
        "clip_fraction": mean["clipped"],
        "ratio_mean": mean["ratio"],
        "ratio_square_mean": float(np.mean(np.square(rows["ratio"]))),
        "ratio_max": max(rows["ratio"]),
        "log_ratio_abs_max": max(rows["log_ratio"]),
    }


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_diagnostics_are_those_of_a_loop_over_samples(name: str) -> None:
    new, old, batch = loop_batch()
    network, family = linear_network()
    params = jax.tree.map(jnp.asarray, new)
    config = Config(objective=name)
    total, diagnostics = jax.jit(
        lambda params, batch: minibatch_loss(params, batch, HYPER, config, network, family)
    )(params, batch)
    expected = loop(name, new, old, batch)
    assert 0.1 < expected["clip_fraction"] < 0.9
    found = {"total": float(total), **{key: float(x) for key, x in diagnostics.items()}}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-10), key


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_that_of_the_loop_by_finite_differences(name: str) -> None:
    new, old, batch = loop_batch(12)
    network, family = linear_network()
    gradient = gradient_of(name, Config(), network, family)(jax.tree.map(jnp.asarray, new), batch)
    rng = np.random.default_rng(6)
    for _ in range(3):
        direction = {key: rng.normal(size=x.shape) for key, x in new.items()}

        def at(step: float, direction: dict = direction) -> float:
            moved = {key: x + step * direction[key] for key, x in new.items()}
            return loop(name, moved, old, batch)["total"]

        slope = (at(1e-6) - at(-1e-6)) / 2e-6
        found = sum(float(np.sum(gradient[key] * direction[key])) for key in new)
        assert found == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_only_the_vanilla_gradient_ignores_what_the_old_policy_thought() -> None:
    """L^PG knows no pi_old: its loss does not move with log_prob_old; L^IS's does."""
    new, _, batch = loop_batch(8)
    network, family = linear_network()
    params = jax.tree.map(jnp.asarray, new)

    def loss(log_prob_old: jax.Array, name: str) -> jax.Array:
        moved = batch._replace(log_prob_old=log_prob_old)
        config = Config(objective=name)
        return minibatch_loss(params, moved, HYPER, config, network, family)[0]

    np.testing.assert_array_equal(jax.grad(loss)(batch.log_prob_old, "pg"), 0.0)
    assert np.all(np.asarray(jax.grad(loss)(batch.log_prob_old, "is")) != 0.0)


def test_entropy_is_rewarded_and_value_error_punished() -> None:
    new, _, batch = loop_batch(8)
    network, family = linear_network()
    params = jax.tree.map(jnp.asarray, new)

    def total(**numbers: float) -> float:
        hyper = dataclasses.replace(HYPER, **numbers)
        return float(minibatch_loss(params, batch, hyper, Config(), network, family)[0])

    assert total(entropy_coef=1.0) < total(entropy_coef=0.0)
    assert total(value_coef=1.0) > total(value_coef=0.0)


def test_in_single_precision_on_a_real_environment_the_identity_holds_too() -> None:
    with jax.enable_x64(False):
        environment = envs.make("probe:action-choice")
        shape = environment.observation_shape
        config = Config(env="probe:action-choice", hidden_sizes=(8,))
        network, family = make_network(config, shape, environment.action_space)
        params = jax.jit(network.init)(jax.random.key(0), 0.0)
        batch = jax.jit(lambda p: draw_batch(network, family, p, shape, 32))(params)
        gradients = [
            ravel_pytree(gradient_of(name, config, network, family)(params, batch))[0]
            for name in ("pg", "is", "clip")
        ]
        assert gradients[0].dtype == jnp.float32
        for gradient in gradients[1:]:
            np.testing.assert_allclose(gradient, gradients[0], atol=1e-5)
