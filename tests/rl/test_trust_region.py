"""The trust-region step against dense linear algebra, known solutions and an exhaustive search."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.rl import trust_region


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def random_spd(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Symmetric positive definite matrices, condition numbers up to 100, [count, size, size]."""
    basis, _ = np.linalg.qr(rng.normal(size=(count, size, size)))
    spectrum = 10.0 ** rng.uniform(-1.0, 1.0, size=(count, size))
    return np.einsum("bij,bj,bkj->bik", basis, spectrum, basis)


def solve_all(matrices: np.ndarray, targets: np.ndarray, num_iterations: int) -> np.ndarray:
    """Conjugate gradient for every (matrix, target), by one vmapped program."""

    def solve(matrix: jax.Array, target: jax.Array) -> jax.Array:
        return trust_region.conjugate_gradient(lambda v: matrix @ v, target, num_iterations)[0]

    return np.asarray(jax.jit(jax.vmap(solve))(matrices, targets))


# Conjugate gradient -------------------------------------------------------------------------------


def test_conjugate_gradient_solves_what_a_dense_solver_solves() -> None:
    rng = np.random.default_rng(0)
    matrices, targets = random_spd(rng, 50, 8), rng.normal(size=(50, 8))
    # The default tolerance, 1e-5 in norm, is too coarse for the comparison: go below it.

    def solve(matrix: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        return trust_region.conjugate_gradient(lambda v: matrix @ v, target, 16, 1e-24)

    found, images = jax.vmap(solve)(matrices, targets)
    exact = np.linalg.solve(matrices, targets[..., None])[..., 0]
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())
    np.testing.assert_allclose(images, np.einsum("bij,bj->bi", matrices, found), atol=1e-12)


def test_by_default_it_ends_with_a_residual_of_a_hundred_thousandth() -> None:
    rng = np.random.default_rng(1)
    matrices, targets = random_spd(rng, 50, 8), rng.normal(size=(50, 8))
    found = solve_all(matrices, targets, 30)
    residual = np.linalg.norm(np.einsum("bij,bj->bi", matrices, found) - targets, axis=1)
    assert np.all(residual <= 1.0001e-5 * np.linalg.norm(targets, axis=1))


def test_after_k_steps_it_is_the_best_point_of_the_krylov_space() -> None:
    """x_k = V (V' F V)^-1 V' b with V a basis of span(b, F b, .., F^(k-1) b)."""
    rng = np.random.default_rng(2)
    (matrix,), target = random_spd(rng, 1, 6), rng.normal(size=6)
    for k in (1, 2, 3, 4):
        powers = np.stack([np.linalg.matrix_power(matrix, i) @ target for i in range(k)], axis=1)
        basis, _ = np.linalg.qr(powers)
        best = basis @ np.linalg.solve(basis.T @ matrix @ basis, basis.T @ target)
        found = solve_all(matrix[None], target[None], k)[0]
        np.testing.assert_allclose(found, best, atol=1e-9)


def test_members_of_a_vmap_that_are_done_stay_put_bit_for_bit() -> None:
    """One, two and six distinct eigenvalues are solved after as many steps."""
    spectra = np.array([[2.0] * 6, [1.0, 1.0, 1.0, 5.0, 5.0, 5.0], [1, 2, 3, 4, 5, 6.0]])
    targets = np.random.default_rng(3).normal(size=(3, 6))

    def solve(spectrum: jax.Array, target: jax.Array, num_iterations: int) -> jax.Array:
        return trust_region.conjugate_gradient(lambda v: spectrum * v, target, num_iterations)[0]

    def after(k: int) -> np.ndarray:
        return np.asarray(jax.jit(jax.vmap(lambda s, t: solve(s, t, k)))(spectra, targets))

    ends = after(12)
    np.testing.assert_allclose(ends, targets / spectra, rtol=1e-4)
    for member, steps in ((0, 1), (1, 2), (2, 6)):
        np.testing.assert_array_equal(after(steps)[member], ends[member])
        if steps > 1:
            assert np.abs(after(steps - 1)[member] - ends[member]).max() > 1e-3
    for i in range(3):
        alone = jax.jit(lambda s, t: solve(s, t, 12))(spectra[i], targets[i])
        np.testing.assert_allclose(alone, ends[i], rtol=1e-12)
        padded = jax.jit(jax.vmap(lambda s, t: solve(s, t, 12)))(spectra[[i] * 3], targets[[i] * 3])
        np.testing.assert_array_equal(padded[0], ends[i])  # its neighbours have no effect


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_nothing_asked_is_nothing_answered(kind: type) -> None:
    zero = jnp.zeros(4, kind)
    found, image = trust_region.conjugate_gradient(lambda v: 3.0 * v, zero, 5)
    np.testing.assert_array_equal(image, 0.0)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, 0.0)


def test_a_matrix_of_zeros_and_a_semidefinite_one_give_finite_answers() -> None:
    target = jnp.array([1.0, -2.0, 0.0])
    np.testing.assert_array_equal(
        trust_region.conjugate_gradient(lambda v: 0.0 * v, target, 5)[0], 0.0
    )
    flat = jnp.array([2.0, 4.0, 0.0])  # the target has no part along the flat direction
    found, _ = trust_region.conjugate_gradient(lambda v: flat * v, target, 5)
    np.testing.assert_allclose(found, [0.5, -0.5, 0.0], atol=1e-12)


# Products with the Fisher matrix ------------------------------------------------------------------

OBSERVATION = np.random.default_rng(4).normal(size=(7, 3))
SHAPES = ((3, 4), (4,), (4, 3), (3,))


def logits_of(flat: jax.Array) -> jax.Array:
    """Logits [7, 3] of a small tanh network, with weights from one vector of 31 numbers."""
    weights, start = [], 0
    for shape in SHAPES:
        size = int(np.prod(shape))
        weights.append(flat[start : start + size].reshape(shape))
        start += size
    w1, b1, w2, b2 = weights
    hidden = jnp.tanh(OBSERVATION @ w1 + jnp.broadcast_to(b1, (7, 4)))
    return hidden @ w2 + jnp.broadcast_to(b2, (7, 3))


THETA_OLD = np.random.default_rng(5).normal(size=31)


def divergence(logits: jax.Array) -> jax.Array:
    """Mean KL[old || new] of the softmax policies, given the new one's logits."""
    old, new = (jax.nn.log_softmax(x) for x in (logits_of(jnp.asarray(THETA_OLD)), logits))
    return jnp.mean(jnp.sum(jnp.exp(old) * (old - new), axis=1))


def test_at_the_old_policy_the_product_is_that_of_the_full_hessian() -> None:
    at = jnp.asarray(THETA_OLD)
    matrix = np.asarray(jax.hessian(lambda x: divergence(logits_of(x)))(at))
    vectors = np.random.default_rng(6).normal(size=(5, 31))
    found = jax.vmap(trust_region.gauss_newton_product(divergence, logits_of, at))(vectors)
    np.testing.assert_allclose(found, vectors @ matrix, atol=1e-12)


def test_away_from_it_the_product_is_that_of_dense_factors() -> None:
    """J' H J, each matrix whole and by autodiff; the network's own curvature is not part of it."""
    at = jnp.asarray(THETA_OLD + 0.3)
    jacobian = np.asarray(jax.jacobian(logits_of)(at)).reshape(21, 31)
    inner = np.asarray(jax.hessian(divergence)(logits_of(at))).reshape(21, 21)
    product = jax.jit(trust_region.gauss_newton_product(divergence, logits_of, at))
    for v in np.random.default_rng(7).normal(size=(4, 31)):
        np.testing.assert_allclose(product(v), jacobian.T @ inner @ jacobian @ v, atol=1e-12)
    whole = np.asarray(jax.hessian(lambda x: divergence(logits_of(x)))(at))
    assert np.abs(whole - jacobian.T @ inner @ jacobian).max() > 1e-3


def test_of_the_kl_at_the_old_policy_it_is_the_fisher_matrix_by_enumeration() -> None:
    """F = mean over s of sum over a of pi(a|s) grad log pi(a|s) grad log pi(a|s)'."""
    at = jnp.asarray(THETA_OLD)
    score = np.asarray(jax.jacobian(lambda x: jax.nn.log_softmax(logits_of(x)))(at))
    probability = np.asarray(jax.nn.softmax(logits_of(at)))
    fisher = sum(
        probability[s, a] * np.outer(score[s, a], score[s, a]) for s in range(7) for a in range(3)
    )
    found = jax.vmap(trust_region.gauss_newton_product(divergence, logits_of, at))(jnp.eye(31))
    np.testing.assert_allclose(found, fisher / 7.0, atol=1e-12)


# The natural step ---------------------------------------------------------------------------------


def test_the_step_on_a_quadratic_with_a_known_solution() -> None:
    """Maximise 2 x + 4 y subject to (x^2 + 4 y^2) / 2 <= 1: at (1, 1/2), where it is 4."""
    curvature, gradient = jnp.array([1.0, 4.0]), jnp.array([2.0, 4.0])
    step = trust_region.natural_step(lambda v: curvature * v, gradient, 1.0, 4)
    np.testing.assert_allclose(step, [1.0, 0.5], atol=1e-12)
    angle = np.linspace(0.0, 2.0 * np.pi, 1000)
    edge = np.stack([np.sqrt(2.0) * np.cos(angle), np.sqrt(0.5) * np.sin(angle)])
    assert np.max(np.asarray(gradient) @ edge) <= float(gradient @ step) + 1e-12


@pytest.mark.parametrize("radius", [1e-4, 0.01, 2.0])
def test_the_step_is_the_dense_one_and_reaches_the_radius(radius: float) -> None:
    rng = np.random.default_rng(8)
    matrices, gradients = random_spd(rng, 20, 8), rng.normal(size=(20, 8))

    def step_of(matrix: jax.Array, gradient: jax.Array) -> jax.Array:
        return trust_region.natural_step(lambda v: matrix @ v, gradient, radius, 30)

    steps = np.asarray(jax.vmap(step_of)(matrices, gradients))
    for matrix, gradient, step in zip(matrices, gradients, steps, strict=True):
        direction = np.linalg.solve(matrix, gradient)
        dense = np.sqrt(2.0 * radius / (direction @ matrix @ direction)) * direction
        np.testing.assert_allclose(step, dense, rtol=1e-3, atol=1e-4 * np.abs(dense).max())
        assert 0.5 * step @ matrix @ step == pytest.approx(radius, rel=1e-12)
        assert gradient @ step > 0.0
    # The length of the gradient has no effect: only the radius bounds the step.
    np.testing.assert_allclose(jax.vmap(step_of)(matrices, 1e3 * gradients), steps, rtol=1e-9)


def test_without_a_gradient_there_is_no_step_and_no_nan() -> None:
    step = trust_region.natural_step(lambda v: 2.0 * v, jnp.zeros(3), 0.01, 5)
    np.testing.assert_array_equal(step, 0.0)


# The line search ----------------------------------------------------------------------------------

FRACTIONS = 0.8 ** np.arange(10)
START, STEP = np.array([1.0, 0.0]), np.array([2.0, -4.0])


def search_where(gain: np.ndarray, divergence: np.ndarray, radius: float) -> trust_region.Search:
    """`backtrack` with measurements that are listed trial by trial."""

    def measure(params: jax.Array) -> tuple[jax.Array, jax.Array]:
        trial = jnp.argmin(jnp.abs((params[0] - 1.0) / 2.0 - FRACTIONS))
        return jnp.asarray(gain)[trial], jnp.asarray(divergence)[trial]

    return trust_region.backtrack(measure, jnp.asarray(START), jnp.asarray(STEP), radius)


def listed(values: dict[int, float], rest: float) -> np.ndarray:
    return np.array([values.get(trial, rest) for trial in range(10)])


@pytest.mark.parametrize(
    ("gain", "divergence", "accepted"),
    [
        (listed({}, 1.0), listed({}, 0.5), 0),  # a divergence equal to the radius is within it
        (listed({}, 1.0), listed({0: 0.6, 1: 0.6, 2: 0.6}, 0.1), 3),
        (listed({0: -1.0, 1: 0.0}, 1.0), listed({}, 0.1), 2),  # a gain of 0 is not a gain
        (listed({0: np.nan, 1: 1.0, 2: 2.0}, 3.0), listed({1: np.nan}, 0.1), 2),
        (listed({3: 1.0, 7: 9.0}, -1.0), listed({}, 0.1), 3),  # the first, not the best
        (listed({9: 1.0}, -1.0), listed({}, 0.1), 9),  # the last trial counts
        (listed({4: 1.0, 6: 1.0}, -1.0), listed({4: np.inf}, 0.1), 6),
    ],
)
def test_the_first_acceptable_fraction_is_taken(
    gain: np.ndarray, divergence: np.ndarray, accepted: int
) -> None:
    found = search_where(gain, divergence, 0.5)
    assert float(found.fraction) == pytest.approx(0.8**accepted, rel=1e-12)
    np.testing.assert_allclose(found.params, START + 0.8**accepted * STEP, rtol=1e-12)
    assert float(found.gain) == gain[accepted]
    assert float(found.divergence) == divergence[accepted]


@pytest.mark.parametrize(
    ("gain", "divergence"),
    [
        (listed({}, -1.0), listed({}, 0.1)),
        (listed({}, 1.0), listed({}, 0.6)),
        (listed({}, np.nan), listed({}, 0.1)),
        (listed({}, 1.0), listed({}, np.nan)),
        (listed({}, 0.0), listed({}, 0.0)),
    ],
)
def test_where_nothing_is_acceptable_nothing_moves(
    gain: np.ndarray, divergence: np.ndarray
) -> None:
    found = search_where(gain, divergence, 0.5)
    np.testing.assert_array_equal(found.params, START)
    assert (float(found.fraction), float(found.gain), float(found.divergence)) == (0.0, 0.0, 0.0)


def test_shrink_and_number_of_trials_are_those_asked_for() -> None:
    def far(params: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.ones(()), params[0] - 1.0  # twice the fraction

    for num_trials, fraction in ((4, 0.0), (5, 0.5**4)):
        found = trust_region.backtrack(
            far, jnp.asarray(START), jnp.asarray(STEP), 0.13, shrink=0.5, num_trials=num_trials
        )
        assert float(found.fraction) == fraction


def kl(old: np.ndarray, new: np.ndarray) -> float:
    """Mean KL of softmax policies with these logits [S, A], in NumPy."""
    log_old, log_new = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (old, new))
    return float(np.mean(np.sum(np.exp(log_old) * (log_old - log_new), axis=1)))


def surrogate(logits: np.ndarray, advantage: np.ndarray) -> float:
    p = np.exp(logits)
    return float(np.mean(np.sum(p / p.sum(1, keepdims=True) * advantage, axis=1)))


def test_on_a_thousand_random_problems_the_bound_is_never_broken() -> None:
    """The result equals the one of trying all ten fractions in NumPy, member by member."""
    rng = np.random.default_rng(9)
    old = rng.normal(size=(1000, 3, 4))
    advantage = rng.normal(size=old.shape)
    # From steps far too long, and partly downhill, to steps well within the bound.
    step = rng.normal(size=old.shape) + rng.normal(size=(1000, 1, 1)) * advantage
    step *= 10.0 ** rng.uniform(-1.5, 1.5, size=(1000, 1, 1))
    radius = 10.0 ** rng.uniform(-4.0, 0.0, size=1000)

    def search(old: jax.Array, advantage: jax.Array, step: jax.Array, radius: jax.Array):
        log_old = jax.nn.log_softmax(old)

        def measure(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
            log_new = jax.nn.log_softmax(flat.reshape(3, 4))
            gains = jnp.sum((jnp.exp(log_new) - jnp.exp(log_old)) * advantage, axis=1)
            return jnp.mean(gains), jnp.mean(jnp.sum(jnp.exp(log_old) * (log_old - log_new), 1))

        return trust_region.backtrack(measure, old.ravel(), step.ravel(), radius)

    found = jax.jit(jax.vmap(search))(old, advantage, step, radius)
    trials = []
    for i in range(1000):
        new = np.asarray(found.params[i]).reshape(3, 4)
        acceptable = [
            k
            for k in range(10)
            if surrogate(old[i] + 0.8**k * step[i], advantage[i]) > surrogate(old[i], advantage[i])
            and kl(old[i], old[i] + 0.8**k * step[i]) <= radius[i]
        ]
        if acceptable:
            assert float(found.fraction[i]) == pytest.approx(0.8 ** acceptable[0], rel=1e-12)
            assert kl(old[i], new) <= radius[i] * (1.0 + 1e-9)
            assert surrogate(new, advantage[i]) > surrogate(old[i], advantage[i])
            trials.append(acceptable[0])
        else:
            np.testing.assert_array_equal(new, old[i])
            assert float(found.fraction[i]) == 0.0
    assert 100 < len(trials) < 900  # both outcomes were seen
    assert set(trials) == set(range(10))

    alone = jax.jit(search)
    for i in range(0, 1000, 50):
        single = alone(old[i], advantage[i], step[i], radius[i])
        member = jax.tree.map(lambda leaf, i=i: leaf[i], found)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), single, member)
