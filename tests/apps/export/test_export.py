"""Artefacts of every format: they act as we do, hold what they need, and are refused otherwise."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case_folder import in_case
from saved_policy import TINY, saved

from ppo_jax.apps.export import export as exporting
from ppo_jax.apps.export import numpy_policy
from ppo_jax.apps.export.export import export
from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.cli.main import main
from ppo_jax.config.config import Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.models.agent import acting_policy, assemble, leaf_codes
from ppo_jax.rl.types import Window
from ppo_jax.runtime.saved_run import load_member
from ppo_jax.storage import run_folder
from ppo_jax.training import trainer


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = dataclasses.replace(
        TINY, env="Pendulum-v1", policy="tanh-gaussian", normalize_observations=True
    )
    return saved(tmp_path_factory.mktemp("runs") / "pendulum", config)


def own_network() -> tuple[Callable, Callable]:
    def init_fn(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (4, 3))

    def apply_fn(params: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = jnp.sin(observation @ params)
        return hidden[:2], hidden[2]

    return init_fn, apply_fn


OWN = own_network()

CASES = {
    "a clipped gaussian": {"env": "Pendulum-v1", "normalize_observations": True},
    "a head with its own std": {"env": "Pendulum-v1", "policy": "gaussian-state-std"},
    "gsde and relu": {"env": "Pendulum-v1", "policy": "gsde", "activation": "relu"},
    "counted actions": {"env": "CartPole-v1", "activation": "swish", "shared_torso": True},
    "a convolution": {"env": "Breakout-MinAtar", "activation": "gelu"},
    "a flattened grid": {"env": "Catch-bsuite", "torso": "mlp", "activation": "elu"},
}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["numpy", "onnx"])
@pytest.mark.parametrize("name", CASES)
def test_every_built_in_policy_acts_alike_in_numpy_and_onnx(
    tmp_path: Path, name: str, format: str
) -> None:
    if format == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    run = saved(tmp_path / "run", dataclasses.replace(TINY, **CASES[name]))
    report = export(run, format=format, member=1)
    assert report["num_observations"] == 1024
    assert report["largest_difference"] <= 1e-5
    ours, theirs = load_policy(run, seed_index=1), load_policy(report["out"])
    rows = 3.0 * np.random.default_rng(0).normal(size=(64, *observation_shape(run)))
    rows = rows.astype(np.float32)
    found, expected = np.asarray(theirs(rows)), np.asarray(ours(rows))
    assert found.dtype == expected.dtype
    assert len(np.unique(expected)) > 1
    if expected.dtype == np.float32:
        np.testing.assert_allclose(found, expected, atol=1e-5)
    else:  # a tie up to rounding may be broken differently
        assert np.mean(found == expected) > 0.98
    one = theirs(rows[0])
    assert one.shape == expected.shape[1:]
    np.testing.assert_allclose(one, found[0], atol=1e-6)


def observation_shape(run: Path) -> tuple[int, ...]:
    config = run_folder.read_settings(run).config
    return assemble(config).environment.observation_shape


@pytest.mark.parametrize("name", ["a clipped gaussian", "a convolution"])
def test_a_stablehlo_program_takes_any_number_of_observations(tmp_path: Path, name: str) -> None:
    pytest.importorskip("flatbuffers")
    run = saved(tmp_path / "run", dataclasses.replace(TINY, **CASES[name]))
    report = export(run, out=tmp_path / "policy.stablehlo")
    assert report["format"] == "stablehlo"
    ours, theirs = load_policy(run), load_policy(tmp_path / "policy.stablehlo")
    for count in (1, 5):
        rows = np.random.default_rng(count).normal(size=(count, *observation_shape(run)))
        np.testing.assert_allclose(
            theirs(rows), ours(rows.astype(np.float32)), atol=1e-5, err_msg=str(count)
        )


def test_a_network_of_ones_own_is_a_program_and_no_layers(tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers")
    config = dataclasses.replace(TINY, env="CartPole-v1", network=OWN)
    run = saved(tmp_path / "run", config)
    for format in ("numpy", "onnx"):
        if format == "onnx":
            pytest.importorskip("onnx")
        with pytest.raises(InputError, match="network of its own: use --format stablehlo"):
            export(run, format=format, network=OWN)
    export(run, format="stablehlo", out=tmp_path / "a.stablehlo", network=OWN)
    row = np.array([0.1, -0.4, 0.7, 0.2], np.float32)
    ours = load_policy(run, network=OWN)
    assert load_policy(tmp_path / "a.stablehlo")(row) == ours(row)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.stablehlo", "run"]


def test_the_numpy_artefact_runs_where_jax_cannot_be_imported(
    pendulum: Path, tmp_path: Path
) -> None:
    out = tmp_path / "my policy"
    export(pendulum, out=out)
    assert sorted(path.name for path in out.iterdir()) == ["policy.npz", "policy.py"]
    program = """
import sys
for name in ("jax", "jaxlib", "flax", "ppo_jax"):
    sys.modules[name] = None  # importing it fails
from policy import act
print([float(x) for x in act([0.6, -0.8, 1.5])], act([[0.6, -0.8, 1.5]] * 3).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=out, capture_output=True, text=True, check=True
    )
    ours = np.asarray(load_policy(pendulum)(jnp.array([0.6, -0.8, 1.5])))
    values, shape = done.stdout.rsplit("] ", 1)
    np.testing.assert_allclose(json.loads(values + "]"), ours, atol=1e-5)
    assert shape.strip() == "(3, 1)"
    told = subprocess.run(
        [sys.executable, str(out / "policy.py")], capture_output=True, text=True, check=True
    )
    assert "Pendulum-v1" in told.stdout
    assert "squashed by tanh" in told.stdout


def test_an_artefact_is_loaded_without_jax(pendulum: Path, tmp_path: Path) -> None:
    export(pendulum, out=tmp_path / "policy")
    program = f"""
import sys, ppo_jax
act = ppo_jax.load_policy({str(tmp_path / "policy")!r})
assert act([0.6, -0.8, 1.5]).shape == (1,)
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "wrong", [lambda x: x + 3e-5, lambda x: x * np.nan, lambda x: x[:, 0], lambda x: x.astype(int)]
)
def test_an_artefact_that_acts_otherwise_is_refused_and_nothing_is_left(
    pendulum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable
) -> None:
    whole = numpy_policy._action
    monkeypatch.setattr(numpy_policy, "_action", lambda *given: wrong(whole(*given)))
    with pytest.raises(InputError, match=r"was not written: its actions differ .* more than 1e-05"):
        export(pendulum, out=tmp_path / "policy")
    assert list(tmp_path.iterdir()) == []


def test_a_small_difference_is_measured(pendulum: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numpy_policy._action
    monkeypatch.setattr(numpy_policy, "_action", lambda *given: whole(*given) + np.float32(5e-6))
    report = export(pendulum, format="numpy")
    assert report["largest_difference"] == pytest.approx(5e-6, rel=0.2)


def test_of_counted_actions_only_a_worse_choice_counts(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, env="CartPole-v1")
    state = trainer.init(config, Hyper(), jax.random.key(0))
    parts = assemble(config)
    policy = acting_policy(config, parts, state.params, state.observation_moments)
    compare = partial(exporting.compare, parts.environment, policy)
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    logits = np.asarray(parts.network.apply(state.params, Window(rows))[0].logits)
    gap = np.abs(logits[:, 0] - logits[:, 1])
    best, closest = logits.argmax(1).astype(np.int32), gap.argmin()
    other = best.copy()
    other[closest] = 1 - best[closest]
    assert compare(lambda _: best, rows) == (20, 0.0)
    none = compare(lambda _: np.full_like(best, 2), rows)
    assert none.largest_difference == np.inf  # there is no action 2
    found = compare(lambda _: other, rows).largest_difference
    assert found == pytest.approx(gap[closest], abs=1e-6)


def test_recorded_observations_are_those_of_the_environment(pendulum: Path) -> None:
    from ppo_jax.runtime import saved_run

    rows = exporting.recorded_observations(*saved_run.load_member(pendulum, 0))
    assert rows.shape == (1024, 3)
    np.testing.assert_allclose(rows[:, 0] ** 2 + rows[:, 1] ** 2, 1.0, atol=1e-5)
    assert len(np.unique(rows[:, 2])) > 500


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--format", "tflite"], "format='tflite' is not one of numpy, stablehlo, onnx"),
        (["--format", "onnx", "-o", "a.stablehlo"], "must end in .onnx"),
        (["--format", "numpy", "-o", "a.onnx"], "must name a folder"),
        (["-o", "nowhere/a.onnx"], "is no writable folder"),
        (["-o", "a.zip"], "end it in .stablehlo or .onnx, or give --format numpy"),
        (["--member", "2"], "member=2 is not among the run's 2 seeds (0 to 1)"),
        (["--member", "-1"], "member=-1 must be at least 0"),
        (["--member", "x"], "member='x' must be a whole number"),
    ],
)
def test_what_cannot_be_exported_is_told(
    pendulum: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    before = sorted(pendulum.rglob("*"))
    assert main(["export", str(pendulum), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(pendulum.rglob("*")) == before


def test_the_command_exports_and_says_what_it_did(
    pendulum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p"
    assert main(["export", str(pendulum), "--member", "1", "-o", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["member"], report["format"], report["out"]) == (1, "numpy", str(out))
    assert main(["export", str(pendulum), "-o", str(out)]) == 2
    assert "exists already: name a new place" in capsys.readouterr().err


@pytest.mark.parametrize("is_scaled", [True, False])
def test_a_policy_of_bytes_takes_them_raw_wherever_it_runs(tmp_path: Path, is_scaled: bool) -> None:
    """The built-in network divides by 255, and 0.1.0's did not: each run keeps its own."""
    with in_case("image-bytes"):
        config = dataclasses.replace(TINY, env="env:Lamp", scale_bytes=is_scaled)
        run = saved(tmp_path / "run", config)
        report = export(run, format="numpy")
        assert report["largest_difference"] <= 1e-5
        (code,) = leaf_codes(config, assemble(config).environment)
        assert code.scale == (255.0 if is_scaled else None)
        bright = 255 * np.ones((3, 8, 8, 1), np.uint8)
        ours, theirs = load_policy(run), load_policy(report["out"])
        np.testing.assert_array_equal(ours(bright), theirs(bright))
        params = load_member(run, 0)[2].params
        plain = assemble(dataclasses.replace(config, scale_bytes=False)).network
        by_hand = jnp.asarray(bright / (255.0 if is_scaled else 1.0), jnp.float32)
        expected = plain.policy(params, Window(by_hand)).logits
        found = assemble(config).network.policy(params, Window(jnp.asarray(bright))).logits
        np.testing.assert_allclose(found, expected, rtol=1e-6)
