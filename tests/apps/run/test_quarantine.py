"""The remains of a frozen member: its last good state, its samples, its minibatches."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BATCH, CONFIG, HYPER, Walk, tiny_run

from ppo_jax.apps.diagnose import debug
from ppo_jax.apps.run import quarantine
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import population, programs
from ppo_jax.storage import checkpoint, checkpoint_list
from ppo_jax.training import schedules, trainer

pytestmark = pytest.mark.slow


class Trap(Walk):
    """A single step to the right, which every batch has, and the reward is not a number."""

    name = "Trap"

    def step_env(self, key: jax.Array, state: Any, action: Any, params: Any) -> tuple:
        seen, state, reward, ended, info = super().step_env(key, state, action, params)
        reward = jnp.log(0.7 - state.x)
        return seen, state, reward, ended, info


def spread(monkeypatch: pytest.MonkeyPatch, kind: str) -> int:
    """Make runs of one seed take a layout; how many shares its environments have."""
    monkeypatch.setattr(layouts, "ENVS_LAYOUT_ROWS", 0 if kind == "envs" else 10**9)
    return 2 if kind == "envs" else 1


TRAPPED = dataclasses.replace(CONFIG, env=Trap())


@pytest.mark.parametrize("kind", ["map", "envs"])
def test_a_frozen_member_leaves_its_last_good_state_and_the_samples_it_could_not_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, capsys: Any
) -> None:
    shares = spread(monkeypatch, kind)
    run = tiny_run(tmp_path / "a", TRAPPED, seeds=1, quiet=False)
    assert run.summary["num_failed"] == 1
    folder = quarantine.folder_of(run.folder, 0)
    told = capsys.readouterr().err
    assert "seed 0 is frozen: too many of its updates" in told
    assert told.count("is frozen") == 1
    # The state is that which every later checkpoint of the run has for this member.
    state, _ = checkpoint.load_raw(folder / quarantine.STATE)
    last, _ = checkpoint.load_raw(checkpoint_list.latest(run.folder)[0] or Path())
    for name, value in state.items():
        np.testing.assert_array_equal(value, last[name][0], err_msg=name)
    assert all(np.isfinite(v).all() for n, v in state.items() if n.startswith("params"))
    with np.load(folder / quarantine.BATCH) as batch:
        assert batch["observation"].shape == (BATCH, 2)
        assert not np.isfinite(batch["value_target"]).all()  # here is what it could not learn
        rows = batch[quarantine.ROWS]
    # Each epoch takes each sample once, and each minibatch as many from each device's environments.
    assert rows.shape == (2, 2, BATCH // 2)
    for epoch in rows:
        np.testing.assert_array_equal(np.sort(epoch.ravel()), np.arange(BATCH))
        for minibatch in epoch:
            counts = np.bincount(minibatch % 4 // (4 // shares), minlength=shares)
            np.testing.assert_array_equal(counts, BATCH // 2 // shares)


@pytest.mark.parametrize("kind", ["map", "envs"])
def test_debug_finds_the_operation_in_every_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    spread(monkeypatch, kind)
    run = tiny_run(tmp_path / "a", TRAPPED, seeds=1)
    report = debug.debug(run.folder, env=Trap())
    assert report["fault"]["code"] == "reward = jnp.log(0.7 - state.x)"
    with np.load(report["batch"]) as again, np.load(run.folder / "frozen-0" / "batch.npz") as kept:
        assert set(again.files) == set(kept.files)
        for name in again.files:
            np.testing.assert_array_equal(again[name], kept[name], err_msg=name)


def test_an_update_of_environments_spread_over_devices_is_made_again_as_the_run_made_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares = spread(monkeypatch, "envs")
    layout = layouts.choose_layout(CONFIG, 1)
    assert (layout.num_shares, layout.num_blocks) == (shares, shares)
    hyper = schedules.as_arrays(CONFIG, HYPER)
    state = population.init_population(CONFIG, hyper, 7, layout)
    one = quarantine.alone(state, 0)
    found = debug.update(CONFIG, shares, hyper, one)[0]
    after, _ = programs.make_chunk(CONFIG, layout)(hyper, state, np.int32(1))
    before = jax.tree.leaves(one.params)
    for i, (mine, theirs) in enumerate(
        zip(jax.tree.leaves(found), jax.tree.leaves(after.params), strict=True)
    ):
        assert np.abs(np.asarray(theirs[0]) - np.asarray(before[i])).max() > 1e-4  # it moved
        np.testing.assert_allclose(mine, theirs[0], atol=1e-6)


def test_only_so_many_members_are_kept_and_none_twice(tmp_path: Path) -> None:
    layout = layouts.Layout("vmap", tuple(jax.local_devices()[:1]), 12)
    hyper = schedules.as_arrays(CONFIG, HYPER)
    state = jax.vmap(lambda key: trainer.init(CONFIG, hyper, key))(
        jax.random.split(jax.random.key(0), 12)
    )
    kept = quarantine.keep_frozen(tmp_path, CONFIG, hyper, layout, state, [2, 3])
    assert sorted(kept) == [2, 3]
    kept = quarantine.keep_frozen(tmp_path, CONFIG, hyper, layout, state, range(12))
    assert sorted(kept) == [0, 1, 4, 5, 6, 7]
    assert quarantine.keep_frozen(tmp_path, CONFIG, hyper, layout, state, range(12)) == {}
