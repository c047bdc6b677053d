"""Joint, hybrid and masked actions against enumeration over all legal joint actions."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import shown
from scipy import stats

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.envs.interface import Box, Discrete, MultiDiscrete, Product
from ppo_jax.models.network import make_network, masked
from ppo_jax.models.policy_head import make_family
from ppo_jax.rl.distributions import Gaussian, Mixed, MultiCategorical
from ppo_jax.rl.types import Window

DIALS = (3, 1, 4)
BOXES = (
    Box((2,), np.float32([-1, -1]), np.float32([1, 2])),
    Box((1, 1), np.float32([[0]]), np.float32([[3]])),
)
SPACE = Product((Discrete(3), BOXES[0], MultiDiscrete((1, 4)), BOXES[1]))
JOINT = list(itertools.product(*map(range, DIALS)))
LEGAL = np.array(
    [
        [1, 0, 1, 1, 0, 1, 1, 0],
        [0, 0, 1, 1, 0, 0, 0, 1],  # forced
        [0, 0, 0, 1, 1, 0, 1, 0],  # the first dial has no legal action: all are legal
        [1, 1, 1, 0, 1, 1, 1, 1],  # so has the second
    ],
    bool,
)
OPEN = LEGAL.copy()
OPEN[2, :3] = OPEN[3, 3] = True


def logits(seed: int, scale: float) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(4, sum(DIALS)))


def joint_log_probs(x: np.ndarray) -> np.ndarray:
    """log p of every joint action, [4, 12]: -inf for an illegal one, by sums of exponentials."""
    starts, parts = np.cumsum([0, *DIALS]), []
    x = np.where(OPEN, x.astype(np.float64), -np.inf)
    for first, last in itertools.pairwise(starts):
        part = x[:, first:last] - x[:, first:last].max(1, keepdims=True)
        parts.append(part - np.log(np.exp(part).sum(1, keepdims=True)))
    return np.stack([sum(p[:, a] for p, a in zip(parts, each)) for each in JOINT], axis=1)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@jax.enable_x64(True)
def test_masked_joint_actions_are_categoricals_over_the_legal_joint_actions(scale: float) -> None:
    family = make_family("auto", MultiDiscrete(DIALS), 1)
    old, new = (
        MultiCategorical(masked(jnp.asarray(logits(i, scale)), jnp.asarray(LEGAL), DIALS))
        for i in range(2)
    )
    log_p, log_q = (joint_log_probs(logits(i, scale)) for i in range(2))
    p = np.exp(log_p)
    for i, action in enumerate(JOINT):
        found = family.log_prob(old, jnp.tile(jnp.array(action), (4, 1)))
        np.testing.assert_allclose(found, log_p[:, i], rtol=1e-6, atol=1e-6)
    is_legal = np.isfinite(log_p)
    terms = np.where(p > 0, p * np.where(is_legal, log_p, 0.0), 0.0)
    np.testing.assert_allclose(family.entropy(old), -terms.sum(1), atol=1e-6)
    gap = np.where(is_legal, log_p, 0.0) - np.where(is_legal, log_q, 0.0)
    np.testing.assert_allclose(family.kl(old, new), np.where(p > 0, p * gap, 0).sum(1), rtol=1e-6)
    np.testing.assert_array_equal(family.mode(old), np.array(JOINT)[log_p.argmax(1)])
    assert family.entropy(old)[1] == 0.0
    assert family.log_prob(old, family.mode(old))[1] == 0.0


def test_samples_have_the_frequencies_of_the_legal_joint_actions() -> None:
    n = 40_000
    family = make_family("auto", MultiDiscrete(DIALS), 1)
    x = masked(jnp.asarray(logits(3, 1.0), jnp.float32), jnp.asarray(LEGAL), DIALS)
    draw = family.draw(jax.random.key(0), (n, 4))
    action = np.asarray(family.sample(draw, MultiCategorical(jnp.tile(x, (n, 1, 1))), ()))
    p = np.exp(joint_log_probs(logits(3, 1.0)))
    for row in range(4):
        counts = [np.mean((action[:, row] == each).all(1)) for each in JOINT]
        # 5 standard errors; exactly 0 for an illegal action
        assert np.all(np.abs(counts - p[row]) <= 5 * np.sqrt(p[row] / n))


@jax.enable_x64(True)
def test_illegal_logits_have_no_gradient_and_no_curvature() -> None:
    """The Fisher matrix of a dial is diag(p) - p p' over its legal actions, and 0 elsewhere."""
    family = make_family("auto", MultiDiscrete(DIALS), 1)
    x, legal = jnp.asarray(logits(4, 1.0)), jnp.asarray(LEGAL)

    def at(x: jax.Array) -> MultiCategorical:
        return MultiCategorical(masked(x, legal, DIALS))

    def loss(x: jax.Array) -> jax.Array:
        action = family.mode(jax.lax.stop_gradient(at(x)))
        return jnp.sum(family.log_prob(at(x), action) + family.entropy(at(x)))

    gradient = np.asarray(jax.grad(loss)(x))
    assert np.all(gradient[~OPEN] == 0.0)
    assert np.abs(gradient[OPEN]).max() > 0.01
    fisher = jax.hessian(lambda y: jnp.sum(family.kl(at(x), at(y))))(x)
    for row in range(4):
        expected = np.zeros((sum(DIALS),) * 2)
        for first, last in itertools.pairwise(np.cumsum([0, *DIALS])):
            weights = np.exp(np.where(OPEN, x, -np.inf)[row, first:last])
            p = weights / weights.sum()
            expected[first:last, first:last] = np.diag(p) - np.outer(p, p)
        np.testing.assert_allclose(fisher[row, :, row], expected, atol=1e-6)


def test_a_hybrid_is_the_sum_of_its_parts_and_acts_in_their_order() -> None:
    family = make_family("auto", SPACE, 1)
    assert (family.dials, family.num_reals, family.head_size) == (DIALS, 3, 11)
    rng = np.random.default_rng(0)
    mean, log_std = rng.normal(size=(2, 5, 3))
    x = rng.normal(size=(5, 8))
    old = Mixed(MultiCategorical(jnp.asarray(x)), Gaussian(jnp.asarray(mean), jnp.asarray(log_std)))
    joint = make_family("auto", MultiDiscrete(DIALS), 1)
    action = family.sample(family.draw(jax.random.key(1), (5,)), old, ())
    real = stats.norm.logpdf(np.asarray(action[1]), mean, np.exp(log_std)).sum(1)
    expected = joint.log_prob(old.discrete, action[0]) + real
    np.testing.assert_allclose(family.log_prob(old, action), expected, rtol=1e-5)
    entropy = joint.entropy(old.discrete) + (log_std + 0.5 * np.log(2 * np.pi * np.e)).sum(1)
    np.testing.assert_allclose(family.entropy(old), entropy, rtol=1e-5)
    new = jax.tree.map(lambda leaf: 0.5 * leaf, old)
    ratio = np.exp(2 * (log_std - 0.5 * log_std))
    gap = (0.5 * mean) ** 2 * np.exp(-log_std)
    kl = joint.kl(old.discrete, new.discrete) + 0.5 * (ratio - 1 - np.log(ratio) + gap).sum(1)
    np.testing.assert_allclose(family.kl(old, new), kl, rtol=1e-4)
    counts, reals = (
        jnp.tile(jnp.array([2, 0, 3]), (5, 1)),
        jnp.tile(jnp.array([5.0, -5, 9]), (5, 1)),
    )
    first, box, dials, point = family.to_env((counts, reals))
    assert [part.shape for part in (first, box, dials, point)] == [(5,), (5, 2), (5, 2), (5, 1, 1)]
    assert (int(first[0]), dials[0].tolist()) == (2, [0, 3])
    assert (box[0].tolist(), point[0].tolist()) == ([1.0, -1.0], [[3.0]])
    bounds = jnp.array([-2.0, -2, 0]), jnp.array([7.0, 2, 30])
    assert family.to_env((counts, reals), bounds)[1][0].tolist() == [5.0, -2.0]


@pytest.mark.parametrize("space", [SPACE.parts[:1] + SPACE.parts[2:3], SPACE.parts[1::2]])
def test_a_product_of_one_kind_is_that_kind_in_parts(space: tuple) -> None:
    family = make_family("auto", Product(space), 1)
    is_real = isinstance(space[0], Box)
    assert (family.name, family.head_size) == (("gaussian", 3) if is_real else ("categorical", 8))
    one = family.to_env(jnp.zeros((5, 3)) if is_real else jnp.ones((5, 3), jnp.int32))
    assert [part.shape for part in one] == ([(5, 2), (5, 1, 1)] if is_real else [(5,), (5, 2)])


@pytest.mark.parametrize(
    "policy, memory",
    [
        ("gaussian", "none"),
        ("gaussian-state-std", "gru"),
        ("gsde", "none"),
        ("tanh-gaussian", "none"),
        ("categorical", "none"),
    ],
)
def test_every_policy_of_real_actions_joins_with_masked_dials(policy: str, memory: str) -> None:
    spec = {"speed": shown(3), "action_mask": shown(8, dtype="bool")}
    config = Config(policy=policy, hidden_sizes=(8,), memory=memory, memory_size=4)
    if policy == "categorical":
        with pytest.raises(InputError, match=r"Discrete\(3\) and Box of shape .* use gaussian"):
            make_network(config, spec, SPACE)
        return
    network, family = make_network(config, spec, SPACE)
    params = network.init(jax.random.key(0), -0.5)
    speed = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    observation = {"speed": speed, "action_mask": jnp.asarray(LEGAL)}
    reset = () if memory == "none" else jnp.zeros(4, bool)
    window = Window(observation, reset, network.start(params, 4))
    distribution, _ = network.apply(params, window)
    _, acted = network.act(params, window.memory, observation)
    np.testing.assert_allclose(acted.discrete.logits, distribution.discrete.logits, atol=1e-6)
    np.testing.assert_array_equal(np.isfinite(distribution.discrete.logits), OPEN)
    if policy == "gaussian-state-std":
        np.testing.assert_allclose(distribution.real.log_std, -0.5, atol=0.1)
    noise = family.draw_noise(jax.random.key(1), 4)
    action = family.sample(family.draw(jax.random.key(2), (4,)), distribution, noise)
    assert np.isfinite(family.log_prob(distribution, action)).all()
    kept: Any = family.keep(distribution)
    np.testing.assert_allclose(family.kl(kept, kept), np.zeros(4), atol=1e-6)
