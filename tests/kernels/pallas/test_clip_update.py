"""The fused update without Triton, against its plain form and against the trainer's own loss."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from objective_cases import jit

from ppo_jax.kernels.pallas import clip_update
from ppo_jax.kernels.pallas.clip_update import Networks, Rows, fused, plain
from ppo_jax.rl import surrogates

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks" / "speed"))

from fused_update import NUMBERS, Problem, networks, trainer_gradient

# Two programs of two blocks of 16 rows. One block is partly empty, the last one wholly.
PROBLEM = Problem(rows=37, inputs=4, actions=3, width=16)
KERNEL = partial(fused, block=16, programs=2, interpret=True)


def assert_close(found: Any, expected: Any) -> None:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_loss_and_gradients_are_those_of_the_plain_form_and_of_the_trainer() -> None:
    tree, rows = PROBLEM.draw()
    params = networks(tree)
    loss, gradients = jit(partial(trainer_gradient, PROBLEM))(tree, rows)
    by_trainer = loss, networks(gradients)
    assert all(np.abs(leaf).max() > 1e-2 for leaf in jax.tree.leaves(by_trainer))
    assert_close(jit(plain)(params, rows, NUMBERS), by_trainer)
    assert_close(jit(KERNEL)(params, rows, NUMBERS), by_trainer)


@pytest.mark.parametrize("widths, actions", [((16, 32), 2), ((24, 24), 2), ((16, 16), 17)])
def test_layers_that_do_not_fit_the_tiles_are_refused(widths: tuple, actions: int) -> None:
    shapes = ((4, widths[0]), widths, (widths[1], actions))
    layers = tuple((np.zeros(shape, "f4"), np.zeros(shape[1:], "f4")) for shape in shapes)
    rows = Rows(np.zeros((8, 4), "f4"), np.zeros(8, "i4"), *np.zeros((3, 8), "f4"))
    with pytest.raises(ValueError, match="takes no layers"):
        KERNEL(Networks(layers, layers), rows, NUMBERS)


def test_log_ratios_are_clamped_where_those_of_the_trainer_are() -> None:
    assert clip_update.MAX_LOG_RATIO == surrogates.MAX_LOG_RATIO  # kernels/ imports no rl/
