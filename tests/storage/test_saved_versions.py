"""Runs that earlier versions saved can be loaded, evaluated and gone on with by this one.

Each folder in tests/data/saved was left by the version in its name and must stay as it is:
`ppo-jax train Pendulum-v1 --no-preset --num-envs 2 --rollout-length 8 --num-epochs 1
--num-minibatches 2 --hidden-sizes 4 --total-env-steps 64 --seeds 2 --log-every 48 --eval-episodes 2
--normalize-observations --normalize-rewards --objective kl --kl-target 0.01
--learning-rate 1e-3:0`, stopped by SIGTERM after 32 steps, so that a row was pending.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ppo_jax.apps.run import resume, runner
from ppo_jax.config.errors import InputError
from ppo_jax.runtime import saved_run
from ppo_jax.storage import checkpoint, checkpoint_list, run_folder
from ppo_jax.storage.jsonl import read_jsonl

RUNS = sorted((Path(__file__).parents[1] / "data" / "saved").iterdir())


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "run"))


def test_every_array_of_an_earlier_version_is_loaded_bit_for_bit(saved: Path) -> None:
    newest, warnings = checkpoint_list.latest(saved)
    assert newest is not None
    assert warnings == []
    raw, metadata = checkpoint.load_raw(newest)
    config, _, options, state, _ = saved_run.load_state(saved)
    assert not config.scale_bytes  # what is newer keeps the value that it had in effect
    assert options.seeds == metadata["num_seeds"] == 2
    assert state.alive.tolist() == [True, True]
    assert state.iteration.tolist() == raw["iteration"].tolist() == [2, 2]
    for name in ("mean", "count"):
        found = np.asarray(getattr(state.observation_moments, name))
        np.testing.assert_array_equal(found, raw[f"observation_moments/{name}"])


def test_a_run_of_an_earlier_version_goes_on(saved: Path) -> None:
    result = runner.resume(saved, quiet=True)
    assert (result.exit_code, result.summary["env_steps"]) == (0, 64)
    rows = read_jsonl(saved / "metrics.jsonl")
    assert [row["env_steps"] for row in rows] == [48, 64]
    # Half-way to the first row it was stopped: its two iterations before that are in the mean.
    assert rows[0]["learning_rate"][0] == pytest.approx(1e-3 * (1 - 2 / 4))


def test_the_command_of_an_earlier_version_still_finds_its_run(saved: Path) -> None:
    """Its flags name no scale of bytes, whose default has changed."""
    found = run_folder.read_settings(saved)
    config = dataclasses.replace(found.config, scale_bytes=True)
    resume.refuse_other_settings(saved, config, found.hyper, found.options)
    other = dataclasses.replace(config, num_epochs=3)
    with pytest.raises(InputError, match="num_epochs is 3"):
        resume.refuse_other_settings(saved, other, found.hyper, found.options)


def test_the_documented_reader_checks_and_reads_it(saved: Path) -> None:
    import safetensors.numpy

    folder = sorted((saved / "checkpoints").iterdir())[-1]
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "arrays.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == manifest["arrays_sha256"]
    assert len(data) == manifest["arrays_bytes"]
    seal = manifest.pop("manifest_sha256")
    assert hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest() == seal
    arrays = safetensors.numpy.load(data)
    assert {leaf["path"]: leaf["shape"] for leaf in manifest["leaves"]} == {
        name: list(array.shape) for name, array in arrays.items()
    }
    assert manifest["metadata"]["pending"]["iterations"] == 2
