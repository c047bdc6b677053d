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
from networks import network_of, shown
from objective_cases import POLICIES, SMALL, VARIANTS, draw_batch, jit, train

from ppo_jax.config.config import Config, Hyper
from ppo_jax.envs.interface import Discrete
from ppo_jax.models.body import Network
from ppo_jax.models.network import make_network
from ppo_jax.models.policy_head import Family, make_family
from ppo_jax.rl import advantages
from ppo_jax.rl.distributions import Categorical
from ppo_jax.rl.types import Batch, Setting
from ppo_jax.training.objectives import (
    SURROGATES,
    TRUST_REGION,
    find_surrogate,
    gradient_cosine,
    minibatch_loss,
)

HYPER = Hyper(
    entropy_coef=0.03,
    value_coef=0.7,
    kl_coef=0.9,
    value_clip_epsilon=0.2,
    clip_epsilon_high=0.3,
    dual_clip=1.4,
)


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def gradient_of(name: str, config: Config, network: Network, family: Family) -> Any:
    """(params, batch) -> the gradient of the objective's loss."""
    config = dataclasses.replace(config, **VARIANTS[name])

    def loss(params: Any, batch: Batch) -> tuple[jax.Array, Any]:
        return minibatch_loss(params, batch, HYPER, config, network, family)

    return lambda *args: jax.grad(loss, has_aux=True)(*args)[0]


@pytest.mark.parametrize("policy", POLICIES)
def test_at_the_old_policy_every_objective_has_the_policy_gradient(policy: str) -> None:
    """nabla L^PG = nabla L^IS = nabla L^CLIP = nabla (r A - drift) = nabla (r A - beta KL)."""
    word, space = POLICIES[policy]
    config = Config(policy=word, hidden_sizes=(6,))
    network, family = make_network(config, shown(3), space)
    params = jit(network.init)(jax.random.key(0), -0.3)
    batch = jit(lambda p: draw_batch(network, family, p, (3,), 16))(params)

    @jit
    def gradients(params: Any) -> dict[str, jax.Array]:
        every = {name: gradient_of(name, config, network, family) for name in VARIANTS}
        return {name: ravel_pytree(f(params, batch))[0] for name, f in every.items()}

    at_old = gradients(params)
    assert np.abs(at_old["pg"]).max() > 1e-3
    for name in VARIANTS:
        np.testing.assert_allclose(at_old[name], at_old["pg"], atol=1e-10, err_msg=name)

    flat, unravel = ravel_pytree(params)
    away = gradients(unravel(flat + 0.3 * np.random.default_rng(4).normal(size=flat.shape)))
    alike = {*TRUST_REGION, "is"}  # the trust region's surrogate is L^IS itself
    for i, name in enumerate(VARIANTS):
        for other in list(VARIANTS)[:i]:
            difference = np.abs(away[name] - away[other]).max()
            if {name, other} <= alike:
                assert difference == 0.0
            else:
                assert difference > 1e-5, (name, other)


def test_every_objective_finds_its_surrogate() -> None:
    for name, fields in VARIANTS.items():
        found = find_surrogate(Config(**fields))
        if name in SURROGATES:
            assert found is SURROGATES[name]
    assert {*SURROGATES, *TRUST_REGION, "drift"} == set(VARIANTS)


# Against a loop -----------------------------------------------------------------------------------

NUM_ACTIONS = 3


def linear_network() -> tuple[Network, Family]:
    """logits = W s, V = w . s: simple enough for a loop by hand."""
    family = make_family("categorical", Discrete(NUM_ACTIONS), 1)

    def policy(params: Any, observation: jax.Array) -> Categorical:
        return Categorical(observation @ params["policy"])

    def value(params: Any, observation: jax.Array) -> jax.Array:
        return observation @ params["value"]

    return network_of(policy, value), family


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


def surrogate_of(
    name: str, log_prob: float, ratio: float, a: float, kl: float, kl_new_old: float
) -> float:
    """The objective to be *maximised*, as in the papers."""
    eps, high = HYPER.clip_epsilon, HYPER.clip_epsilon_high
    if name == "pg":
        return log_prob * a
    if name in ("is", "trpo", "npg"):
        return ratio * a
    if name == "clip":
        objective = min(ratio * a, max(min(ratio, 1 + high), 1 - eps) * a)
        return max(objective, HYPER.dual_clip * a) if a < 0 else objective
    if name.startswith("kl"):
        return ratio * a - HYPER.kl_coef * (kl_new_old if name == "kl new-old" else kl)
    if name == "drift":
        return ratio * a - abs(a) * (ratio - 1) ** 4
    if name == "spo":
        return ratio * a - abs(a) * (ratio - 1) ** 2 / (2 * eps)
    x, scale = ((ratio - 1) * a, 2.0) if a >= 0 else (math.log(ratio) * a, 0.6)
    return ratio * a - max(0.0, x - scale * math.tanh(x / scale))


def loop(name: str, new: dict, old: dict, batch: Batch) -> dict[str, Any]:
    words = ("policy", "value", "entropy", "kl", "kl_new_old", "log_ratio")
    rows: dict[str, list[float]] = {key: [] for key in words}
    for i in range(len(batch.advantage)):
        s, action = np.asarray(batch.window.observation[i]), int(batch.action[i])
        log_new, log_old = (log_softmax(s @ params["policy"]) for params in (new, old))
        kl = float(sum(math.exp(o) * (o - n) for o, n in zip(log_old, log_new)))
        kl_new_old = float(sum(math.exp(n) * (n - o) for o, n in zip(log_old, log_new)))
        log_ratio = float(log_new[action] - log_old[action])
        ratio, a = math.exp(log_ratio), float(batch.advantage[i])
        v, v_old, target = s @ new["value"], s @ old["value"], float(batch.value_target[i])
        eps = HYPER.value_clip_epsilon
        v_clipped = v_old + min(max(v - v_old, -eps), eps)
        rows["policy"].append(-surrogate_of(name, log_new[action], ratio, a, kl, kl_new_old))
        rows["value"].append(0.5 * max((v - target) ** 2, (v_clipped - target) ** 2))
        rows["entropy"].append(-sum(math.exp(n) * n for n in log_new))
        rows["kl"].append(kl)
        rows["kl_new_old"].append(kl_new_old)
        rows["log_ratio"].append(log_ratio)
    mean = {key: float(np.mean(x)) for key, x in rows.items()}
    return {
        "total": mean["policy"] + 0.7 * mean["value"] - 0.03 * mean["entropy"],
        "policy_loss": mean["policy"],
        "value_loss": mean["value"],
        "entropy": mean["entropy"],
        "kl_old_new": mean["kl"],
        "kl_new_old": mean["kl_new_old"],
        "log_ratio": rows["log_ratio"],
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_diagnostics_are_those_of_a_loop_over_samples(name: str) -> None:
    new, old, batch = loop_batch()
    network, family = linear_network()
    params = jax.tree.map(jnp.asarray, new)
    config = Config(**VARIANTS[name])
    total, (means, log_ratio) = jit(
        lambda params, batch: minibatch_loss(params, batch, HYPER, config, network, family)
    )(params, batch)
    expected = loop(name, new, old, batch)
    ratio = np.exp(expected["log_ratio"])
    assert 0.1 < np.mean((ratio < 0.8) | (ratio > 1.3)) < 0.9  # both sides of the clip are met
    found = {"total": total, **means, "log_ratio": log_ratio}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_gradient_is_that_of_the_loop_by_finite_differences(name: str) -> None:
    new, old, batch = loop_batch(12)
    network, family = linear_network()
    gradient_at = jit(gradient_of(name, Config(), network, family))
    gradient = gradient_at(jax.tree.map(jnp.asarray, new), batch)
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
    """L^PG does not use pi_old: its loss does not change with log_prob_old; L^IS's does."""
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


# The cosine between L^PG and L^IS -----------------------------------------------------------------


@pytest.mark.parametrize("normalize", ["minibatch", "none"])
def test_the_gradients_of_l_pg_and_l_is_agree_at_the_old_policy_and_part_with_distance(
    normalize: str,
) -> None:
    """The gradient by the logits W of sum A log pi is sum A s (e_a - pi)', with r A for L^IS."""
    new, old, batch = loop_batch(200)
    network, family = linear_network()
    config = Config(normalize_advantages=normalize)
    measure = jit(lambda p, b: gradient_cosine(p, b, Setting(config, HYPER), network, family))
    s, action = np.asarray(batch.window.observation), np.asarray(batch.action)
    # A mean far from 0 shows whether advantages were standardised.
    batch = batch._replace(advantage=batch.advantage + 0.7)
    a = np.asarray(batch.advantage)
    if normalize == "minibatch":
        a = np.asarray(advantages.standardise(a, a.mean(), a.var()))
    log_old = np.stack([log_softmax(row) for row in s @ old["policy"]])
    cosines = []
    for distance in (0.0, 0.25, 0.5, 1.0, 2.0):
        at = {name: old[name] + distance * (new[name] - old[name]) for name in old}
        log_new = np.stack([log_softmax(row) for row in s @ at["policy"]])
        rows = np.arange(len(a)), action
        ratio = np.exp(log_new[rows] - log_old[rows])
        score = np.eye(NUM_ACTIONS)[action] - np.exp(log_new)
        pg, weighted = (np.einsum("n,ni,nj->ij", w * a, s, score) for w in (1.0, ratio))
        expected = np.sum(pg * weighted) / np.linalg.norm(pg) / np.linalg.norm(weighted)
        found = measure(jax.tree.map(jnp.asarray, at), batch)
        assert float(found["gradient_cosine"]) == pytest.approx(expected, abs=1e-10)
        assert float(found["ess_fraction_probe"]) == pytest.approx(
            ratio.mean() ** 2 / np.mean(ratio**2), rel=1e-10
        )
        kl = np.mean(np.sum(np.exp(log_old) * (log_old - log_new), axis=1))
        assert float(found["kl_old_new_probe"]) == pytest.approx(kl, abs=1e-10)
        cosines.append(float(found["gradient_cosine"]))
    assert cosines[0] == pytest.approx(1.0, abs=1e-12)
    assert np.all(np.diff(cosines) < 0.0)
    assert cosines[-1] < 0.95


def test_samples_that_are_left_out_have_no_part_in_the_probe() -> None:
    """Weights of any mean; the numbers are those of the kept rows alone."""
    new, _, batch = loop_batch(40)
    network, family = linear_network()
    setting = Setting(Config(normalize_advantages="minibatch"), HYPER)
    measure = jit(lambda batch: gradient_cosine(new, batch, setting, network, family))
    weighted = batch._replace(weight=jnp.where(jnp.arange(40) < 30, 1.7, 0.0))
    kept = jax.tree.map(lambda leaf: leaf[:30], batch)
    expected = jax.tree.map(float, measure(kept))
    assert jax.tree.map(float, measure(weighted)) == pytest.approx(expected, rel=1e-10)


# Factors that follow the KL, in whole runs --------------------------------------------------------


def test_an_adaptive_beta_follows_the_rule_in_a_run_for_each_member_alone() -> None:
    """Replayed from the KLs that the run reports; with one epoch they are the ones it used."""
    config = Config(**{**SMALL, "num_epochs": 1, "num_minibatches": 8}, objective="kl")
    targets = np.array([np.inf, 1e-9, 3e-3, 1e3], np.float32)
    state, rows = train(config, Hyper(learning_rate=0.05, kl_coef=0.5, kl_target=targets))
    assert np.all(rows["kl_coef"][0] == 0.5)
    np.testing.assert_array_equal(rows["kl_coef"][1, :4], 0.5 * 2.0 ** np.arange(1, 5))
    np.testing.assert_array_equal(rows["kl_coef"][3], 0.5 * 2.0 ** -np.arange(1.0, 7))
    for member in (1, 2):
        factor, script, target = 1.0, [], targets[member]
        for kl in rows["kl_old_new"][member]:
            factor *= 2.0 if kl > 1.5 * target else 0.5 if kl < target / 1.5 else 1.0
            script.append(0.5 * factor)
        np.testing.assert_array_equal(rows["kl_coef"][member], script)
    np.testing.assert_array_equal(2.0 * rows["kl_coef"][:, -1], state.adapted.kl_coef)
    assert len(np.unique(rows["policy_loss"][:, -1])) == 4  # and it is learnt with


def test_an_adaptive_learning_rate_moves_in_a_run_for_each_member_alone() -> None:
    """With a target out of reach every epoch raises it, and so does the next iteration."""
    targets = np.array([np.inf, 1e-9, 1e3], np.float32)
    config = Config(**{**SMALL, "total_env_steps": 64 * 2})
    state, rows = train(config, Hyper(learning_rate=1e-3, kl_lr_target=targets))
    assert np.all(rows["learning_rate"][0] == np.float32(1e-3))
    assert np.all(rows["learning_rate"][1] < 0.5e-3)
    raised = np.minimum(1e-3 * 1.5 ** np.array([4.0, 8.0]), 1e-2)  # 4 epochs an iteration
    np.testing.assert_allclose(rows["learning_rate"][2], raised, rtol=1e-4)
    rates = rows["learning_rate"][:, -1] / 1e-3
    np.testing.assert_allclose(state.adapted.learning_rate, rates, rtol=1e-5)
    distance = [
        np.abs(ravel_pytree(jax.tree.map(lambda leaf, i=i: leaf[i], state.params))[0]).sum()
        for i in range(3)
    ]
    assert len(np.unique(distance)) == 3
