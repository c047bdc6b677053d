"""The families bound to action spaces; the mathematics has its oracles in test_distributions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.envs.interface import Box, Discrete, MultiDiscrete
from ppo_jax.models import policy_head
from ppo_jax.rl.distributions import (
    Categorical,
    Gaussian,
    MultiCategorical,
    categorical_entropy,
    categorical_kl,
    categorical_log_prob,
    state_dependent_noise,
)

BOX = Box((2,), np.array([-1.0, -2.0], np.float32), np.array([1.0, 6.0], np.float32))
UNBOUNDED = Box((2,), np.full(2, -np.inf), np.full(2, np.inf))
F = 4


def make_family(policy: str, space: Any, num_features: int) -> policy_head.Family:
    """The family with its mathematics compiled, which makes the tests faster."""
    family = policy_head.make_family(policy, space, num_features)
    names = ("sample", "log_prob", "entropy", "kl", "to_env")
    return family._replace(**{name: jax.jit(getattr(family, name)) for name in names})


def example(policy: str, space: Any, seed: int = 0, batch: tuple[int, ...] = (6,)) -> Any:
    """Some distribution of a family, of leading dims `batch`."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    if policy == "categorical":
        if isinstance(space, MultiDiscrete):
            return MultiCategorical(draw(*batch, sum(space.ns)))
        return Categorical(draw(*batch, space.n))
    if policy == "gsde":
        return state_dependent_noise(draw(*batch, 2), draw(*batch, F), draw(F, 2))
    return Gaussian(draw(*batch, 2), draw(*batch, 2))


CASES = [
    ("categorical", Discrete(3)),
    ("categorical", MultiDiscrete((2, 4, 3))),
    ("gaussian", BOX),
    ("gaussian-state-std", BOX),
    ("gsde", BOX),
    ("tanh-gaussian", BOX),
]


def drawn(family: policy_head.Family, key: jax.Array, dist, noise) -> jax.Array:
    """An action for each row of `dist`."""
    shape = jax.eval_shape(family.entropy, dist).shape
    return family.sample(family.draw(key, shape), dist, noise)


@pytest.mark.parametrize("policy, space", CASES)
def test_ratio_is_one_and_kl_zero_between_what_is_kept_and_what_was_played(policy, space) -> None:
    family = make_family(policy, space, F)
    dist = example(policy, space)
    noise = family.draw_noise(jax.random.key(0), 6)
    action = drawn(family, jax.random.key(1), dist, noise)
    ratio = jnp.exp(family.log_prob(dist, action) - family.log_prob(family.keep(dist), action))
    assert ratio.shape == (6,)
    assert (ratio == 1.0).all()
    assert (family.kl(family.keep(dist), family.keep(dist)) == 0.0).all()
    assert family.entropy(dist).shape == (6,)
    assert family.mode(dist).shape == action.shape


@pytest.mark.parametrize("policy, space", CASES)
def test_leading_dims_are_as_good_as_a_loop(policy, space) -> None:
    family = make_family(policy, space, F)
    dist, other = (family.keep(example(policy, space, seed, (2, 3))) for seed in (1, 2))
    action = family.mode(other)
    for result, one in (
        (family.log_prob(dist, action), lambda d, o, a: family.log_prob(d, a)),
        (family.kl(dist, other), lambda d, o, a: family.kl(d, o)),
        (family.entropy(dist), lambda d, o, a: family.entropy(d)),
    ):
        for i in np.ndindex(2, 3):
            single = one(*jax.tree.map(lambda leaf, i=i: leaf[i], (dist, other, action)))
            np.testing.assert_allclose(result[i], single, rtol=1e-5, atol=1e-6)


def test_auto_follows_the_action_space() -> None:
    names = [
        make_family("auto", space, F).name for space in (Discrete(2), MultiDiscrete((2,)), BOX)
    ]
    assert names == ["categorical", "categorical", "gaussian"]


@pytest.mark.parametrize(
    "policy, space, size",
    [
        ("auto", Discrete(3), 3),
        ("auto", MultiDiscrete((2, 4, 3)), 9),
        ("gaussian", BOX, 2),
        ("tanh-gaussian", BOX, 2),
        ("gsde", BOX, 2),
        ("gaussian-state-std", BOX, 4),
        ("gaussian", Box((), -1.0, 1.0), 1),
        ("gaussian", Box((2, 3), np.zeros((2, 3)), np.ones((2, 3))), 6),
    ],
)
def test_head_has_one_output_for_each_parameter(policy, space, size) -> None:
    assert make_family(policy, space, F).head_size == size


def test_multi_categorical_is_the_sum_of_its_categoricals() -> None:
    space = MultiDiscrete((2, 4, 3))
    family = make_family("auto", space, F)
    old, new = (example("categorical", space, seed) for seed in (3, 4))
    action = drawn(family, jax.random.key(5), old, ())
    assert action.shape == (6, 3)
    assert action.dtype == jnp.int32

    def parts(dist: MultiCategorical) -> list[Categorical]:
        return [Categorical(part) for part in jnp.split(dist.logits, [2, 6], axis=-1)]

    log_prob = sum(categorical_log_prob(p, action[:, i]) for i, p in enumerate(parts(old)))
    entropy = sum(categorical_entropy(p) for p in parts(old))
    kl = sum(categorical_kl(p, q) for p, q in zip(parts(old), parts(new), strict=True))
    np.testing.assert_allclose(family.log_prob(old, action), log_prob, atol=1e-5)
    np.testing.assert_allclose(family.entropy(old), entropy, atol=1e-5)
    np.testing.assert_allclose(family.kl(old, new), kl, atol=1e-5)
    gradient = jax.grad(lambda x: family.kl(old, MultiCategorical(x)).sum())(new.logits)
    assert np.isfinite(gradient).all()


def test_multi_categorical_samples_have_the_frequencies_of_the_probabilities() -> None:
    n, space = 100_000, MultiDiscrete((2, 3))
    logits = jnp.log(jnp.array([0.3, 0.7, 0.2, 0.5, 0.3]))
    family = make_family("auto", space, F)
    dist = MultiCategorical(jnp.tile(logits[None], (n, 1)))
    action = np.asarray(drawn(family, jax.random.key(6), dist, ()))
    for column, probs in ((0, [0.3, 0.7]), (1, [0.2, 0.5, 0.3])):
        frequency = np.bincount(action[:, column], minlength=len(probs)) / n
        error = np.sqrt(np.array(probs) * (1 - np.array(probs)) / n)
        assert (abs(frequency - probs) < 4 * error).all()
    joint = np.mean((action[:, 0] == 0) & (action[:, 1] == 1))
    assert abs(joint - 0.15) < 4 * np.sqrt(0.15 * 0.85 / n)


def test_log_prob_is_of_the_sampled_action_while_the_environment_gets_the_clipped_one() -> None:
    family = make_family("gaussian", BOX, F)
    dist = Gaussian(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    action = jnp.array([[3.0, -4.0]])
    assert family.to_env(action).tolist() == [[1.0, -2.0]]
    # two standard normal densities at 3 and -4
    expected = -0.5 * (9 + 16) - np.log(2 * np.pi)
    np.testing.assert_allclose(family.log_prob(dist, action), expected, rtol=1e-6)


def test_tanh_squashes_onto_the_box() -> None:
    family = make_family("tanh-gaussian", BOX, F)
    action = jnp.array([[0.0, 0.0], [100.0, -100.0], [np.arctanh(0.5), np.arctanh(-0.5)]])
    expected = [[0.0, 2.0], [1.0, -2.0], [0.5, 0.0]]
    np.testing.assert_allclose(family.to_env(action), expected, atol=1e-6)


def test_environment_gets_the_shape_of_its_box() -> None:
    for shape in ((), (2, 3)):
        family = make_family("gaussian", Box(shape, np.full(shape, -1.0), np.full(shape, 1.0)), F)
        assert family.to_env(jnp.full((5, family.head_size), 7.0)).shape == (5, *shape)
    free = make_family("gaussian", UNBOUNDED, F).to_env(jnp.array([[1e6, -1e6]]))
    assert free.tolist() == [[1e6, -1e6]]


def test_bounds_of_other_parameters_take_the_place_of_the_spaces_own() -> None:
    action = jnp.array([[100.0, -100.0], [0.0, 0.0]])
    low, high = jnp.array([-3.0, 1.0]), jnp.array([5.0, 2.0])
    clipped = make_family("gaussian", BOX, F).to_env(action, (low, high))
    assert clipped.tolist() == [[5.0, 1.0], [0.0, 1.0]]
    squashed = make_family("tanh-gaussian", BOX, F).to_env(action, (low, high))
    np.testing.assert_allclose(squashed, [[5.0, 1.0], [1.0, 1.5]], atol=1e-6)
    counted = make_family("categorical", Discrete(3), F).to_env(jnp.array([2]), None)
    assert counted.tolist() == [2]


def test_gsde_keeps_its_marginal_only_and_draws_noise_for_each_environment() -> None:
    family = make_family("gsde", BOX, F)
    dist = example("gsde", BOX)
    kept = family.keep(dist)
    assert type(kept) is Gaussian
    assert kept.mean is dist.mean
    assert kept.log_std is dist.log_std
    noise = family.draw_noise(jax.random.key(0), 2_000)
    assert noise.shape == (2_000, F, 2)
    assert abs(float(noise.mean())) < 4 / np.sqrt(noise.size)
    assert abs(float(noise.var()) - 1) < 4 * np.sqrt(2 / noise.size)
    assert make_family("gaussian", BOX, F).draw_noise(jax.random.key(0), 3) == ()


@pytest.mark.parametrize(
    "policy, space, words",
    [
        ("categorical", BOX, ("categorical", "Box of shape (2,)", "gaussian")),
        ("gaussian", Discrete(3), ("gaussian", "Discrete(3)", "categorical")),
        ("gsde", MultiDiscrete((2, 3)), ("gsde", "MultiDiscrete(2, 3)", "categorical")),
        ("tanh-gaussian", UNBOUNDED, ("finite bounds", "use gaussian")),
    ],
)
def test_impossible_pairs_are_refused_with_a_sentence(policy, space, words) -> None:
    with pytest.raises(InputError) as refused:
        make_family(policy, space, F)
    assert all(word in str(refused.value) for word in words)
