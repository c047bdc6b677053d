"""Policies whose critic saw more than the actor, outside of the program."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hidden import ENVIRONMENT
from saved_policy import TINY, saved

from ppo_jax.apps.export.export import export
from ppo_jax.apps.export.load_policy import load_policy


@pytest.mark.slow
def test_exported_and_loaded_policies_need_the_actors_part_only(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, env=ENVIRONMENT, normalize_observations=True)
    run = saved(tmp_path / "run", config)
    ours = load_policy(run, env=ENVIRONMENT)
    rows = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    seen = {"actor": rows[:, :2], "both": rows[:, 2]}
    assert len(np.unique(ours(seen))) > 1
    for format in ("numpy", "stablehlo"):
        found = export(run, format=format, env=ENVIRONMENT)
        np.testing.assert_array_equal(load_policy(found["out"])(seen), ours(seen))
