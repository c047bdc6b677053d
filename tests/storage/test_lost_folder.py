"""A run whose folder cannot be written any more: it ends with a sentence, and can go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tiny import BATCH, STEPS, tiny_run

from ppo_jax.apps.run import runner
from ppo_jax.config.errors import RunError
from ppo_jax.storage import checkpoint, checkpoint_list, files


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_fills_up_ends_the_run_with_a_sentence_and_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checkpoint.checkpoint_folder(tmp_path / "a", 3 * BATCH)
    with monkeypatch.context() as patch:

        def fill(row: dict[str, Any]) -> None:
            if row["env_steps"] == 128:
                until = time.monotonic() + 30.0
                while not found.exists() and time.monotonic() < until:
                    time.sleep(0.01)  # checkpoints are written beside the training
                patch.setattr(files, "write_synced", full)

        told = r"Stopped after (192|2\d\d) .*No space left.*is untouched"
        with pytest.raises(RunError, match=told):
            tiny_run(tmp_path / "a", callbacks=[fill], checkpoint_every=3 * BATCH)
    assert checkpoint_list.latest(tmp_path / "a") == (found, [])
    resumed = runner.resume(tmp_path / "a", quiet=True)
    assert resumed.summary["env_steps"] == STEPS


def test_a_folder_that_is_removed_during_the_run_is_told_at_once_and_not_made_again(
    tmp_path: Path,
) -> None:
    def remove(row: dict[str, Any]) -> None:
        if (tmp_path / "a").exists():
            (tmp_path / "a").rename(tmp_path / "b")

    with pytest.raises(RunError, match=r"Stopped after 64 .*'.*a' cannot be written .*removed"):
        tiny_run(tmp_path / "a", callbacks=[remove])
    assert not (tmp_path / "a").exists()
    moved = runner.resume(tmp_path / "b", quiet=True)  # a run goes on wherever its folder is
    assert moved.summary["env_steps"] == STEPS
    assert moved.summary["run"] == str(tmp_path / "b")
