"""Saved runs played again, drawn, and turned into plain functions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, programs_are_kept, tiny_run

from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.apps.run import runner
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import programs
from ppo_jax.envs.interface import Box, Environment
from ppo_jax.runtime import evaluation as evaluating
from ppo_jax.runtime.evaluation import evaluate
from ppo_jax.storage import checkpoint
from ppo_jax.training import evaluation, trainer


@pytest.fixture(scope="module", autouse=True)
def _kept() -> Iterator[None]:
    with programs_are_kept():
        yield


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> runner.RunResult:
    return tiny_run(tmp_path_factory.mktemp("runs") / "walked")


@pytest.fixture(scope="module")
def swung(tmp_path_factory: pytest.TempPathFactory) -> runner.RunResult:
    """One iteration of gSDE on Pendulum: noise, bounds of the actions, a normaliser, a picture."""
    config = Config(
        env="Pendulum-v1",
        total_env_steps=16,
        num_envs=2,
        rollout_length=8,
        num_epochs=1,
        num_minibatches=1,
        hidden_sizes=(8,),
        policy="gsde",
        normalize_observations=True,
    )
    folder = tmp_path_factory.mktemp("runs") / "swung"
    options = RunOptions(out=str(folder), quiet=True, eval_episodes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "MAX_STEPS", 5)
        return runner.run(config, Hyper(), options)


# --- evaluate ------------------------------------------------------------------------------------


def test_evaluation_repeats_the_one_at_the_end_of_training(walked: Any) -> None:
    found = evaluate(walked.folder, episodes=4)
    same = set(found) - {"compile_seconds", "train_seconds", "env_steps_per_second"}
    assert {name: found[name] for name in same} == {name: walked.summary[name] for name in same}
    assert found["env_steps_per_second"] is None  # nothing was trained


def test_starts_are_those_after_training_unless_a_seed_picks_others(
    swung: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "MAX_STEPS", 5)
    trained = swung.summary["final_return"]
    assert evaluate(swung.folder, episodes=2)["final_return"] == trained
    assert evaluate(swung.folder, episodes=2, seed=0)["final_return"] != trained


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
        ({"policy_mode": "greedy"}, "policy_mode='greedy' is not one of deterministic, sampled"),
        ({"seed": -1}, "seed=-1"),
        ({"video": "a.avi"}, r"must end in \.gif or \.mp4"),
        ({"video": "walk.gif"}, "tiny:Walk cannot be drawn.*leave --video out"),
    ],
)
def test_what_cannot_be_played_is_refused_before_anything_is(
    walked: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], sentence: str
) -> None:
    monkeypatch.setattr(programs, "make_evaluation", lambda *_: pytest.fail("played"))
    with pytest.raises(InputError, match=sentence):
        evaluate(walked.folder, **changes)


def test_a_folder_without_a_readable_checkpoint_is_refused(walked: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        evaluate(tmp_path)
    shutil.copytree(walked.folder, tmp_path / "copy")
    for arrays in (tmp_path / "copy").rglob(checkpoint.ARRAYS):
        arrays.write_bytes(b"")
    with pytest.raises(InputError, match=r"holds no checkpoint that can be read.*damaged"):
        evaluate(tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoints")
    with pytest.raises(InputError, match=r"holds no checkpoint that can be read\.$"):
        evaluate(tmp_path / "copy")


def test_a_failed_seed_is_null_counted_and_left_out_of_the_score() -> None:
    played = evaluation.Episodes(
        episode_return=jnp.array([[1.0, 3.0], [jnp.nan, 0.0], [4.0, 4.0]]),
        length=jnp.array([[2, 4], [6, 6], [3, 3]]),
        finished=jnp.array([[True, True], [True, False], [True, True]]),
    )
    found = evaluating.summary(played, np.array([True, False, True]), RunOptions(eval_episodes=2))
    assert found["final_return"]["per_seed"] == [2.0, None, 4.0]
    assert (found["final_return"]["iqm"], found["num_failed"]) == (3.0, 1)
    assert (found["episodes_cut"], found["episode_length_mean"]) == (1, 4.0)


# --- load_policy ---------------------------------------------------------------------------------


def test_the_policys_action_is_the_argmax_of_the_saved_network(walked: Any) -> None:
    seed_index = 1
    newest, _ = checkpoint.latest(walked.folder)
    assert newest is not None
    arrays = {name: array[seed_index] for name, array in checkpoint.load_raw(newest)[0].items()}
    moments = {name: arrays[f"observation_moments/{name}"] for name in ("count", "mean", "m2")}
    layers = [f"params/body/{name}" for name in ("actor_torso/Dense_0", "policy_head")]
    kernels, biases = ([arrays[f"{x}/{y}"] for x in layers] for y in ("kernel", "bias"))
    policy = load_policy(walked.folder, seed_index=seed_index)
    rows = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)
    std = np.sqrt(moments["m2"] / moments["count"])
    hidden = np.tanh(np.clip((rows - moments["mean"]) / std, -10, 10) @ kernels[0] + biases[0])
    logits = hidden @ kernels[1] + biases[1]
    clear = np.abs(logits[:, 0] - logits[:, 1]) > 1e-4
    assert clear.sum() > 16
    np.testing.assert_array_equal(np.asarray(policy(rows))[clear], logits.argmax(1)[clear])


def test_a_batch_is_its_rows_and_a_row_needs_no_batch(swung: Any) -> None:
    policy = load_policy(swung.folder)
    rows = jax.random.normal(jax.random.key(0), (5, 3))
    batch = policy(rows)
    assert batch.shape == (5, 1)
    np.testing.assert_allclose(batch, jnp.stack([policy(row) for row in rows]), atol=1e-6)
    np.testing.assert_allclose(jax.vmap(policy)(rows), batch, atol=1e-6)
    assert policy(np.asarray(rows[0])).shape == (1,)  # numpy's arrays, too


def test_with_a_key_the_action_is_a_draw_around_the_mean_within_the_bounds(swung: Any) -> None:
    policy = load_policy(swung.folder)
    row = jnp.array([1.0, 0.0, 0.5])
    many = jnp.tile(row, (4096, 1))
    draws = np.asarray(policy(many, jax.random.key(1)))
    assert np.all(np.abs(draws) <= 2.0)  # Pendulum's torque
    assert len(np.unique(draws)) > 1000  # every row has its own noise
    np.testing.assert_array_equal(draws, policy(many, jax.random.key(1)))
    mean, error = float(policy(row)[0]), float(draws.std()) / 64  # of the mean of 4,096
    assert abs(mean) < 0.1  # so that the bounds, at 2 and -2, cut both sides alike
    assert float(draws.mean()) == pytest.approx(mean, abs=5 * error + 0.02)


def test_an_observation_of_another_shape_is_refused(swung: Any) -> None:
    policy = load_policy(swung.folder)
    for shape in ((4,), (3, 2), (2, 2, 3), ()):
        with pytest.raises(
            InputError, match=r"does not fit: this policy takes one of shape \(3,\)"
        ):
            policy(jnp.zeros(shape))


def test_a_seed_that_the_run_has_not_is_refused(walked: Any) -> None:
    for seed_index in (3, -1):
        with pytest.raises(InputError, match=r"not among the run's 3 seeds \(0 to 2\)"):
            load_policy(walked.folder, seed_index=seed_index)


# --- pictures ------------------------------------------------------------------------------------


def test_a_video_is_an_animation_of_one_episode(
    swung: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setattr(evaluating, "MAX_FRAMES", 6)
    monkeypatch.setattr(evaluating, "MAX_STEPS", 5)
    found = evaluate(swung.folder, episodes=2, video=tmp_path / "a.gif")
    assert found["video"] == str(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 7  # the start, and one a step


def test_the_frames_follow_the_policy_that_is_drawn(swung: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(evaluating, "MAX_FRAMES", 3)
    config, hyper, _, state, _ = evaluating.load_state(swung.folder)
    member = jax.tree.map(lambda leaf: leaf[0], state)
    shown = [
        evaluating.frames(config, hyper, member, mode, 7) for mode in ("deterministic", "sampled")
    ]
    np.testing.assert_array_equal(shown[0][0], shown[1][0])  # the same start
    assert any(not np.array_equal(*pair) for pair in zip(*shown, strict=True))
    assert all(frame.dtype == np.uint8 and frame.shape[2] == 3 for frame in shown[0])


def test_the_frames_of_sampled_gsde_hold_its_noise_as_a_rollout_does(monkeypatch: Any) -> None:
    """The picture is the action taken; the observation stands still, so only noise moves it."""

    def transition(key: Any, state: Any, action: Any, params: Any) -> tuple:
        no = jnp.zeros((), bool)
        return jnp.ones(1), action[0], jnp.zeros(()), no, no, {}

    environment = Environment(
        name="still",
        reset=lambda key, params: (jnp.ones(1), jnp.zeros(())),
        transition=transition,
        default_params=(),
        observation_shape=(1,),
        observation_dtype="float32",
        action_space=Box((1,), np.full(1, -np.inf), np.full(1, np.inf)),
        max_episode_steps=None,
        override=lambda params, values: params,
        render=lambda state, params: np.float32(state),
    )
    fields = {"num_envs": 2, "rollout_length": 4, "hidden_sizes": (8,), "gsde_resample_steps": 3}
    config = Config(env=environment, policy="gsde", **fields)
    monkeypatch.setattr(evaluating, "MAX_FRAMES", 9)
    member = trainer.init(config, Hyper(), jax.random.key(0))
    shown = evaluating.frames(config, Hyper(), member, "sampled", 7)[1:]
    assert len(set(map(float, shown))) == 3
    assert all(len(set(map(float, shown[i : i + 3]))) == 1 for i in (0, 3, 6))


def test_a_run_of_another_shape_is_told_by_the_checkpoint(walked: Any, tmp_path: Path) -> None:
    shutil.copytree(walked.folder, tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    record = json.loads(file.read_text())
    assert record["config"]["hidden_sizes"] == list(CONFIG.hidden_sizes)
    record["config"]["hidden_sizes"] = [9]
    file.write_text(json.dumps(record))
    with pytest.raises(InputError, match="is wanted as"):
        evaluate(tmp_path / "copy")
