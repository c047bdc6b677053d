"""Metrics of an iteration's ratios, by hand and against known distributions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import all_metrics

from ppo_jax.config.config import Hyper
from ppo_jax.kernels.collectives import ALONE
from ppo_jax.rl.ratios import ess_fraction, measure_ratios, ratio_metrics
from ppo_jax.training.update import Learned


def test_metrics_by_hand() -> None:
    """E = 1, M = 4 of 2 rows each; only the first two were learnt from; eps = 0.4 and 0.6."""
    ratio = np.array([[[0.5, 1.0], [1.5, 2.0], [0.1, 1.0], [1.0, 5.0]]])
    diagnostics = {
        "active": jnp.array([[1.0, 1.0, 0.0, 0.0]]),
        "policy_loss": jnp.array([[1.0, 3.0, jnp.nan, 100.0]]),
    }
    learned = Learned((), (), jnp.ones(()), jnp.zeros(()), diagnostics, jnp.log(ratio))
    found = all_metrics(Hyper(clip_epsilon=0.4, clip_epsilon_high=0.6), learned)
    logs = math.log(0.5) + math.log(1.5) + math.log(2.0)
    assert {name: float(x) for name, x in found.items()} == pytest.approx(
        {
            "policy_loss": 2.0,
            "kl_k1": -logs / 4.0,
            "kl_k3": 0.25 - logs / 4.0,  # mean of r - 1 is 1 / 4
            "clip_fraction": 0.5,  # 0.5 and 2.0
            "clamped_fraction": 0.0,
            "ratio_mean": 1.25,
            "ess_fraction": 1.25**2 / 1.875,  # squares 0.25, 1, 2.25, 4
            "ratio_max": 5.0,
            "log_ratio_abs_first": math.log(2.0),
            "updates_fraction": 0.5,
        },
        abs=1e-6,
    )


def test_the_estimates_of_the_kl_are_unbiased_and_k3_is_never_negative() -> None:
    """KL[old||new] of N(0, 1) and N(0.3, 0.9^2), by 40,000 samples of old: 4 standard errors."""
    x = np.random.default_rng(0).normal(size=(1, 4, 10_000))
    log_ratio = 0.5 * x**2 - 0.5 * ((x - 0.3) / 0.9) ** 2 - math.log(0.9)
    ratios = measure_ratios(Hyper(), jnp.asarray(log_ratio), jnp.ones((1, 4)))
    found = ratio_metrics(ALONE.gather(ratios))
    kl = math.log(0.9) + (1.0 + 0.09) / (2.0 * 0.9**2) - 0.5
    k1, k3 = -log_ratio, np.expm1(log_ratio) - log_ratio
    assert k3.min() >= 0.0
    for name, samples in (("kl_k1", k1), ("kl_k3", k3)):
        assert abs(float(found[name]) - kl) < 4.0 * samples.std() / 200.0, name
    assert k3.std() < k1.std()


def test_the_effective_sample_size_is_kishs() -> None:
    """(sum w)^2 / sum w^2 over N: the share of equal weights that is as good as these."""
    for weights in ([1.0, 1.0, 1.0], [3.0, 0.0, 0.0], [0.5, 2.0, 1.0, 4.0]):
        w = np.array(weights)
        found = ess_fraction(jnp.mean(jnp.asarray(w)), jnp.mean(jnp.asarray(w**2)))
        assert float(found) == pytest.approx(w.sum() ** 2 / (w**2).sum() / len(w), rel=1e-6)
    assert float(ess_fraction(jnp.zeros(()), jnp.zeros(()))) == 0.0  # no division by zero


def test_samples_that_are_left_out_count_in_no_metric() -> None:
    """Two devices of three rows, of which two and one are kept: ratios 0.5, 1 and 3."""
    ratio = np.array([[0.5, 1.0, 9.0], [3.0, 8.0, 0.01]])
    weight = jnp.asarray([[2.0, 2.0, 0.0], [2.0, 0.0, 0.0]])
    devices = [
        measure_ratios(Hyper(clip_epsilon=0.2), jnp.log(rows)[None, None], jnp.ones((1, 1)), own)
        for rows, own in zip(ratio, weight[:, None, None])
    ]
    found = ratio_metrics(jax.tree.map(lambda *parts: jnp.stack(parts), *devices))
    logs = math.log(0.5) + math.log(3.0)
    assert {name: float(x) for name, x in found.items()} == pytest.approx(
        {
            "kl_k1": -logs / 3.0,
            "kl_k3": 0.5 - logs / 3.0,  # mean of r - 1 is 1 / 2
            "clip_fraction": 2.0 / 3.0,
            "clamped_fraction": 0.0,
            "ratio_mean": 1.5,
            "ess_fraction": 1.5**2 / (10.25 / 3.0),  # squares 0.25, 1, 9
            "ratio_max": 3.0,
            "log_ratio_abs_first": math.log(3.0),
        },
        abs=1e-6,
    )
    nothing = measure_ratios(Hyper(), jnp.ones((1, 1, 2)), jnp.ones((1, 1)), jnp.zeros((1, 1, 2)))
    assert all(float(x) == 0.0 for x in ratio_metrics(ALONE.gather(nothing)).values())


def test_ratios_of_several_devices_are_those_of_all_their_rows() -> None:
    """Means over both halves, and the largest of both; the devices have equally many rows."""
    log_ratio = np.random.default_rng(1).normal(size=(2, 3, 8))  # [E, M, rows]
    hyper, active = Hyper(clip_epsilon=0.3), jnp.ones((2, 3))
    whole = ratio_metrics(ALONE.gather(measure_ratios(hyper, jnp.asarray(log_ratio), active)))
    halves = [
        measure_ratios(hyper, jnp.asarray(log_ratio[..., half]), active)
        for half in (slice(4), slice(4, 8))
    ]
    both = ratio_metrics(jax.tree.map(lambda *parts: jnp.stack(parts), *halves))
    for name, value in whole.items():
        assert float(both[name]) == pytest.approx(float(value), rel=1e-5), name
