"""The page of equations against slow loops, hand-computed numbers and rlax."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from drifts import clip_drift

from ppo_jax.rl import surrogates


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


# On no bound 1 +- eps: ties have a test of their own.
RATIOS = np.array([1e-6, 0.3, 0.51, 0.7499, 0.7501, 0.91, 1, 1.11, 1.2499, 1.2501, 1.51, 2.1, 50])
ADVANTAGES = np.array([-3.0, -0.5, 0.0, 0.5, 3.0])
EPSILONS = (0.1, 0.25, 0.5, 1.0)
R, A = (grid.ravel() for grid in np.meshgrid(RATIOS, ADVANTAGES))  # every pair, [65] each


def clip(x: float, low: float, high: float) -> float:
    return low if x < low else high if x > high else x


def relu(x: float) -> float:
    return x if x > 0.0 else 0.0


def dpo(r: float, a: float, alpha: float = 2.0, beta: float = 0.6) -> float:
    """Lu et al. 2022, eq. 6, one sample at a time."""
    if a >= 0.0:
        return relu((r - 1.0) * a - alpha * math.tanh((r - 1.0) * a / alpha))
    return relu(math.log(r) * a - beta * math.tanh(math.log(r) * a / beta))


def clipped_formula(r: float, a: float, low: float, high: float, dual: float) -> float:
    """Schulman et al. 2017, eq. 7, with two half-widths; Ye et al. 2020, eq. 5, where A < 0."""
    objective = min(r * a, clip(r, 1 - low, 1 + high) * a)
    return -(max(objective, dual * a) if a < 0.0 else objective)


def adapted(factor: float, kl: float, target: float, step: float, band: float) -> float:
    if kl > band * target:
        return factor * step
    return factor / step if kl < target / band else factor


def value_formula(v: float, old: float, target: float, eps: float) -> float:
    return max((v - target) ** 2, (old + clip(v - old, -eps, eps) - target) ** 2) / 2.0


# Every docstring equation as a loop body over Python floats: name -> (arguments, formula).
X, Y, Z = np.random.default_rng(0).normal(size=(3, 65))


def paced(rate: float, learning_rate: float, kl: float, target: float) -> float:
    moved = rate / 1.5 if kl > 2.0 * target else rate * 1.5 if 0.0 < kl < target / 2.0 else rate
    return min(max(moved, min(1.0, 1e-5 / learning_rate)), max(1.0, 1e-2 / learning_rate))


EQUATIONS = {
    "log_ratio": ((30 * X, 0 * Y), lambda new, old: clip(new - old, -20.0, 20.0)),
    "policy_gradient": ((X, A), lambda log_prob, a: -(log_prob * a)),
    "importance_sampled": ((R, A), lambda r, a: -(r * a)),
    "clipped": ((R, A, 0.2, 0.3, 1.8), clipped_formula),
    "kl_penalised": ((R, A, X**2, 0.7), lambda r, a, kl, beta: -(r * a - beta * kl)),
    "adapted_factor": ((X**2, Y**2, Z**2, 2.0, 1.5), adapted),
    "adapted_learning_rate": ((X**2, 1e-3, Y**2, Z**2), paced),
    "upper_epsilon": ((R, A), lambda low, high: high if high > 0.0 else low),
    "dpo_drift": ((R, A), dpo),
    "spo_drift": ((R, A, 0.2), lambda r, a, e: abs(a) * (r - 1.0) ** 2 / (2.0 * e)),
    "drifted": ((R, A, X**2), lambda r, a, drift: -(r * a - drift)),
    "value_loss": ((X, Y, Z, 0.3), value_formula),
}


def test_every_function_of_the_page_has_its_equation_below() -> None:
    public = {
        name
        for name, item in inspect.getmembers(surrogates, inspect.isfunction)
        if item.__module__ == surrogates.__name__ and not name.startswith("_")
    }
    assert public == set(EQUATIONS)


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_equation_of_the_docstring_is_what_is_computed(name: str) -> None:
    arguments, formula = EQUATIONS[name]
    columns = [np.broadcast_to(argument, R.shape) for argument in arguments]
    slow = [formula(*map(float, row)) for row in zip(*columns, strict=True)]
    fast = getattr(surrogates, name)(*map(jnp.asarray, arguments))
    assert fast.shape == R.shape
    np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-12)


def test_numbers_computed_by_hand() -> None:
    # r = 1.5, A = 2, eps = 0.2: min(3, 1.2 * 2 = 2.4) = 2.4; A = -2: min(-3, -2.4) = -3.
    assert float(surrogates.clipped(jnp.float64(1.5), 2.0, 0.2)) == pytest.approx(-2.4, abs=1e-12)
    assert float(surrogates.clipped(jnp.float64(1.5), -2.0, 0.2)) == pytest.approx(3.0, abs=1e-12)
    # r = 0.5, A = 2: min(1, 0.8 * 2 = 1.6) = 1; A = -2: min(-1, -1.6) = -1.6.
    assert float(surrogates.clipped(jnp.float64(0.5), 2.0, 0.2)) == pytest.approx(-1.0, abs=1e-12)
    assert float(surrogates.clipped(jnp.float64(0.5), -2.0, 0.2)) == pytest.approx(1.6, abs=1e-12)
    # log pi = -1.5, A = 2: L^PG = -3, to be minimised: 3.
    assert float(surrogates.policy_gradient(jnp.float64(-1.5), 2.0)) == 3.0
    # r = 1.5, A = 2, beta = 4, KL = 0.25: 3 - 1 = 2.
    assert float(surrogates.kl_penalised(1.5, 2.0, 0.25, 4.0)) == -2.0
    # SPO at r = 1.5, A = -2, eps = 0.2: 2 * 0.25 / 0.4 = 1.25.
    assert float(surrogates.spo_drift(1.5, -2.0, 0.2)) == pytest.approx(1.25, abs=1e-12)
    # V = 3, V_old = 1, V_targ = 2.5, eps = 0.5: unclipped 0.25, clipped to 1.5: 1; half of it.
    assert float(surrogates.value_loss(jnp.float64(3.0), 1.0, 2.5, 0.5)) == 0.5
    # The same with V_targ = 1.6: unclipped 1.96 is the larger.
    assert float(surrogates.value_loss(jnp.float64(3.0), 1.0, 1.6, 0.5)) == pytest.approx(0.98)


@pytest.mark.parametrize("eps", EPSILONS)
def test_clip_is_its_piecewise_closed_form(eps: float) -> None:
    """Only a gain is capped: A > 0 above 1 + eps, A < 0 below 1 - eps."""
    expected = np.where(A >= 0.0, np.minimum(R, 1.0 + eps), np.maximum(R, 1.0 - eps)) * A
    np.testing.assert_allclose(surrogates.clipped(R, A, eps), -expected, rtol=1e-14)


@pytest.mark.parametrize("eps", EPSILONS)
def test_the_clips_gradient_is_zero_exactly_where_the_cap_binds(eps: float) -> None:
    gradient = jax.vmap(jax.grad(surrogates.clipped), (0, 0, None))(R, A, eps)
    capped = ((A > 0.0) & (1.0 + eps < R)) | ((A < 0.0) & (1.0 - eps > R))
    assert capped.any()
    np.testing.assert_array_equal(gradient, np.where(capped, 0.0, -A))


@pytest.mark.parametrize("ratio", [0.75, 1.25])
@pytest.mark.parametrize("advantage", [-2.0, 2.0])
def test_at_a_tie_the_whole_gradient_passes(ratio: float, advantage: float) -> None:
    """eps = 1/4 makes 1 +- eps exact."""
    gradient = jax.grad(surrogates.clipped)(jnp.asarray(ratio), advantage, 0.25)
    assert float(gradient) == -advantage


@pytest.mark.parametrize("eps", EPSILONS)
def test_clip_is_a_lower_bound_of_the_importance_sampled_objective(eps: float) -> None:
    assert np.all(surrogates.clipped(R, A, eps) >= surrogates.importance_sampled(R, A))


def test_an_infinite_clip_is_the_importance_sampled_objective() -> None:
    off = surrogates.clipped(R, A, math.inf)
    np.testing.assert_array_equal(off, surrogates.importance_sampled(R, A))
    gradient = jax.vmap(jax.grad(surrogates.clipped), (0, 0, None))(R, A, math.inf)
    np.testing.assert_array_equal(gradient, -A)


@pytest.mark.parametrize("eps", EPSILONS)
def test_clip_is_mirror_learning_with_its_drift(eps: float) -> None:
    drifted = surrogates.drifted(R, A, clip_drift(R, A, eps))
    np.testing.assert_allclose(drifted, surrogates.clipped(R, A, eps), rtol=1e-13, atol=1e-13)


# Asymmetric and dual clip -------------------------------------------------------------------------


def test_numbers_of_the_asymmetric_and_of_the_dual_clip_by_hand() -> None:
    """eps = 0.2 below and 0.3 above; c = 3."""
    cases = [  # r, A, objective
        (1.25, 2.0, 2.5),  # inside the wider upper half: r A
        (1.5, 2.0, 2.6),  # (1 + 0.3) * 2
        (0.5, -2.0, -1.6),  # (1 - 0.2) * -2
        (0.5, 2.0, 1.0),  # a loss is not capped
        (2.5, -2.0, -5.0),  # below c: r A
        (10.0, -2.0, -6.0),  # c A = 3 * -2 in place of -20
        (10.0, 2.0, 2.6),  # the dual clip knows negative advantages only
    ]
    for r, a, objective in cases:
        found = -float(surrogates.clipped(jnp.float64(r), jnp.float64(a), 0.2, 0.3, 3.0))
        assert found == pytest.approx(objective, abs=1e-12), (r, a)


def test_the_full_clip_is_its_piecewise_closed_form_with_the_gradient_of_each_piece() -> None:
    low, high, dual = 0.1, 0.6, 2.0
    gain = np.minimum(R, 1.0 + high) * A
    loss = np.minimum(np.maximum(R, 1.0 - low), dual) * A
    expected = np.where(A >= 0.0, gain, loss)
    found = surrogates.clipped(R, A, low, high, dual)
    np.testing.assert_allclose(found, -expected, rtol=1e-14, atol=1e-14)
    slope = jax.vmap(jax.grad(surrogates.clipped), (0, 0, None, None, None))(R, A, low, high, dual)
    capped = ((A > 0.0) & (1.0 + high < R)) | ((A < 0.0) & ((1.0 - low > R) | (dual < R)))
    assert (capped & (A < 0.0) & (R > 1.0)).any()
    np.testing.assert_array_equal(slope, np.where(capped, 0.0, -A))


def test_a_dual_clip_that_is_off_changes_neither_value_nor_gradient_bit_for_bit() -> None:
    """Float32 too, with advantages down to 0, where inf * 0 would be NaN."""
    for kind in (np.float64, np.float32):
        r, a = jnp.asarray(R, kind), jnp.asarray(A, kind)

        def loss(r: jax.Array, a: jax.Array, *dual: float) -> jax.Array:
            return surrogates.clipped(r, a, 0.2, 0.2, *dual)

        expected = -jnp.minimum(r * a, jnp.clip(r, 0.8, 1.2) * a)
        np.testing.assert_array_equal(loss(r, a, math.inf), expected)
        plain = jax.vmap(jax.grad(lambda r, a: surrogates.clipped(r, a, 0.2)))(r, a)
        np.testing.assert_array_equal(jax.vmap(jax.grad(loss))(r, a, np.full(65, np.inf)), plain)


# Factors that follow the KL -----------------------------------------------------------------------


def test_beta_follows_a_scripted_list_of_kls_as_in_the_paper() -> None:
    """Schulman et al. 2017, section 4: d < d_targ / 1.5: beta / 2; d > 1.5 d_targ: beta * 2."""
    target = 1.0 / 64.0
    script = [  # d / d_targ, beta after it
        (1.0, 1.0),
        (1.4, 1.0),
        (1.6, 2.0),
        (100.0, 4.0),
        (math.inf, 8.0),
        (0.7, 8.0),
        (1.5, 8.0),  # at the edge of the band nothing moves
        (0.6, 4.0),
        (0.0, 2.0),
        (math.nan, 2.0),
        (0.1, 1.0),
        (0.1, 0.5),
    ]
    beta = jnp.ones(())
    for share, expected in script:
        beta = surrogates.adapted_factor(beta, jnp.float64(share * target), target, 2.0, 1.5)
        assert float(beta) == expected, share


@pytest.mark.parametrize("kl", [0.0, 1.0, math.inf, math.nan])
def test_without_a_target_a_factor_stays_bit_for_bit(kl: float) -> None:
    for factor in (1.0, 0.3, 1e9):
        found = surrogates.adapted_factor(jnp.float64(factor), jnp.float64(kl), math.inf, 2.0, 1.5)
        assert float(found) == factor


def test_a_factor_stops_at_a_millionth_and_at_a_million_and_comes_back() -> None:
    for kl, end, back in ((1.0, 1e6, 5e5), (0.0, 1e-6, 2e-6)):
        factor = jnp.ones(())
        for _ in range(30):
            factor = surrogates.adapted_factor(factor, jnp.float64(kl), 0.1, 2.0, 1.5)
        assert float(factor) == end
        turned = surrogates.adapted_factor(factor, jnp.float64(1.0 - kl), 0.1, 2.0, 1.5)
        assert float(turned) == back


# Drifts -------------------------------------------------------------------------------------------


DRIFTS = {
    "dpo": surrogates.dpo_drift,
    "spo": lambda r, a: surrogates.spo_drift(r, a, 0.2),
    "clip": lambda r, a: clip_drift(r, a, 0.2),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_a_drift_is_nowhere_negative_and_vanishes_to_first_order_at_one(name: str) -> None:
    drift = DRIFTS[name]
    assert np.all(np.asarray(drift(R, A)) >= 0.0)
    assert np.any(np.asarray(drift(R, A)) > 0.0)
    ones = np.ones_like(ADVANTAGES)
    np.testing.assert_array_equal(drift(ones, ADVANTAGES), 0.0)
    slope = jax.vmap(jax.grad(drift))(ones, ADVANTAGES)
    np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.parametrize("advantage", [-2.0, 0.5])
def test_spos_objective_is_stationary_at_the_clips_edge(advantage: float) -> None:
    """d/dr [r A - |A| (r - 1)^2 / (2 eps)] = 0 at r = 1 + sign(A) eps, and nowhere else."""

    def objective(r: jax.Array) -> jax.Array:
        return surrogates.drifted(r, advantage, surrogates.spo_drift(r, advantage, 0.2))

    edge = 1.0 + math.copysign(0.2, advantage)
    assert float(jax.grad(objective)(edge)) == pytest.approx(0.0, abs=1e-12)
    assert abs(float(jax.grad(objective)(1.0))) == pytest.approx(abs(advantage))


def test_rlax_computes_the_same_losses_and_gradients() -> None:
    rng = np.random.default_rng(3)
    logits, action, advantage = rng.normal(size=(7, 4)), rng.integers(4, size=7), rng.normal(size=7)
    old = jax.nn.log_softmax(logits + rng.normal(size=(7, 4)))[np.arange(7), action]
    one = np.ones(7)

    def log_prob(x: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(x)[np.arange(7), action]

    def ratio(x: jax.Array) -> jax.Array:
        return jnp.exp(surrogates.log_ratio(log_prob(x), old))

    pairs = [
        (
            lambda x: surrogates.policy_gradient(log_prob(x), advantage).mean(),
            lambda x: rlax.policy_gradient_loss(x, action, advantage, one),
        ),
        (
            lambda x: surrogates.clipped(ratio(x), advantage, 0.2).mean(),
            lambda x: rlax.clipped_surrogate_pg_loss(ratio(x), advantage, 0.2),
        ),
    ]
    for ours, theirs in pairs:
        value, gradient = jax.value_and_grad(ours)(logits)
        value_rlax, gradient_rlax = jax.value_and_grad(theirs)(logits)
        np.testing.assert_allclose(value, value_rlax, rtol=1e-12)
        np.testing.assert_allclose(gradient, gradient_rlax, atol=1e-12)


def test_a_saturated_sample_has_a_finite_loss_and_gradient() -> None:
    """log pi_theta - log pi_old = 100 would make r = 3e43, more than float32 holds."""
    with jax.enable_x64(False):

        def loss(log_prob: jax.Array, kind: str) -> jax.Array:
            r = jnp.exp(surrogates.log_ratio(log_prob, jnp.float32(0.0)))
            a = jnp.float32(1.0)
            return {
                "is": lambda: surrogates.importance_sampled(r, a),
                "is, A < 0": lambda: surrogates.importance_sampled(r, -a),
                "clip": lambda: surrogates.clipped(r, a, 0.2),
                "clip, A < 0": lambda: surrogates.clipped(r, -a, 0.2),
                "dpo": lambda: surrogates.drifted(r, a, surrogates.dpo_drift(r, a)),
                "dpo, A < 0": lambda: surrogates.drifted(r, -a, surrogates.dpo_drift(r, -a)),
                "spo": lambda: surrogates.drifted(r, a, surrogates.spo_drift(r, a, 0.2)),
            }[kind]()

        for difference in (-100.0, 100.0):
            for kind in ("is", "is, A < 0", "clip", "clip, A < 0", "dpo", "dpo, A < 0", "spo"):
                value, gradient = jax.value_and_grad(loss)(jnp.float32(difference), kind)
                assert np.isfinite(value), (kind, difference)
                assert float(gradient) == 0.0, (kind, difference)
        assert float(jax.grad(loss)(jnp.float32(19.0), "is")) == pytest.approx(-math.exp(19.0))


def test_the_clipped_value_loss_has_no_gradient_where_the_clip_decides() -> None:
    slope = jax.grad(surrogates.value_loss)
    # V = 3, V_old = 1, V_targ = 4, eps = 0.5: the clipped error, at 1.5, is larger and constant.
    assert float(slope(3.0, 1.0, 4.0, 0.5)) == 0.0
    # V_targ = 0: the unclipped error 9 is larger; the gradient is V - V_targ.
    assert float(slope(3.0, 1.0, 0.0, 0.5)) == 3.0
    # Inside the interval both agree.
    assert float(slope(1.25, 1.0, 4.0, 0.5)) == pytest.approx(-2.75, abs=1e-12)


def test_an_infinite_value_clip_is_half_the_squared_error() -> None:
    off = surrogates.value_loss(X, Y, Z, math.inf)
    np.testing.assert_allclose(off, 0.5 * (X - Z) ** 2, rtol=1e-13)
    slope = jax.vmap(jax.grad(surrogates.value_loss), (0, 0, 0, None))(X, Y, Z, math.inf)
    np.testing.assert_allclose(slope, X - Z, rtol=1e-12)


@pytest.mark.parametrize(
    "rate, kl, expected",
    [
        (1.0, 0.03, 1 / 1.5),  # above twice the target of 0.01
        (1.0, 0.004, 1.5),  # below half of it
        (1.0, 0.015, 1.0),
        (1.0, 0.0, 1.0),  # a policy that does not move
        (1.0, math.nan, 1.0),
        (9.0, 0.004, 10.0),  # 1e-2 / 1e-3
        (0.011, 0.03, 0.01),  # 1e-5 / 1e-3
    ],
)
def test_an_adapted_learning_rate_by_hand(rate: float, kl: float, expected: float) -> None:
    found = surrogates.adapted_learning_rate(jnp.asarray(rate), 1e-3, jnp.asarray(kl), 0.01)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(
        surrogates.adapted_learning_rate(jnp.asarray(rate), 1e-3, jnp.asarray(kl), math.inf)
    ) == pytest.approx(rate)


def test_a_learning_rate_outside_the_band_keeps_its_own_bound() -> None:
    rate = jnp.ones(())
    for learning_rate in (0.1, 0.0, 1e-7):
        for kl in (1e-9, 1.0):
            moved = surrogates.adapted_learning_rate(rate, learning_rate, jnp.asarray(kl), 0.01)
            assert 0.0 < float(moved) < math.inf
    up = surrogates.adapted_learning_rate(rate, 0.1, jnp.asarray(1e-9), 0.01)
    assert float(up) == 1.0  # 0.1 lies above the band and goes down only
