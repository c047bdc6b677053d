"""Oracles: scipy's distributions, enumeration, numerical integration, Monte Carlo."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from scipy import stats

from ppo_jax.rl import distributions
from ppo_jax.rl.distributions import Categorical, Gaussian

# Compiled whole: operation by operation the tests would take four times as long.
categorical_entropy = jax.jit(distributions.categorical_entropy)
categorical_kl = jax.jit(distributions.categorical_kl)
categorical_log_prob = jax.jit(distributions.categorical_log_prob)
categorical_mode = jax.jit(distributions.categorical_mode)
categorical_sample = jax.jit(distributions.categorical_sample)
clip_log_std = jax.jit(distributions.clip_log_std)
gaussian_entropy = jax.jit(distributions.gaussian_entropy)
gaussian_kl = jax.jit(distributions.gaussian_kl)
gaussian_log_prob = jax.jit(distributions.gaussian_log_prob)
gaussian_sample = jax.jit(distributions.gaussian_sample)
state_dependent_noise = jax.jit(distributions.state_dependent_noise)
state_dependent_noise_sample = jax.jit(distributions.state_dependent_noise_sample)
tanh_gaussian_entropy = jax.jit(distributions.tanh_gaussian_entropy)
tanh_gaussian_log_prob = jax.jit(distributions.tanh_gaussian_log_prob)

INF = jnp.inf


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def draws(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def gaussian(seed: int, *shape: int) -> Gaussian:
    mean, log_std = draws(seed, shape, shape)
    return Gaussian(mean, 0.5 * log_std)


def assert_within_4_standard_errors(samples: np.ndarray, expected: float) -> None:
    error = np.std(samples) / np.sqrt(len(samples))
    assert abs(np.mean(samples) - expected) < 4 * error + 1e-12


# Categorical


@pytest.mark.parametrize("num_actions", [1, 2, 5, 40])
def test_categorical_log_prob_and_entropy_are_scipys(num_actions: int) -> None:
    (logits,) = draws(0, (3, 4, num_actions))
    logits = 3.0 * logits
    action = np.random.default_rng(1).integers(num_actions, size=(3, 4))
    log_prob = categorical_log_prob(Categorical(logits), jnp.asarray(action, jnp.int32))
    entropy = categorical_entropy(Categorical(logits))
    assert log_prob.shape == entropy.shape == (3, 4)
    for i in np.ndindex(3, 4):
        probs = np.exp(np.asarray(logits)[i])
        probs /= probs.sum()
        expected = stats.rv_discrete(values=(np.arange(num_actions), probs))
        np.testing.assert_allclose(log_prob[i], expected.logpmf(action[i]), atol=1e-12)
        np.testing.assert_allclose(entropy[i], expected.entropy(), atol=1e-12)


def test_categorical_kl_is_the_enumerated_sum_in_the_right_direction() -> None:
    old, new = (Categorical(logits) for logits in draws(2, (7, 4), (7, 4)))
    p, q = (np.exp(np.asarray(d.logits)) for d in (old, new))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    expected = [sum(p[i, a] * np.log(p[i, a] / q[i, a]) for a in range(4)) for i in range(7)]
    np.testing.assert_allclose(categorical_kl(old, new), expected, atol=1e-12)
    assert not np.allclose(categorical_kl(new, old), expected, atol=1e-3)


def test_logits_may_be_shifted_and_be_huge() -> None:
    action = jnp.array([1], jnp.int32)
    near, far = (Categorical(jnp.array([[0.0, 1.0]]) + shift) for shift in (0.0, 1e6))
    np.testing.assert_allclose(
        categorical_log_prob(near, action), categorical_log_prob(far, action), atol=1e-9
    )
    certain = Categorical(jnp.array([[-1e4, 1e4]]))
    assert categorical_log_prob(certain, action) == 0.0
    assert categorical_entropy(certain) == 0.0


def test_forbidden_actions_leave_entropy_kl_and_gradients_finite() -> None:
    old, new = jnp.array([0.3, -INF, 1.0]), jnp.array([-0.5, -INF, 0.2])
    allowed = jnp.array([0, 2])
    functions = [
        lambda x: categorical_entropy(Categorical(x)),
        lambda x: categorical_kl(Categorical(old[: x.shape[0]]), Categorical(x)),
        lambda x: categorical_kl(Categorical(x), Categorical(new[: x.shape[0]])),
        lambda x: categorical_log_prob(Categorical(x), jnp.zeros((), jnp.int32)),
    ]
    for i, function in enumerate(functions):
        value, gradient = jax.value_and_grad(function)(new if i != 2 else old)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        assert gradient[1] == 0.0
    entropy = categorical_entropy(Categorical(new))
    np.testing.assert_allclose(entropy, categorical_entropy(Categorical(new[allowed])), atol=1e-12)
    kl = categorical_kl(Categorical(old), Categorical(new))
    without = categorical_kl(Categorical(old[allowed]), Categorical(new[allowed]))
    np.testing.assert_allclose(kl, without, atol=1e-12)
    assert categorical_kl(Categorical(jnp.zeros(3)), Categorical(new)) > 1e30


@pytest.mark.parametrize("num_actions", [2, 3, 6, 40])
@pytest.mark.parametrize("single", [True, False])
def test_categorical_samples_have_the_frequencies_of_the_probabilities(
    num_actions: int, single: bool
) -> None:
    n = 200_000
    (logits,) = draws(3, (num_actions,))
    logits = logits.at[0].set(-INF).astype(jnp.float32 if single else jnp.float64)
    dist = Categorical(jnp.broadcast_to(logits, (n, num_actions)))
    action = np.asarray(
        distributions.categorical_sample(
            distributions.categorical_draw(jax.random.key(4), (n,), num_actions), dist
        )
    )
    assert action.dtype == np.int32
    counts = np.bincount(action, minlength=num_actions)
    assert counts[0] == 0
    probs = np.exp(np.asarray(logits, np.float64))
    probs /= probs.sum()
    if num_actions > 2:
        assert stats.chisquare(counts[1:], n * probs[1:]).pvalue > 1e-4


def test_samples_of_a_batch_are_independent() -> None:
    dist = Categorical(jnp.zeros((2, 50_000, 2)))
    first, second = np.asarray(
        categorical_sample(distributions.categorical_draw(jax.random.key(0), (2, 50_000), 2), dist)
    )
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(50_000)
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 4 / np.sqrt(50_000)


def test_categorical_mode_is_the_most_probable_action() -> None:
    mode = categorical_mode(Categorical(jnp.array([[0.0, 2.0, 1.0], [3.0, -INF, 1.0]])))
    assert mode.tolist() == [1, 0]


# Gaussian


def test_gaussian_log_prob_and_entropy_are_scipys() -> None:
    dist = gaussian(5, 6, 3)
    (action,) = draws(6, (6, 3))
    frozen = stats.norm(np.asarray(dist.mean), np.exp(np.asarray(dist.log_std)))
    np.testing.assert_allclose(
        gaussian_log_prob(dist, action), frozen.logpdf(np.asarray(action)).sum(-1), atol=1e-12
    )
    np.testing.assert_allclose(gaussian_entropy(dist), frozen.entropy().sum(-1), atol=1e-12)


def test_gaussian_kl_is_the_integral_of_its_definition() -> None:
    old, new = gaussian(7, 5, 1), gaussian(8, 5, 1)
    for i in range(5):
        p = stats.norm(float(old.mean[i, 0]), np.exp(float(old.log_std[i, 0])))
        q = stats.norm(float(new.mean[i, 0]), np.exp(float(new.log_std[i, 0])))
        x = np.linspace(p.mean() - 12 * p.std(), p.mean() + 12 * p.std(), 20_001)
        expected = np.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x)
        np.testing.assert_allclose(gaussian_kl(old, new)[i], expected, atol=1e-9)


def test_gaussian_kl_is_the_mean_log_ratio_of_samples() -> None:
    old, new = gaussian(9, 3), gaussian(10, 3)
    many = Gaussian(*(jnp.broadcast_to(x, (200_000, 3)) for x in old))
    other = Gaussian(*(jnp.broadcast_to(x, (200_000, 3)) for x in new))
    action = gaussian_sample(jax.random.normal(jax.random.key(1), (200_000, 3)), many)
    log_ratio = gaussian_log_prob(many, action) - gaussian_log_prob(other, action)
    assert_within_4_standard_errors(np.asarray(log_ratio), float(gaussian_kl(old, new)))


def test_kl_of_equal_distributions_is_zero_in_single_precision() -> None:
    logits, mean, log_std = (x.astype(jnp.float32) for x in draws(11, (9, 4), (9, 4), (9, 4)))
    assert not categorical_kl(Categorical(logits), Categorical(logits)).any()
    assert not gaussian_kl(Gaussian(mean, log_std), Gaussian(mean, log_std)).any()


def test_small_gaussian_kl_keeps_its_digits_in_single_precision() -> None:
    zero, shift = jnp.zeros(1, jnp.float32), jnp.full(1, 1e-3, jnp.float32)
    kl = gaussian_kl(Gaussian(zero, zero), Gaussian(zero, shift))
    np.testing.assert_allclose(kl, 1e-6, rtol=2e-3)  # second order: (d log std)^2


def test_clipped_log_std_is_the_parameter_itself_inside_the_bounds() -> None:
    log_std = jnp.array([-30.0, -20.0, -3.0, 0.0, 1.9, 5.0])
    assert clip_log_std(log_std).tolist() == [-20.0, -20.0, -3.0, 0.0, 1.9, 2.0]
    assert jax.grad(lambda x: clip_log_std(x))(-3.0) == 1.0


# Tanh-Gaussian


def test_tanh_gaussian_density_integrates_to_one() -> None:
    a = np.tanh(np.linspace(-30, 30, 600_001)[1:-1])
    a = a[(np.abs(a) < 1 - 1e-12)]
    for mean, std in ((0.0, 1.0), (1.2, 0.4), (-0.7, 2.0)):
        u = jnp.asarray(np.arctanh(a))[:, None]
        dist = Gaussian(jnp.full_like(u, mean), jnp.full_like(u, np.log(std)))
        total = np.trapezoid(np.exp(tanh_gaussian_log_prob(dist, u)), a)
        np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_tanh_gaussian_log_prob_is_the_change_of_variables() -> None:
    dist = gaussian(12, 6, 2)
    (u,) = draws(13, (6, 2))
    expected = stats.norm(np.asarray(dist.mean), np.exp(np.asarray(dist.log_std))).logpdf(u)
    expected = (expected - np.log(1 - np.tanh(np.asarray(u)) ** 2)).sum(-1)
    np.testing.assert_allclose(tanh_gaussian_log_prob(dist, u), expected, atol=1e-11)


def test_tanh_gaussian_log_prob_is_finite_where_tanh_saturates() -> None:
    u = jnp.array([[60.0], [-60.0], [0.0]], jnp.float32)
    dist = Gaussian(u, jnp.zeros_like(u))
    log_prob = tanh_gaussian_log_prob(dist, u)
    # -log(1 - tanh^2 u) tends to 2|u| - 2 log 2
    expected = -0.5 * np.log(2 * np.pi) + np.array([120 - np.log(4), 120 - np.log(4), 0.0])
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6)
    gradient = jax.grad(lambda x: tanh_gaussian_log_prob(dist, x).sum())(u)
    np.testing.assert_allclose(gradient, 2 * np.tanh(u), atol=1e-6)


@pytest.mark.parametrize("std, tolerance", [(0.05, 3e-7), (1.0, 3e-7), (2.0, 2e-6), (7.4, 3e-2)])
def test_tanh_gaussian_entropy_is_the_numerical_integral(std: float, tolerance: float) -> None:
    z = np.linspace(-14, 14, 400_001)
    for mean in (0.0, 0.4, -2.0, 5.0):
        dist = Gaussian(jnp.array([mean]), jnp.array([np.log(std)]))
        u = mean + std * z
        log_density = stats.norm.logpdf(z) - np.log(std)
        log_density -= 2 * (np.log(2) - np.abs(u) - np.log1p(np.exp(-2 * np.abs(u))))
        expected = -np.trapezoid(stats.norm.pdf(z) * log_density, z)
        np.testing.assert_allclose(tanh_gaussian_entropy(dist), expected, atol=tolerance)


def test_tanh_gaussian_entropy_sums_over_dims_and_keeps_leading_ones() -> None:
    dist = gaussian(14, 2, 5, 3)
    parts = [
        tanh_gaussian_entropy(Gaussian(dist.mean[..., i : i + 1], dist.log_std[..., i : i + 1]))
        for i in range(3)
    ]
    np.testing.assert_allclose(tanh_gaussian_entropy(dist), sum(parts), atol=1e-12)


# gSDE


def test_state_dependent_noise_has_the_marginal_variance_of_its_draws() -> None:
    mean, features, noise_log_std = draws(15, (2,), (5,), (5, 2))
    n = 200_000
    many = jnp.broadcast_to(features, (n, 5))
    dist = state_dependent_noise(jnp.broadcast_to(mean, (n, 2)), many, noise_log_std)
    xi = jax.random.normal(jax.random.key(2), (n, 5, 2))
    deviation = np.asarray(state_dependent_noise_sample((), dist, xi) - dist.mean)
    variance = np.exp(2 * np.asarray(dist.log_std[0]))
    by_hand = [
        sum(float(features[f]) ** 2 * np.exp(2 * float(noise_log_std[f, a])) for f in range(5))
        for a in range(2)
    ]
    np.testing.assert_allclose(variance, np.array(by_hand) + 1e-6, rtol=1e-12)
    for a in range(2):
        assert_within_4_standard_errors(deviation[:, a] ** 2, variance[a])


def test_state_dependent_noise_is_the_same_function_of_the_state_while_it_is_held() -> None:
    mean, features, noise_log_std, xi = draws(16, (3, 2), (3, 4), (4, 2), (3, 4, 2))
    dist = state_dependent_noise(mean, features, noise_log_std)
    action = state_dependent_noise_sample((), dist, xi)
    for b in range(3):
        expected = mean[b] + features[b] @ (jnp.exp(noise_log_std) * xi[b])
        np.testing.assert_allclose(action[b], expected, atol=1e-12)


def test_state_dependent_noise_teaches_the_features_nothing() -> None:
    mean, features, noise_log_std, action = draws(17, (2,), (4,), (4, 2), (2,))

    def log_prob(features: jax.Array, noise_log_std: jax.Array) -> jax.Array:
        return gaussian_log_prob(state_dependent_noise(mean, features, noise_log_std), action)

    by_features, by_noise = jax.grad(log_prob, argnums=(0, 1))(features, noise_log_std)
    assert not by_features.any()
    assert by_noise.all()


# Gradients


def assert_gradients_are_finite_differences(function, *args: jax.Array) -> None:
    jax.test_util.check_grads(jax.jit(function), args, 1, ["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("function", [gaussian_log_prob, tanh_gaussian_log_prob])
def test_gradient_of_real_log_prob_is_the_finite_difference(function) -> None:
    mean, log_std, action = draws(18, (3,), (3,), (3,))
    assert_gradients_are_finite_differences(
        lambda m, s, a: function(Gaussian(m, s), a), mean, log_std, action
    )


def test_gradients_of_categorical_functions_are_finite_differences() -> None:
    logits, other = draws(19, (4,), (4,))
    action = jnp.array(2, jnp.int32)

    def everything(x: jax.Array, y: jax.Array) -> jax.Array:
        p, q = Categorical(x), Categorical(y)
        return jnp.stack(
            [categorical_log_prob(p, action), categorical_entropy(p), categorical_kl(p, q)]
        )

    assert_gradients_are_finite_differences(everything, logits, other)


def test_gradients_of_real_entropy_and_kl_are_finite_differences() -> None:
    mean, log_std, mean_new, log_std_new = draws(20, (3,), (3,), (3,), (3,))

    def everything(*args: jax.Array) -> jax.Array:
        old, new = Gaussian(*args[:2]), Gaussian(*args[2:])
        return jnp.stack([tanh_gaussian_entropy(old), gaussian_kl(old, new)])

    assert_gradients_are_finite_differences(everything, mean, log_std, mean_new, log_std_new)
