"""Names of programs that a file holds: found, vouched for or refused, and signed by one user."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from ppo_jax.config import trust
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.storage import run_folder, sealed

OWN = Config(env="mine:Env", optimizer="mine:lion")
NAMES = trust.code_names(vars(OWN))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for the key."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def made(path: Path, config: Config = OWN) -> Path:
    with run_folder.claimed(config, Hyper(), RunOptions(out=str(path)), []) as folder:
        return folder


def test_names_of_programs_have_a_colon_and_are_no_probes() -> None:
    assert {("env", "mine:Env"), ("optimizer", "mine:lion")} == NAMES
    others = {"env": "probe:reward-lag", "network": None, "learning_rate": "1e-3:0"}
    assert trust.code_names(others) == set()
    assert trust.code_names({"env": ("a", "b"), "drift": len}) == set()
    # The words behind a name change nothing: its module would be imported.
    assert trust.code_names({"drift": "evil:it (an object)"}) == {("drift", "evil:it (an object)")}


@pytest.mark.parametrize("word", [True, ["mine:Env", "mine:lion"]])
def test_names_that_the_user_vouches_for_are_taken(word: trust.Trust) -> None:
    trust.require(NAMES, "a file", word)


@pytest.mark.parametrize("word", [False, [], ["mine:Env"], "mine:lion"])
def test_a_name_without_the_users_word_is_refused(word: trust.Trust) -> None:
    with pytest.raises(InputError, match=r"'a file' names the program of an .* --trust or --"):
        trust.require(NAMES, "a file", word)


def test_a_run_of_this_user_needs_no_word_and_neither_does_its_copy(tmp_path: Path) -> None:
    made(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere" / "copy")
    assert run_folder.read_settings(tmp_path / "elsewhere" / "copy").config == OWN
    run_folder.write_config(tmp_path / "run", OWN, Hyper(), RunOptions(), "id")  # as a resume does
    assert run_folder.read_settings(tmp_path / "run").config == OWN


def test_another_name_or_another_key_voids_the_signature(tmp_path: Path, state: Path) -> None:
    made(tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    text = file.read_text()
    file.write_text(text.replace("mine:Env", "evil:Env"))
    with pytest.raises(InputError, match="evil:Env"):
        run_folder.read_settings(tmp_path / "run")
    file.write_text(text)
    (state / "ppo_jax" / "signing-key").write_bytes(b"x" * trust.KEY_BYTES)
    with pytest.raises(InputError, match="mine:Env"):
        run_folder.read_settings(tmp_path / "run")


@pytest.mark.parametrize("signed", [None, "", "é", 5, [], {}])
def test_anything_else_is_no_signature(signed: object) -> None:
    sealed.sign(NAMES)
    assert not trust.is_signed(NAMES, signed)


def test_the_key_is_readable_by_its_user_only_and_made_once(state: Path) -> None:
    first = sealed.sign(NAMES)
    key = state / "ppo_jax" / "signing-key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sealed.sign(NAMES) == first
    assert [path.name for path in key.parent.iterdir()] == ["signing-key"]
    key.chmod(0o644)  # others may know it
    assert trust.read_key() is None


def test_a_run_without_programs_has_no_signature_and_makes_no_key(
    tmp_path: Path, state: Path
) -> None:
    made(tmp_path / "run", Config())
    assert "signature" not in (tmp_path / "run" / "config.json").read_text()
    assert not state.exists()


def test_without_a_place_for_the_key_a_run_is_written_and_not_signed(
    tmp_path: Path, state: Path
) -> None:
    state.write_text("a file where the folder should be")
    made(tmp_path / "run")
    with pytest.raises(InputError, match="mine:Env"):
        run_folder.read_settings(tmp_path / "run")
    assert run_folder.read_settings(tmp_path / "run", trusted=True).config == OWN


def test_a_key_behind_a_symbolic_link_is_not_read(state: Path) -> None:
    sealed.sign(NAMES)
    key = state / "ppo_jax" / "signing-key"
    os.rename(key, state / "elsewhere")
    key.symlink_to(state / "elsewhere")
    assert trust.read_key() is None
