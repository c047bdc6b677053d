"""The policy of a run folder as a plain function."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case_folder import in_case
from tiny import CONFIG, HYPER, tiny_run

from ppo_jax.apps.export.export import export
from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.apps.export.run_policy import make_policy
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.storage import checkpoint, checkpoint_list
from ppo_jax.training import trainer

FORMATS = ["run", "numpy", "stablehlo", "onnx"]


def logits_by_hand(state: dict[str, np.ndarray], seed: int, rows: np.ndarray) -> np.ndarray:
    """Logits [n, 2] of a tiny run's saved state, for observations [n, 2]."""
    arrays = {name: array[seed] for name, array in state.items()}
    moments = {name: arrays[f"observation_moments/{name}"] for name in ("count", "mean", "m2")}
    layers = [f"params/body/{name}" for name in ("actor_torso/Dense_0", "policy_head")]
    kernels, biases = ([arrays[f"{x}/{y}"] for x in layers] for y in ("kernel", "bias"))
    std = np.sqrt(moments["m2"] / moments["count"])
    hidden = np.tanh(np.clip((rows - moments["mean"]) / std, -10, 10) @ kernels[0] + biases[0])
    return hidden @ kernels[1] + biases[1]


def test_the_policys_action_is_the_argmax_of_the_saved_network(walked: Any) -> None:
    seed_index = 1
    newest, _ = checkpoint_list.latest(walked.folder)
    assert newest is not None
    policy = load_policy(walked.folder, seed_index=seed_index)
    rows = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)
    logits = logits_by_hand(checkpoint.load_raw(newest)[0], seed_index, rows)
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


def test_numpy_in_is_numpy_out_as_other_libraries_want_it(swung: Any, walked: Any) -> None:
    row = np.array([1.0, 0.0, 0.5], np.float32)
    policy, walk = load_policy(swung.folder), load_policy(walked.folder)
    assert type(policy(row)) is np.ndarray
    assert isinstance(policy(jnp.asarray(row)), jax.Array)
    action = walk(np.zeros(2, np.float32))
    assert isinstance(action, np.integer)
    assert [0, 1][action] == action  # an index, which a jax array is not everywhere
    found, state = policy.predict(row)
    assert state is None
    np.testing.assert_array_equal(found, policy(row))
    draws = [policy.predict(row, deterministic=False)[0] for _ in range(2)]
    assert type(draws[0]) is np.ndarray
    assert not np.array_equal(*draws)


@pytest.mark.parametrize("format", FORMATS)
def test_the_policy_of_a_checkpoint_is_its_own(peaked: Any, tmp_path: Path, format: str) -> None:
    if format == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    best = checkpoint_list.best(peaked.folder)
    assert best is not None
    rows = np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)
    logits = logits_by_hand(checkpoint.load_raw(best)[0], 1, rows)
    clear = np.abs(logits[:, 0] - logits[:, 1]) > 1e-3
    wanted = logits.argmax(1)[clear]
    assert not np.array_equal(load_policy(peaked.folder, seed_index=1)(rows)[clear], wanted)
    if format == "run":
        policy = load_policy(peaked.folder, seed_index=1, checkpoint="best")
    else:
        out = tmp_path / "policy"
        out = out if format == "numpy" else out.with_suffix(f".{format}")
        report = export(peaked.folder, member=1, out=out, checkpoint="best")
        assert checkpoint.checkpoint_folder(peaked.folder, report["env_steps"]) == best
        policy = load_policy(out)
        with pytest.raises(InputError, match="checkpoint='best' needs a run folder"):
            load_policy(out, checkpoint="best")
    np.testing.assert_array_equal(policy(rows)[clear], wanted)


def test_a_policy_of_a_state_is_that_of_the_runs_checkpoint(walked: Any, swung: Any) -> None:
    settled = Config(
        env="Pendulum-v1", hidden_sizes=(8,), policy="gsde", normalize_observations=True
    )
    for run, config, hyper, seed, size in (
        (walked, CONFIG, HYPER, 1, 2),
        (swung, settled, Hyper(), 0, 3),
    ):
        made = make_policy(config, hyper, run.state, seed_index=seed)
        one = jax.tree.map(lambda leaf, seed=seed: leaf[seed], run.state)
        same = make_policy(config, hyper, one)
        loaded = load_policy(run.folder, seed_index=seed)
        rows = np.random.default_rng(0).normal(size=(32, size)).astype(np.float32)
        key = jax.random.key(3)
        for policy in (made, same):
            np.testing.assert_array_equal(policy(rows), loaded(rows))
            np.testing.assert_array_equal(policy(rows, key), loaded(rows, key))
            np.testing.assert_array_equal(policy.predict(rows[0])[0], loaded(rows[0]))


def test_policies_of_vmapped_training_are_made_inside_and_outside_of_vmap() -> None:
    train = jax.jit(jax.vmap(lambda key: trainer.train(CONFIG, HYPER, key)))
    states, _ = train(jax.random.split(jax.random.key(0), 3))
    rows = np.random.default_rng(0).normal(size=(3, 16, 2)).astype(np.float32)
    inside = jax.vmap(lambda state, rows: make_policy(CONFIG, HYPER, state)(rows))(states, rows)
    arrays = checkpoint.snapshot(states).arrays
    for seed in range(3):
        logits = logits_by_hand(arrays, seed, rows[seed])
        clear = np.abs(logits[:, 0] - logits[:, 1]) > 1e-4
        assert clear.sum() > 8
        outside = make_policy(CONFIG, HYPER, states, seed_index=seed)(rows[seed])
        for actions in (np.asarray(inside[seed]), outside):
            np.testing.assert_array_equal(actions[clear], logits.argmax(1)[clear])


def test_a_policy_of_a_state_keeps_the_bounds_of_its_own_environment() -> None:
    with in_case("bounds-follow-params"):
        config = Config(env="env:Push", hidden_sizes=(8,))
        state = trainer.init(config, Hyper(), jax.random.key(0))
        far = jax.tree.map(lambda leaf: leaf + 100.0, state.params)
        state = state._replace(params=far)
        for hyper, limit in ((Hyper(), 2.0), (Hyper(env={"limit": 8.0}), 8.0)):
            assert make_policy(config, hyper, state)(np.ones(1, np.float32)) == [limit]


def test_a_state_that_is_not_of_one_seed_or_of_another_config_is_refused(walked: Any) -> None:
    state = walked.state
    one = jax.tree.map(lambda leaf: leaf[0], state)
    grid = jax.tree.map(lambda leaf: leaf[None], state)
    wider = dataclasses.replace(CONFIG, hidden_sizes=(9,))
    deeper = dataclasses.replace(CONFIG, hidden_sizes=(8, 8))
    for config, given, seed_index, sentence in (
        (CONFIG, state, None, "holds 3 seeds: give seed_index, from 0 to 2"),
        (CONFIG, state, 3, "seed_index=3 is not among the run's 3 seeds"),
        (CONFIG, one, 0, "is of one seed: leave seed_index out"),
        (CONFIG, grid, 0, r"leading axes \[1, 3\]: take one seed by"),
        (CONFIG, grid, None, r"leading axes \[1, 3\]: take one seed by"),
        (wider, one, None, "not those of this config"),
        (deeper, one, None, "not those of this config"),
    ):
        with pytest.raises(InputError, match=sentence):
            make_policy(config, HYPER, given, seed_index=seed_index)


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


def test_numbers_that_may_unpack_to_any_size_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    np.savez_compressed(path, description=np.array("{}"), zeros=np.zeros(10**6))
    with pytest.raises(InputError, match="it is compressed, and may unpack to any size"):
        load_policy(path)


def test_an_observation_of_another_shape_is_refused(swung: Any) -> None:
    policy = load_policy(swung.folder)
    for shape in ((4,), (3, 2), (2, 2, 3), ()):
        with pytest.raises(
            InputError, match=r"does not fit: this policy takes one of shape \(3,\)"
        ):
            policy(jnp.zeros(shape))


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_batch_has_no_actions_and_what_is_no_numbers_is_one_sentence(
    swung: Any, tmp_path: Path, format: str
) -> None:
    if format == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    out = tmp_path / f"policy.{format}" if format != "numpy" else tmp_path / "policy"
    policy = load_policy(swung.folder if format == "run" else export(swung.folder, out=out)["out"])
    assert np.asarray(policy(np.zeros((0, 3), np.float32))).shape == (0, 1)
    assert policy.predict(np.zeros((0, 3), np.float32))[0].shape == (0, 1)
    for wrong in ({"a": 1}, "abc", [[1.0], [1.0, 2.0]], object(), [None, "a", "b"]):
        words = rf"^An observation of type {type(wrong).__name__}, which is no array of numbers"
        with pytest.raises(InputError, match=rf"{words}.*one of shape \(3,\)"):
            policy(wrong)


def test_a_seed_that_the_run_has_not_is_refused(walked: Any) -> None:
    for seed_index in (3, -1):
        with pytest.raises(InputError, match=r"not among the run's 3 seeds \(0 to 2\)"):
            load_policy(walked.folder, seed_index=seed_index)


def policy_of(folder: Path, config: Config, format: str) -> Any:
    """The policy of a run of an own environment, straight from the run or by way of an artefact."""
    if format == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    run = tiny_run(folder / "run", config, Hyper(learning_rate=0.05), seeds=1).folder
    return load_policy(run if format == "run" else export(run, format=format)["out"])


@pytest.mark.parametrize("format", FORMATS)
def test_whole_numbers_are_taken_as_the_environment_shows_them(tmp_path: Path, format: str) -> None:
    """Each number of a space that starts at 2 has its own right action."""
    config = dataclasses.replace(
        CONFIG, env="tiny:Doors", total_env_steps=4096, normalize_observations=True
    )
    policy = policy_of(tmp_path, config, format)
    actions = [int(policy(number)) for number in (2, np.int64(3), np.array(4))]
    assert actions == [0, 1, 2]
    np.testing.assert_array_equal(policy(np.array([4, 4, 2])), [2, 2, 0])
    wrong_ones = [1, 5, np.array([2, 7]), 2.5, np.eye(3)[0]]
    if format == "stablehlo":  # a program cannot refuse
        wrong_ones.clear()
    for wrong in (*wrong_ones, np.zeros((2, 2), int)):
        with pytest.raises(InputError, match="does not fit"):
            policy(wrong)


@pytest.mark.parametrize("format", FORMATS)
def test_a_number_of_no_shape_is_taken_as_it_is_shown(tmp_path: Path, format: str) -> None:
    config = dataclasses.replace(CONFIG, env="tiny:Level", total_env_steps=2048)
    policy = policy_of(tmp_path, config, format)
    rows = np.linspace(-2, 2, 9, dtype=np.float32)
    batch = np.asarray(policy(rows))
    assert batch.shape == (9,)
    assert [int(policy(row)) for row in rows] == batch.tolist()
    assert (batch[0], batch[-1]) == (1, 0)  # towards 0 from either side
