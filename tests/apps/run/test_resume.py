"""A run that was stopped and goes on is one that was never stopped, to the bit."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import BATCH, CONFIG, HYPER, STEPS, Walk, programs_are_kept, tiny_run

from ppo_jax.apps.report import comparison, run_data, run_page
from ppo_jax.apps.run import loop, runner, saving
from ppo_jax.apps.run.resume import with_budget
from ppo_jax.apps.run.runner import resume, run
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.runtime import chunk_loop, evaluation
from ppo_jax.storage import checkpoint, checkpoint_list, fingerprint, run_list
from ppo_jax.storage.jsonl import read_jsonl
from ppo_jax.training.schedules import as_arrays

EVERY = {"log_every": 3 * BATCH, "eval_every": 3 * BATCH, "checkpoint_every": BATCH}


class Killed(BaseException):
    """An end that no code of ours catches: as far as files go, a SIGKILL."""


@pytest.fixture(scope="module", autouse=True)
def _kept() -> Iterator[None]:
    with programs_are_kept():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped: 7 iterations, rows and evaluations every 3rd."""
    return tiny_run(tmp_path_factory.mktemp("whole") / "a", **EVERY).folder


def bits(folder: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    """Arrays of the last checkpoint, logged rows, final returns."""
    newest, warnings = checkpoint_list.latest(folder)
    assert newest is not None
    assert warnings == []
    summary = json.loads((folder / "summary.json").read_text())
    arrays = (newest / checkpoint.ARRAYS).read_bytes()
    return arrays, (folder / "metrics.jsonl").read_bytes(), summary["final_return"]


def dying_after(patch: pytest.MonkeyPatch, name: str, number: int, module: Any = None) -> None:
    """Let the process die in the `number`-th call of a function of the loop."""
    module = module or (saving if name == "save_run" else loop)
    inner, calls = getattr(module, name), []

    def dying(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            raise Killed
        return inner(*given)

    patch.setattr(module, name, dying)


def killed_run(
    folder: Path, patch: pytest.MonkeyPatch, name: str, number: int, **more: Any
) -> None:
    with patch.context() as inner:
        inner.setattr(chunk_loop, "CHUNK_SECONDS", 1e-9)
        dying_after(inner, name, number)
        with pytest.raises(Killed):
            tiny_run(folder, **{**EVERY, **more})


@pytest.mark.parametrize("name", ["write_row", "save_run"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_run_killed_anywhere_and_resumed_has_the_bits_of_one_that_was_not(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    folder = tmp_path / "a"
    killed_run(folder, monkeypatch, name, number, checkpoint_every=2 * BATCH)
    if (name, number) == ("save_run", 1):  # nothing is there yet: it begins anew in its folder
        assert checkpoint_list.latest(folder) == (None, [])
    resumed = resume(folder, quiet=True)
    assert resumed.exit_code == 0
    assert bits(folder) == bits(whole)
    assert "resumed" in json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize("stop_at", range(7))
def test_a_run_stopped_at_every_boundary_of_chunks_goes_on_with_the_same_bits(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    folder = tmp_path / "a"
    with monkeypatch.context() as patch:
        patch.setattr(chunk_loop, "CHUNK_SECONDS", 1e-9)
        aggregate, chunks = loop.windows.extended, []

        def extended(window: Any, fresh: Any) -> Any:
            chunks.append(1)
            if len(chunks) == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return aggregate(window, fresh)

        patch.setattr(loop.windows, "extended", extended)
        more = {"max_seconds": 1e-9} if stop_at == 0 else {}
        stopped = tiny_run(folder, **{**EVERY, **more})
    assert stopped.exit_code == 75
    # An evaluation that was due is left to the resume, and its row with it.
    logged = [row["env_steps"] for row in read_jsonl(folder / "metrics.jsonl")]
    done = stopped.summary["env_steps"] // BATCH
    assert logged == [3 * BATCH * i for i in range(1, 3) if 3 * i < done]
    resume(folder, quiet=True)
    assert bits(folder) == bits(whole)


def test_a_row_left_to_the_resume_is_not_written_twice_by_a_second_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    save = saving.save_run

    def stop_at_the_third(session: Any, state: Any, status: Any, *writer: Any) -> Any:
        if status.iteration == 2 and not session.stop:  # a second SIGTERM would end the process
            os.kill(os.getpid(), signal.SIGTERM)
        return save(session, state, status, *writer)

    with monkeypatch.context() as patch:
        patch.setattr(chunk_loop, "CHUNK_SECONDS", 1e-9)
        patch.setattr(saving, "save_run", stop_at_the_third)
        tiny_run(folder, **EVERY)
    with monkeypatch.context() as patch:
        dying_after(patch, "write_row", 2)
        with pytest.raises(Killed):
            resume(folder, quiet=True, checkpoint_every=100 * BATCH)
    resume(folder, quiet=True)
    assert bits(folder) == bits(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective, seeds, memory",
    [
        ("kl", 3, {"memory": "attention", "memory_window": 3, "previous_inputs": "action+reward"}),
        ("trpo", 1, {"memory": "lru", "memory_start": "learned"}),
    ],
    ids=["kl", "trpo"],
)
def test_every_kind_of_improver_goes_on_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, seeds: int, memory: dict
) -> None:
    """With a memory that is carried over the kill."""
    config = dataclasses.replace(
        CONFIG, objective=objective, normalize_rewards=True, memory_size=4, **memory
    )
    hyper = dataclasses.replace(HYPER, kl_target=0.01, learning_rate=Schedule(0.02, 0.001))
    given = {"config": config, "hyper": hyper, "seeds": seeds}
    one = tiny_run(tmp_path / "whole", **given, **EVERY)
    killed_run(
        tmp_path / "a", monkeypatch, "save_run", random.Random(objective).randint(2, 7), **given
    )
    resume(tmp_path / "a", quiet=True)
    assert bits(tmp_path / "a") == bits(one.folder)


def test_resume_auto_begins_goes_on_and_ends(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "a"
    killed_run(folder, monkeypatch, "save_run", 3, resume="auto")
    assert tiny_run(folder, **EVERY, resume="auto").exit_code == 0
    assert bits(folder) == bits(whole)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = tiny_run(folder, **EVERY, resume="auto")
    assert again.summary == json.loads((folder / "summary.json").read_text())
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_resume_auto_refuses_another_run(whole: Path) -> None:
    other = dataclasses.replace(HYPER, gamma=0.5)
    with pytest.raises(InputError, match=r"finds another run.*gamma is 0.5 and was 0.99"):
        tiny_run(whole, hyper=other, **EVERY, resume="auto")
    with pytest.raises(InputError, match=r"seeds is 2 and was 3"):
        tiny_run(whole, **EVERY, seeds=2, resume="auto")
    less = dataclasses.replace(CONFIG, total_env_steps=100)
    with pytest.raises(InputError, match=r"total_env_steps=100 is less than the run's 200"):
        tiny_run(whole, config=less, **EVERY, resume="auto")


# --- a raised budget -----------------------------------------------------------------------------


def test_a_budget_raised_before_its_end_is_that_of_a_longer_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = dataclasses.replace(CONFIG, total_env_steps=12 * BATCH)
    # A constant learning rate, so that the two budgets are one run.
    one = tiny_run(tmp_path / "whole", config=longer, **EVERY)
    killed_run(tmp_path / "a", monkeypatch, "save_run", 4)
    raised = resume(tmp_path / "a", quiet=True, total_env_steps=12 * BATCH)
    assert raised.summary["env_steps"] == 12 * BATCH
    assert bits(tmp_path / "a") == bits(one.folder)


def test_schedules_end_where_they_did_when_the_budget_is_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    hyper = dataclasses.replace(HYPER, learning_rate=Schedule(0.02, 0.001))
    first = tiny_run(tmp_path / "a", hyper=hyper, log_every=BATCH)
    shutil.copytree(first.folder, tmp_path / "b")
    resume(first.folder, total_env_steps=10 * BATCH)
    assert "schedules still end at 224 and keep their last value" in capsys.readouterr().err
    rates = [row["learning_rate"][0] for row in read_jsonl(first.folder / "metrics.jsonl")]
    assert rates[7:] == pytest.approx([0.001] * 3)
    assert rates[6] == pytest.approx(0.02 - 0.019 * 6 / 7)
    # And a resume of the raised run, from its config.json alone, sees the same.
    assert resume(first.folder, quiet=True).summary["env_steps"] == 10 * BATCH
    moved = {"total_env_steps": 10 * BATCH, "schedule_env_steps": 20.0 * BATCH}
    resume(tmp_path / "b", quiet=True, **moved)
    rates = [row["learning_rate"][0] for row in read_jsonl(tmp_path / "b" / "metrics.jsonl")]
    assert rates[9] == pytest.approx(0.02 - 0.019 * 9 / 20)


@pytest.mark.parametrize(
    ("end", "notes"),
    [
        (0.0, ["Schedules end at 204,800 environment steps from now on, and not at 102,400."]),
        (3e5, ["Schedules end at 300,000 environment steps from now on, and not at 102,400."]),
        (102400.0, []),
    ],
)
def test_a_moved_end_of_schedules_is_told_as_it_will_be(end: float, notes: list[str]) -> None:
    """0 is the whole budget, the raised one."""
    changes = {"total_env_steps": 204800, "schedule_env_steps": end}
    config = Config(total_env_steps=102400)
    config, hyper, _, told = with_budget(config, Hyper(), RunOptions(), changes)
    assert told == notes
    assert as_arrays(config, hyper).schedule_env_steps == (end or 204800)


@pytest.mark.parametrize("place", ["record_resume", "carry_out", "log_chunk", "save_run"])
def test_a_run_killed_on_its_way_to_a_raised_budget_is_not_over(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = tmp_path / "a"
    shutil.copytree(whole, folder)
    module = runner if place in ("record_resume", "carry_out") else None
    with monkeypatch.context() as patch:
        patch.setattr(chunk_loop, "CHUNK_SECONDS", 1e-9)
        dying_after(patch, place, 1 if module else 2, module)
        with pytest.raises(Killed):
            resume(folder, quiet=True, total_env_steps=12 * BATCH)
    row, page = run_list.describe(folder), run_data.read(folder, "a")
    if place == "record_resume":  # the budget is not raised yet
        assert (row.state, row.env_steps, run_page.state_of(page)) == ("done", STEPS, "Finished.")
        return
    done = STEPS + {"carry_out": 0, "log_chunk": BATCH, "save_run": BATCH}[place]
    assert (row.state, row.env_steps, row.score) == ("killed", done, None)
    assert (row.total_env_steps, page["summary"]) == (12 * BATCH, None)
    assert run_page.state_of(page).startswith("Not finished")
    with pytest.raises(InputError, match="has no final return yet"):
        comparison.compare([str(folder), str(whole)])
    assert resume(folder, quiet=True).summary["env_steps"] == 12 * BATCH
    assert run_list.describe(folder).state == "done"


# --- what is not as it was -----------------------------------------------------------------------


def test_another_fingerprint_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    killed_run(tmp_path / "a", monkeypatch, "save_run", 4)
    monkeypatch.setattr(fingerprint, "core_count", lambda: 77)
    assert resume(tmp_path / "a").summary["env_steps"] == STEPS
    told = capsys.readouterr().err
    assert "Not bit for bit any more: cores is 77 and was" in told


def test_another_number_of_devices_goes_on_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    killed_run(tmp_path / "a", monkeypatch, "save_run", 4)
    assert resume(tmp_path / "a", devices=1).summary["env_steps"] == STEPS
    told = capsys.readouterr().err
    assert "devices is 1 and was 2" in told
    assert "population width is 3 and was 2" in told


def test_a_damaged_checkpoint_costs_one_interval_is_told_and_stays(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "a"
    killed_run(folder, monkeypatch, "save_run", 6, keep=3)
    newest = checkpoint_list.latest(folder)[0]
    assert newest is not None
    (newest / checkpoint.ARRAYS).write_bytes(b"damaged")
    resume(folder, checkpoint_every=BATCH, keep=3)
    assert "Falling back to the checkpoint before it" in capsys.readouterr().err
    assert bits(folder) == bits(whole)
    kept = newest.with_name(f"{newest.name}.damaged-1")
    assert (kept / checkpoint.ARRAYS).read_bytes() == b"damaged"


def test_without_any_whole_checkpoint_nothing_is_overwritten(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    shutil.copytree(whole, folder)
    for path in (folder / "checkpoints").rglob(checkpoint.ARRAYS):
        path.write_bytes(b"")
    rows = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"holds nothing to go on from: .*is damaged"):
        resume(folder, quiet=True)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(InputError, match=r"holds nothing to go on from: It has no checkpoint"):
        resume(folder, quiet=True)
    assert (folder / "metrics.jsonl").read_bytes() == rows


def test_an_edited_config_is_named(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    shutil.copytree(whole, folder)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"gamma": 0.99', '"gamma": 0.98'))
    with pytest.raises(InputError, match=r"has gamma=0.98 and .* was trained with 0.99"):
        resume(folder, quiet=True)


def test_altered_rows_are_told_and_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "a"
    killed_run(folder, monkeypatch, "save_run", 6)
    path = folder / "metrics.jsonl"
    altered = path.read_bytes().replace(b"96", b"97", 1)
    path.write_bytes(altered)
    resume(folder)
    assert "is not what the run wrote up to its checkpoint" in capsys.readouterr().err
    assert path.with_name("metrics.jsonl.set-aside-1").read_bytes() == altered
    assert b'"env_steps": 97' not in path.read_bytes()


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"gamma": 0.5}, r"gamma cannot be changed when a run is resumed"),
        ({"total_env_steps": 10}, r"total_env_steps=10 is less than the run's 200"),
        ({"total_env_steps": "x"}, r"total_env_steps='x' must be a whole number of at least 1"),
        ({"total_env_steps": None}, r"total_env_steps=None must be a whole number of at least 1"),
        ({"total_env_steps": math.nan}, r"total_env_steps=nan must be a whole number"),
        ({"total_env_steps": np.array([300])}, r"total_env_steps=array\(\[300\]\) must be a whole"),
        ({"total_env_steps": np.int64(10)}, r"total_env_steps=10 is less than the run's 200"),
        (
            {"schedule_env_steps": np.ones(2)},
            r"schedule_env_steps has shape \(2,\): give one number",
        ),
        ({"keep": 0}, r"keep=0 must be"),
        ({"devices": 5}, r"devices=5 is more than the 2"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused_and_nothing_is_written(
    whole: Path, changes: dict[str, Any], sentence: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=sentence):
        resume(whole, quiet=True, **changes)
    after = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert after == before


def test_objects_are_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIG, env=Walk())
    killed_run(tmp_path / "a", monkeypatch, "save_run", 4, config=config)
    with pytest.raises(InputError, match=r"its env as a Python object"):
        resume(tmp_path / "a", quiet=True)
    assert resume(tmp_path / "a", env=Walk(), quiet=True).summary["env_steps"] == STEPS


# --- runs that ended early -----------------------------------------------------------------------


def test_a_run_that_reached_its_goal_is_over_until_the_goal_is_another(tmp_path: Path) -> None:
    ended = tiny_run(tmp_path / "a", stop_at_return=-1e9)
    assert ended.summary["env_steps"] == 2 * BATCH
    assert resume(tmp_path / "a", quiet=True).summary == ended.summary
    assert run_list.describe(tmp_path / "a").state == "done"
    with pytest.MonkeyPatch.context() as patch:
        dying_after(patch, "save_run", 2)
        with pytest.raises(Killed):
            resume(tmp_path / "a", quiet=True, stop_at_return=1e9, checkpoint_every=BATCH)
    assert run_list.describe(tmp_path / "a").state == "killed"
    further = resume(tmp_path / "a", quiet=True, stop_at_return=1e9)
    assert further.summary["env_steps"] == STEPS


def test_what_a_callback_ended_goes_on_when_it_is_resumed(whole: Path, tmp_path: Path) -> None:
    tiny_run(tmp_path / "a", **EVERY, callbacks=[lambda row: True])
    seen: list[int] = []
    resume(tmp_path / "a", quiet=True, callbacks=[lambda row: seen.append(row["env_steps"])])
    assert bits(tmp_path / "a") == bits(whole)
    assert seen == [6 * BATCH, STEPS]  # each row is told once


def test_a_run_killed_during_its_final_evaluation_is_evaluated(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        dying_after(patch, "summary", 1, evaluation)
        with pytest.raises(Killed):
            tiny_run(tmp_path / "a", **EVERY)
    assert not (tmp_path / "a" / "summary.json").exists()
    resume(tmp_path / "a", quiet=True)
    assert bits(tmp_path / "a") == bits(whole)


def test_two_cannot_write_into_one_folder(tmp_path: Path) -> None:
    told: list[str] = []

    def again(row: dict[str, Any]) -> None:
        for attempt in (resume, lambda path, **_: run(CONFIG, HYPER, out=str(path))):
            with pytest.raises(InputError) as caught:
                attempt(tmp_path / "a", quiet=True)
            told.append(str(caught.value))

    tiny_run(tmp_path / "a", callbacks=[again], log_every=STEPS)
    assert len(told) == 2
    assert all(f"is being written by process {os.getpid()} on" in text for text in told)


def test_the_runner_takes_up_what_it_left_whatever_the_summary_says(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert runner.resume(whole, quiet=True).summary == summary
