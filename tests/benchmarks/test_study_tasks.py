"""The tasks of the studies: their known answers, and a declared space that holds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import scipy.linalg

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import study_tasks


def linear_return(gain: np.ndarray, episodes: int = 100_000, steps: int = 50) -> float:
    """Mean return of u = -gain x over the task's episodes, by simulation in NumPy."""
    a, b, draws = study_tasks.A, study_tasks.B, np.random.default_rng(0)
    x = draws.uniform(-1.0, 1.0, (episodes, 2))
    total = np.zeros(episodes)
    for _ in range(steps):
        u = np.clip(-x @ gain.T, -5.0, 5.0)
        total -= np.einsum("ei,ij,ej->e", x, study_tasks.Q, x) + study_tasks.R[0, 0] * u[:, 0] ** 2
        x = x @ a.T + u @ b.T + study_tasks.NOISE * draws.normal(size=x.shape)
    return float(total.mean())


def test_the_gain_of_the_linear_quadratic_task_solves_scipys_riccati_equation():
    for gamma in (0.9, 0.99):
        root = np.sqrt(gamma)
        a, b = root * study_tasks.A, root * study_tasks.B
        p = scipy.linalg.solve_discrete_are(a, b, study_tasks.Q, study_tasks.R)
        gain = np.linalg.solve(study_tasks.R + b.T @ p @ b, b.T @ p @ a)
        np.testing.assert_allclose(study_tasks.riccati_gain(gamma), gain, rtol=1e-9)


def test_the_optimal_gain_has_the_return_that_normalises_the_study():
    gain = study_tasks.riccati_gain()
    best = linear_return(gain, episodes=20_000)
    assert abs(best + 2.855) < 0.03
    for factor in (0.7, 1.4):
        assert linear_return(factor * gain, episodes=20_000) < best
