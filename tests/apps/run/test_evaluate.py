"""Saved runs are played again, and drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import BATCH, STEPS, programs_are_kept

from ppo_jax.analysis import stats
from ppo_jax.apps.run.evaluate import evaluate
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import programs
from ppo_jax.runtime import evaluation, frames
from ppo_jax.storage.jsonl import read_jsonl


@pytest.fixture(scope="module", autouse=True)
def _kept() -> Iterator[None]:
    with programs_are_kept():
        yield


def test_evaluation_repeats_the_one_at_the_end_of_training(walked: Any) -> None:
    found = evaluate(walked.folder, episodes=4)
    same = set(found) - {"compile_seconds", "train_seconds", "env_steps_per_second"}
    assert {name: found[name] for name in same} == {name: walked.summary[name] for name in same}
    assert found["env_steps_per_second"] is None  # nothing was trained


def test_starts_are_those_after_training_unless_a_seed_picks_others(
    swung: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "MAX_STEPS", 5)
    trained = swung.summary["final_return"]
    assert evaluate(swung.folder, episodes=2)["final_return"] == trained
    assert evaluate(swung.folder, episodes=2, seed=0)["final_return"] != trained


def test_a_checkpoint_returns_what_its_evaluation_in_training_did(peaked: Any) -> None:
    """Walk has one start and no chance, so that a deterministic policy has one return."""
    rows = read_jsonl(peaked.folder / "metrics.jsonl")
    logged = {row["env_steps"]: row["eval_return"] for row in rows if "eval_return" in row}
    best = max(logged, key=lambda steps: (stats.iqm(logged[steps]), steps))
    assert BATCH <= best < STEPS
    assert logged[best] != logged[STEPS]
    for choice, steps in (("best", best), (best, best), (BATCH, BATCH), ("newest", STEPS)):
        found = evaluate(peaked.folder, episodes=4, checkpoint=choice)
        assert found["env_steps"] == steps
        assert found["final_return"]["per_seed"] == pytest.approx(logged[steps])
    with pytest.raises(InputError, match=f"name one after 0, {BATCH}, "):
        evaluate(peaked.folder, checkpoint=BATCH + 1)


def test_sampled_evaluation_follows_its_own_seed(walked: Any) -> None:
    def sampled(seed: int | None) -> list[float]:
        found = evaluate(walked.folder, episodes=4, policy_mode="sampled", seed=seed)
        assert (found["policy_mode"], found["episodes_per_seed"]) == ("sampled", 4)
        return found["final_return"]["per_seed"]

    assert sampled(5) == sampled(5)
    assert sampled(5) != sampled(6)
    assert sampled(None) != evaluate(walked.folder, episodes=4)["final_return"]["per_seed"]


def test_evaluation_leaves_the_run_as_it_was(walked: Any) -> None:
    before = {path: path.read_bytes() for path in walked.folder.rglob("*") if path.is_file()}
    evaluate(walked.folder, episodes=4)
    assert {p: p.read_bytes() for p in walked.folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"episodes": 0}, "eval_episodes=0"),
        ({"policy_mode": "greedy"}, "policy_mode='greedy' is not one of auto, deterministic"),
        ({"seed": -1}, "seed=-1"),
        ({"video": "a.avi"}, r"must end in \.gif or \.mp4"),
        ({"video": "walk.gif"}, r"tiny:Walk cannot be drawn.*render\(state, params\)"),
    ],
)
def test_what_cannot_be_played_is_refused_before_anything_is(
    walked: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], sentence: str
) -> None:
    monkeypatch.setattr(programs, "make_evaluation", lambda *_: pytest.fail("played"))
    with pytest.raises(InputError, match=sentence):
        evaluate(walked.folder, **changes)


def test_a_video_is_an_animation_of_one_episode(
    swung: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setattr(frames, "MAX_FRAMES", 6)
    monkeypatch.setattr(evaluation, "MAX_STEPS", 5)
    found = evaluate(swung.folder, episodes=2, video=tmp_path / "a.gif")
    assert found["video"] == str(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 7  # the start, and one a step
