"""States are read back from run folders, and folders that do not fit are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BATCH, CONFIG, STEPS

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.runtime.saved_run import load_checkpoint, load_member, load_state
from ppo_jax.storage import checkpoint, checkpoint_list
from ppo_jax.storage.fingerprint import spaces


def test_a_folder_without_a_readable_checkpoint_is_refused(walked: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        load_state(tmp_path)
    shutil.copytree(walked.folder, tmp_path / "copy")
    for arrays in (tmp_path / "copy").rglob(checkpoint.ARRAYS):
        arrays.write_bytes(b"")
    with pytest.raises(InputError, match=r"holds no checkpoint that can be read.*damaged"):
        load_state(tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoints")
    with pytest.raises(InputError, match=r"holds no checkpoint that can be read\.$"):
        load_state(tmp_path / "copy")


def test_a_run_of_another_shape_is_told_by_the_checkpoint(walked: Any, tmp_path: Path) -> None:
    shutil.copytree(walked.folder, tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    record = json.loads(file.read_text())
    assert record["config"]["hidden_sizes"] == list(CONFIG.hidden_sizes)
    record["config"]["hidden_sizes"] = [9]
    file.write_text(json.dumps(record))
    with pytest.raises(InputError, match="is wanted as"):
        load_state(tmp_path / "copy")


def test_a_member_is_its_seed_of_the_whole_state(walked: Any) -> None:
    _, _, member = load_member(walked.folder, 2)
    assert member.iteration.shape == ()
    assert (
        member.params["body"]["policy_head"]["kernel"]
        == walked.state.params["body"]["policy_head"]["kernel"][2]
    ).all()
    with pytest.raises(InputError, match=r"member=3 is not among the run's 3 seeds \(0 to 2\)"):
        load_member(walked.folder, 3)


def test_a_state_is_that_of_the_checkpoint_that_was_asked_for(peaked: Any) -> None:
    best = checkpoint_list.best(peaked.folder)
    assert best is not None
    steps = checkpoint.metadata_of(best)["env_steps"]
    assert 0 < steps < STEPS
    for choice, wanted in (("newest", STEPS), ("best", steps), (BATCH, BATCH), (0, 0)):
        _, _, _, state, metadata = load_state(peaked.folder, checkpoint=choice)
        _, _, member = load_member(peaked.folder, 1, checkpoint=choice)
        assert metadata["env_steps"] == wanted
        arrays, _ = checkpoint.load_raw(checkpoint.checkpoint_folder(peaked.folder, wanted))
        kernel = arrays["params/body/policy_head/kernel"]
        np.testing.assert_array_equal(state.params["body"]["policy_head"]["kernel"], kernel)
        np.testing.assert_array_equal(member.params["body"]["policy_head"]["kernel"], kernel[1])
        assert int(member.iteration) == wanted // BATCH


@pytest.mark.parametrize("wrong", ["bset", "", 1.5, None, True])
def test_a_checkpoint_is_a_word_or_a_number_of_steps(walked: Any, wrong: Any) -> None:
    with pytest.raises(InputError, match="must be newest, best or the environment steps"):
        load_state(walked.folder, checkpoint=wrong)


def test_a_best_checkpoint_that_is_damaged_is_noted(
    peaked: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = checkpoint_list.best(peaked.folder)
    assert best is not None
    shutil.copytree(peaked.folder, tmp_path / "copy")
    (tmp_path / "copy" / "checkpoints" / best.name / checkpoint.ARRAYS).write_bytes(b"")
    load_state(peaked.folder, checkpoint="best")
    assert capsys.readouterr().err == ""
    load_state(tmp_path / "copy", checkpoint="best")
    err = capsys.readouterr().err
    assert err.startswith("note: ")
    assert best.name in err


@pytest.mark.parametrize("name, then", [("action", "discrete 3"), ("observation", "float32 [5]")])
def test_an_environment_of_other_spaces_is_named(tmp_path: Path, name: str, then: str) -> None:
    config = Config(env="CartPole-v1")
    folder = checkpoint.checkpoint_folder(tmp_path, 8)
    found = {**spaces(config), name: then}
    checkpoint.save(folder, {"x": jnp.zeros(2)}, {"env_steps": 8, "spaces": found})
    like: Any = {"y": jnp.zeros(3)}
    words = rf"'CartPole-v1' now has the {name} space .* trained with {re.escape(then)}"
    with pytest.raises(InputError, match=words):
        load_checkpoint(folder, like, config)
