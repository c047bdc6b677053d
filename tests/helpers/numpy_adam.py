"""Adam in NumPy, written out: what the trainer's steps are compared with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ppo_jax.config.config import Hyper


def numpy_adam(
    params: np.ndarray, gradients: Any, hyper: Hyper, stop_after: int | None = None
) -> np.ndarray:
    """Kingma and Ba 2015, algorithm 1, on gradients clipped in global norm (Pascanu et al. 2013).

    Args:
        gradients: functions of the parameters, one a step.
        stop_after: the number of steps that are taken.
    """
    mu, nu = np.zeros_like(params), np.zeros_like(params)
    for step, gradient_of in enumerate(gradients[:stop_after], start=1):
        gradient = gradient_of(params)
        norm = math.sqrt(sum(float(g) ** 2 for g in gradient))
        if norm > hyper.max_grad_norm:
            gradient = gradient * (hyper.max_grad_norm / norm)
        mu = 0.9 * mu + 0.1 * gradient
        nu = 0.999 * nu + 0.001 * gradient**2
        mu_hat, nu_hat = mu / (1.0 - 0.9**step), nu / (1.0 - 0.999**step)
        params = params - hyper.learning_rate * mu_hat / (np.sqrt(nu_hat) + hyper.adam_epsilon)
    return params
