"""Policies of dict observations, masks and hybrid actions outside of the program, in every form."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from saved_policy import TINY, saved
from workshop import DIALS, DRAWERS, Locked, Shown

from ppo_jax.apps.export.export import export
from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.config.errors import InputError

pytestmark = pytest.mark.slow

FORMATS = ["numpy", "onnx", "stablehlo"]
CONFIG = dataclasses.replace(
    TINY, env="workshop:Locked", normalize_observations=True, policy="gaussian-state-std"
)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("runs") / "locked", CONFIG, seeds=1)


def shown(count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Observations of the workshop, and masks with one legal action at least for each dial."""
    keys = jax.random.split(jax.random.key(1), count)
    legal = np.random.default_rng(0).random((count, sum(DIALS))) < 0.5
    legal[:, np.cumsum(DIALS) - 1] = True
    return jax.tree.map(np.asarray, jax.vmap(Locked().observed)(keys)), legal


def one_of(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], tree)


def exported(run: Path, format: str, out: Path) -> Any:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    if format == "stablehlo":
        pytest.importorskip("flatbuffers")
    ending = {"numpy": "", "onnx": ".onnx", "stablehlo": ".stablehlo"}[format]
    report = export(run, format=format, out=out / f"policy{ending}")
    assert report["largest_difference"] <= 1e-5
    return load_policy(report["out"])


@pytest.mark.parametrize("format", FORMATS)
def test_named_inputs_and_a_mask_give_the_actions_of_the_run(
    locked: Path, tmp_path: Path, format: str
) -> None:
    theirs, ours = exported(locked, format, tmp_path), load_policy(locked)
    rows, legal = shown(32)
    found, expected = theirs(rows, legal=legal), ours(rows, legal=legal)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, leaf), own in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected)
    ):
        assert (leaf.shape, leaf.dtype) == (own.shape, own.dtype), path
        np.testing.assert_allclose(leaf.astype(np.float32), own, atol=1e-5, err_msg=str(path))
    drawer = found["drawer"] - 5
    assert set(np.unique(drawer)) == set(range(DRAWERS))
    screws = found["screws"]
    dials = np.stack([drawer, screws[0], screws[1][:, 0] - 1, screws[1][:, 1] - 4], axis=1)
    places = dials + np.cumsum([0, *DIALS[:-1]])
    assert np.take_along_axis(legal, places, axis=1).all()
    single = theirs(Shown(**one_of(rows, 3)), legal=legal[3])
    assert single["drawer"].shape == ()
    for leaf, whole in zip(jax.tree.leaves(single), jax.tree.leaves(one_of(found, 3))):
        np.testing.assert_allclose(leaf, whole, atol=1e-5)


@pytest.mark.parametrize("format", ["run", *FORMATS])
def test_what_does_not_fit_is_refused_in_one_sentence(
    locked: Path, tmp_path: Path, format: str
) -> None:
    policy = load_policy(locked) if format == "run" else exported(locked, format, tmp_path)
    rows, legal = shown(2)
    without = {name: leaf for name, leaf in rows.items() if name != "lamp"}
    for observation, mask, words in (
        (rows, None, "needs the action mask: give legal=, 11 flags"),
        (without, legal, "has no leaf 'lamp'"),
        (rows, legal[:, :10], r"leaf 'action_mask' of shape \(2, 10\) does not fit"),
        ({**rows, "aim": rows["aim"][:, :1]}, legal, r"leaf 'aim' of shape \(2, 1\) does not"),
        ({**rows, "aim": rows["aim"][:1]}, legal, "rows: give as many of each"),
    ):
        with pytest.raises(InputError, match=words):
            policy(observation, legal=mask)


def test_a_mask_within_the_observation_needs_no_argument_and_draws_obey_it(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, env="workshop:LockedLeaf", policy="auto")
    policy = load_policy(saved(tmp_path / "run", config, seeds=1))
    rows, legal = shown(2)
    legal[:, :DRAWERS] = [False, True, False]
    many = jax.tree.map(lambda leaf: np.repeat(leaf, 500, axis=0), {**rows, "action_mask": legal})
    action = policy(many, jax.random.key(0))
    assert set(np.unique(action["drawer"])) == {6}
    assert len(np.unique(action["turn"])) > 500
    assert len(np.unique(action["screws"][1][:, 1])) > 1
