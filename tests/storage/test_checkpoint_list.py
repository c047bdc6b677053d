"""The newest, the best and a named checkpoint of a run folder, and what pruning leaves."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.storage import checkpoint, checkpoint_list
from ppo_jax.storage.checkpoint import CheckpointError, checkpoint_folder, load, save
from ppo_jax.storage.checkpoint_list import latest, prune


def test_latest_is_the_newest_by_number_and_nothing_in_an_empty_run(tmp_path):
    assert latest(tmp_path) == (None, [])
    for steps in (10, 9, 10**12):
        save(checkpoint_folder(tmp_path, steps), {"x": jnp.zeros(1)}, {})
    assert latest(tmp_path) == (checkpoint_folder(tmp_path, 10**12), [])


def test_latest_passes_over_damaged_checkpoints_loudly(tmp_path):
    folders = [checkpoint_folder(tmp_path, steps) for steps in (1, 2, 3)]
    for folder in folders:
        save(folder, {"x": jnp.zeros(1)}, {})
    (folders[2] / checkpoint.ARRAYS).write_bytes(b"")
    (folders[1] / checkpoint.MANIFEST).unlink()
    found, warnings = latest(tmp_path)
    assert found == folders[0]
    assert len(warnings) == 2
    assert str(folders[2]) in warnings[0]
    assert str(folders[1]) in warnings[1]


def test_prune_keeps_the_newest_that_can_be_read(tmp_path):
    folders = [checkpoint_folder(tmp_path, steps) for steps in range(1, 6)]
    for folder in folders:
        save(folder, {"x": jnp.zeros(1)}, {})
    (folders[4] / checkpoint.ARRAYS).write_bytes(b"")
    (tmp_path / "checkpoints" / "mine").mkdir()
    prune(tmp_path, keep=2)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["mine", *(folder.name for folder in folders[2:])]
    with pytest.raises(InputError, match="at least 1"):
        prune(tmp_path, keep=0)


def test_a_checkpoint_under_another_name_is_seen(tmp_path):
    first, second = checkpoint_folder(tmp_path, 1), checkpoint_folder(tmp_path, 2)
    save(first, {"x": jnp.zeros(1)}, {"env_steps": 1})
    shutil.copytree(first, second)
    found, warnings = latest(tmp_path)
    assert found == first
    assert "holds the state after 1 environment steps" in warnings[0]
    with pytest.raises(CheckpointError, match="renamed or exchanged"):
        load(second, {"x": jnp.zeros(1)})


def test_a_checkpoint_of_another_run_is_seen(tmp_path):
    (tmp_path / "config.json").write_text('{"run_id": "mine"}')
    for steps, run_id in ((1, "mine"), (2, "yours")):
        metadata = {"env_steps": steps, "run_id": run_id}
        save(checkpoint_folder(tmp_path, steps), {"x": jnp.zeros(1)}, metadata)
    found, warnings = latest(tmp_path)
    assert found == checkpoint_folder(tmp_path, 1)
    assert "is of another run (yours; this one is mine)" in warnings[0]


def test_the_best_is_kept_beside_the_newest(tmp_path):
    for steps, score in ((1, None), (2, 5.0), (3, 7.0), (4, 7.0), (5, 6.0), (6, None), (7, None)):
        metadata = {"env_steps": steps, "score": score}
        save(checkpoint_folder(tmp_path, steps), {"x": jnp.zeros(1)}, metadata)
    assert checkpoint_list.best(tmp_path) == checkpoint_folder(tmp_path, 4)
    prune(tmp_path, keep=2)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == [checkpoint_folder(tmp_path, steps).name for steps in (4, 6, 7)]


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Checkpoints after 1, 2, 3 and 4 steps; the third has no score, the second the best."""
    for steps, score in ((1, 5.0), (2, 7.0), (3, None), (4, 6.0)):
        metadata = {"env_steps": steps, "score": score}
        save(checkpoint_folder(tmp_path, steps), {"x": jnp.zeros(1)}, metadata)
    return tmp_path


@pytest.mark.parametrize("choice, steps", [("newest", 4), ("best", 2), (3, 3), (1, 1)])
def test_a_checkpoint_is_chosen_by_word_or_by_steps(scored, choice, steps):
    assert checkpoint_list.chosen(scored, choice) == (checkpoint_folder(scored, steps), [])


def test_a_damaged_checkpoint_is_passed_over_by_a_word_and_refused_by_its_steps(scored):
    for steps in (2, 4):
        (checkpoint_folder(scored, steps) / checkpoint.ARRAYS).write_bytes(b"")
    folder, (reason,) = checkpoint_list.chosen(scored, "newest")
    assert folder == checkpoint_folder(scored, 3)
    assert f"{checkpoint_folder(scored, 4)}" in reason
    folder, reasons = checkpoint_list.chosen(scored, "best")
    assert folder == checkpoint_folder(scored, 1)
    assert [re.findall(r"step_0*(\d)", reason) for reason in reasons] == [["4"], ["2"]]
    assert all(reason.endswith("It may have been the best.") for reason in reasons)
    with pytest.raises(CheckpointError, match=r"step_000000000002/arrays.* is damaged"):
        checkpoint_list.chosen(scored, 2)


def test_steps_of_another_run_are_refused(scored):
    (scored / "config.json").write_text('{"run_id": "mine"}')
    metadata = {"env_steps": 4, "run_id": "yours"}
    save(checkpoint_folder(scored, 4), {"x": jnp.zeros(1)}, metadata)
    with pytest.raises(CheckpointError, match="is of another run"):
        checkpoint_list.chosen(scored, 4)


def test_unknown_steps_name_the_nearest_that_are_kept(scored):
    for unknown in (5, -1):
        with pytest.raises(InputError, match=r"name one after 1, 2, 3, 4 environment steps\.$"):
            checkpoint_list.chosen(scored, unknown)
    for steps in range(10, 18):
        save(checkpoint_folder(scored, steps), {"x": jnp.zeros(1)}, {"env_steps": steps})
    near = r"after 3, 4, 10, 11, 12, 13, 14, 15 environment steps \(the nearest of 12\)"
    with pytest.raises(InputError, match=near):
        checkpoint_list.chosen(scored, 9)
    with pytest.raises(InputError, match="it has no checkpoint"):
        checkpoint_list.chosen(scored / "empty", 9)


def test_without_a_score_none_is_the_best(scored):
    for steps in (1, 2):
        shutil.rmtree(checkpoint_folder(scored, steps))
    (checkpoint_folder(scored, 4) / checkpoint.ARRAYS).write_bytes(b"")
    with pytest.raises(InputError, match=r"train with --eval-every, or take .*step_0*4/arrays"):
        checkpoint_list.chosen(scored, "best")
    shutil.rmtree(checkpoint_folder(scored, 3))
    with pytest.raises(InputError, match=r"that can be read: .* is damaged"):
        checkpoint_list.chosen(scored, "best")
