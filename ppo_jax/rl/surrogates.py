"""The page of equations: every surrogate of the story from L^PG to PPO, per sample.

Notation: r = pi_theta(a|s) / pi_old(a|s) is the ratio, A the advantage estimate. Every function
returns a loss per sample, to be *minimised*: the negative of the papers' objective. The caller
averages. Arrays may have any one shape, shared by all arguments. Advantages and everything `old`
are data; gradients flow through `log_prob`, `ratio`, `kl_old_new` and `value` alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.kernels.reductions import clamp

# exp(20) = 4.9e8: far beyond any useful ratio, and small enough that products and squares of it
# stay finite in float32. Beyond it the gradient is zero rather than inf * 0 = NaN.
MAX_LOG_RATIO = 20.0


def log_ratio(log_prob: Array, log_prob_old: Array) -> Array:
    """log r = log pi_theta(a|s) - log pi_old(a|s), clamped to +-MAX_LOG_RATIO."""
    return clamp(log_prob - log_prob_old, -MAX_LOG_RATIO, MAX_LOG_RATIO)


def policy_gradient(log_prob: Array, advantage: Array) -> Array:
    """L^PG = log pi_theta(a|s) A  (Schulman et al. 2017, eq. 2).

    Its gradient is the policy gradient only if the samples come from pi_theta itself. This holds
    for the first step on a batch only.
    """
    return -log_prob * advantage


def importance_sampled(ratio: Array, advantage: Array) -> Array:
    """L^IS = L^CPI = r A  (Schulman et al. 2017, eq. 6; Kakade and Langford 2002).

    At theta_old r = 1 and grad r = grad log pi, so grad L^IS = grad L^PG there; elsewhere the ratio
    corrects for sampling from pi_old.
    """
    return -ratio * advantage


def clipped(
    ratio: Array,
    advantage: Array,
    epsilon: Array | float,
    epsilon_high: Array | float | None = None,
    dual_clip: Array | float = jnp.inf,
) -> Array:
    """L^CLIP = min(r A, clip(r, 1 - eps, 1 + eps) A)  (Schulman et al. 2017, eq. 7).

    At the ties r = 1 +- eps the gradient is that of r A.

    Args:
        epsilon_high: the upper half-width, if it differs from the lower one (Yu et al. 2025).
        dual_clip: c > 1; for A < 0 the objective is at least c A (Ye et al. 2020, eq. 5), so that
            one very large ratio cannot dominate a batch. inf disables it.
    """
    high = epsilon if epsilon_high is None else epsilon_high
    whole = ratio * advantage
    bounded = clamp(ratio, 1.0 - epsilon, 1.0 + high) * advantage
    inner = jnp.where(whole <= bounded, whole, bounded)
    floor = dual_clip * jnp.minimum(advantage, -1e-30)  # below 0, as inf * 0 is NaN
    return -jnp.where((advantage < 0.0) & (inner < floor), floor, inner)


def kl_penalised(ratio: Array, advantage: Array, kl: Array, beta: Array | float) -> Array:
    """L^KLPEN = r A - beta KL  (Schulman et al. 2017, eq. 8, with KL[pi_old || pi_theta])."""
    return -(ratio * advantage - beta * kl)


def adapted_factor(
    factor: Array, kl: Array, target: Array | float, step: float, band: float
) -> Array:
    """Multiply a factor by `step` if kl > band * target, divide it by `step` if kl < target / band.

    Step 2 and band 1.5 give the rule for beta of Schulman et al. 2017, section 4. A NaN kl, or an
    infinite target, keeps the factor. The factor stays within 1e-6 .. 1e6.
    """
    up, down = kl > band * target, kl < target / band
    moved = jnp.where(up, factor * step, jnp.where(down, factor / step, factor))
    return jnp.where(jnp.isfinite(target), jnp.clip(moved, 1e-6, 1e6), factor)


def adapted_learning_rate(
    rate: Array, learning_rate: Array | float, kl: Array, target: Array | float
) -> Array:
    """The factor on a learning rate that follows the KL: / 1.5 above 2 target, x 1.5 below half.

    The rule and the band of rsl_rl (Rudin et al. 2022): the learning rate stays in 1e-5 .. 1e-2, or
    up to the user's own if that lies outside. It rises only if KL > 0: a policy that cannot move
    says nothing about the step. A NaN kl, or an infinite target, leaves the factor as it is.
    """
    up = (kl < target / 2.0) & (kl > 0.0)
    moved = jnp.where(kl > 2.0 * target, rate / 1.5, jnp.where(up, rate * 1.5, rate))
    size = jnp.maximum(learning_rate, 1e-30)
    low, high = jnp.minimum(1.0, 1e-5 / size), jnp.maximum(1.0, 1e-2 / size)
    return jnp.where(jnp.isfinite(target), jnp.clip(moved, low, high), rate)


def upper_epsilon(epsilon: Array | float, epsilon_high: Array | float) -> Array:
    """The clip's upper half-width: `epsilon_high`, or `epsilon` if that is 0."""
    high = jnp.asarray(epsilon_high)
    return jnp.where(high > 0.0, high, epsilon)


def dpo_drift(ratio: Array, advantage: Array, alpha: float = 2.0, beta: float = 0.6) -> Array:
    """The drift D(r, A) of Discovered Policy Optimisation (Lu et al. 2022, eq. 6), >= 0.

    D = relu((r - 1) A - alpha tanh((r - 1) A / alpha)) if A >= 0, and
    D = relu(log(r) A - beta tanh(log(r) A / beta)) otherwise; value and slope are 0 at r = 1.
    """
    gain = (ratio - 1.0) * advantage
    loss = jnp.log(ratio) * advantage
    return jnp.where(
        advantage >= 0.0,
        jax.nn.relu(gain - alpha * jnp.tanh(gain / alpha)),
        jax.nn.relu(loss - beta * jnp.tanh(loss / beta)),
    )


def spo_drift(ratio: Array, advantage: Array, epsilon: Array | float) -> Array:
    """The drift |A| (r - 1)^2 / (2 eps) of Simple Policy Optimization (Xie et al. 2024, eq. 11)."""
    return jnp.abs(advantage) * jnp.square(ratio - 1.0) / (2.0 * epsilon)


def drifted(ratio: Array, advantage: Array, drift: Array) -> Array:
    """r A - D(r, A), the form of mirror learning (Kuba et al. 2022)."""
    return -(ratio * advantage - drift)


def value_loss(
    value: Array, value_old: Array, value_target: Array, epsilon: Array | float
) -> Array:
    """(1/2) max((V - V_targ)^2, (V_old + clip(V - V_old, -eps, eps) - V_targ)^2).

    Schulman et al. 2017, eq. 9, has neither the half nor the clip; both come from OpenAI's
    baselines. eps = inf disables the clip.
    """
    value_clipped = value_old + clamp(value - value_old, -epsilon, epsilon)
    whole, bounded = jnp.square(value - value_target), jnp.square(value_clipped - value_target)
    return 0.5 * jnp.where(whole >= bounded, whole, bounded)
