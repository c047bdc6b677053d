"""Checkpoints are written beside the training, and none of them is lost or changed by it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import BATCH, tiny_run

from ppo_jax.apps.run import saving
from ppo_jax.config.errors import RunError
from ppo_jax.storage import checkpoint, checkpoint_list

EVERY = {"log_every": BATCH, "checkpoint_every": 2 * BATCH, "keep": 9}


def test_training_goes_on_while_a_checkpoint_is_written_and_the_run_waits_for_it_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, released, seen = checkpoint.save, threading.Event(), []

    def slow(folder: Path, tree: Any, metadata: dict[str, Any]) -> None:
        if metadata["env_steps"] == 2 * BATCH:
            assert released.wait(60)
        save(folder, tree, metadata)

    def look(row: dict[str, Any]) -> None:
        seen.append(row["env_steps"])
        if row["env_steps"] == 4 * BATCH:  # two iterations after the save began
            released.set()

    monkeypatch.setattr(saving.checkpoint, "save", slow)
    done = tiny_run(tmp_path / "beside", callbacks=[look], **EVERY)
    assert seen == [BATCH * i for i in range(1, 8)]
    monkeypatch.undo()
    plain = tiny_run(tmp_path / "plain", **EVERY)
    steps = [f"step_{BATCH * i:012d}" for i in (0, 2, 4, 6, 7)]
    assert sorted(path.name for path in (done.folder / "checkpoints").iterdir()) == steps
    for name in steps:  # the state was copied before the next chunk took its memory
        files = [run.folder / "checkpoints" / name / checkpoint.ARRAYS for run in (done, plain)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, seen = checkpoint.save, []

    def full(folder: Path, tree: Any, metadata: dict[str, Any]) -> None:
        if metadata["env_steps"] == 2 * BATCH:
            raise OSError(28, "No space left on device")
        save(folder, tree, metadata)

    monkeypatch.setattr(saving.checkpoint, "save", full)
    with pytest.raises(RunError, match="No space left on device"):
        tiny_run(tmp_path / "a", callbacks=[seen.append], **EVERY)
    assert len(seen) <= 4  # at the save that comes next, if not before it
    assert checkpoint_list.latest(tmp_path / "a")[0] == checkpoint.checkpoint_folder(
        tmp_path / "a", 0
    )


def test_a_snapshot_is_no_view_of_what_it_was_taken_of() -> None:
    tree = {"x": np.arange(5.0)}
    taken = checkpoint.snapshot(tree)
    tree["x"] += 1.0
    np.testing.assert_array_equal(taken.arrays["x"], np.arange(5.0))
