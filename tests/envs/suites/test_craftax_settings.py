"""Settings of Craftax that are no parameters."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration

pytest.importorskip("craftax", reason="pip install 'ppo-jax[craftax]'")
GAME = "Craftax-Classic-Symbolic-v1"


def test_angles_are_not_offered_and_are_four_in_the_call_of_their_refusal():
    environment = registration.make(f"craftax/{GAME}")
    with pytest.raises(InputError, match=r"it has max_timesteps, .*spawn_skeleton_chance.$"):
        environment.override(environment.default_params, {"xyz": 1})
    call = rf"craftax.make\('{GAME}', fractal_noise_angles=\(0.1, 0.2, 0.3, 0.4\)\)"
    with pytest.raises(InputError, match=call):
        environment.override(environment.default_params, {"fractal_noise_angles": 1})


def test_angles_decide_the_terrain_and_one_stands_for_all_points_of_its_noise():
    from ppo_jax.envs.suites import craftax as adapter

    def water(first):
        angles = (first, 0.2, None, 0.4)
        environment = adapter.make(GAME, fractal_noise_angles=angles)
        keys = jax.random.split(jax.random.key(0), 2)
        states = jax.jit(jax.vmap(environment.reset, (0, None)))(keys, environment.default_params)
        return np.isin(np.asarray(states[1].map), 3)  # BlockType.WATER

    one, two = water(0.1), water(0.35)
    assert one.any()
    assert (one != two).any()
    np.testing.assert_array_equal(water(np.full((5, 5), 0.1)), one)
