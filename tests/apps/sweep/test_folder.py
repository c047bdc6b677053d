"""A sweep's folder: its programs and its storage are opened at the user's word only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ppo_jax.apps.sweep import axes, folder, pack_files
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.storage.sealed import write_sealed

AXES = axes.parse(["gamma=0.9,0.99"])
URL = "postgresql://me:secret@host/db"


def sweep(path: Path, swept: tuple[axes.Axis, ...] = AXES, **options: Any) -> folder.Sweep:
    return folder.Sweep(Config(), Hyper(), swept, [{}], SweepOptions(out=str(path), **options))


def stranger(path: Path, given: folder.Sweep) -> Path:
    """The folder of a sweep as somebody else sends it: without a signature of ours."""
    path.mkdir()
    write_sealed(path / "sweep.json", folder.describe(given))
    return path


def test_a_program_among_the_values_of_an_axis_needs_the_users_word(tmp_path: Path) -> None:
    given = sweep(tmp_path / "a", axes.parse(["optimizer=adam,evil:lion"]))
    path = stranger(tmp_path / "a", given)
    with pytest.raises(InputError, match="evil:lion"):
        folder.read(path)
    assert folder.read(path, trusted=["evil:lion"]).axes == given.axes
    assert folder.read(folder.open_folder(sweep(tmp_path / "b", given.axes))).axes == given.axes


def test_a_program_among_the_changes_needs_the_users_word(tmp_path: Path) -> None:
    given = sweep(tmp_path / "a")._replace(changes=[{"network": "evil:net"}])
    with pytest.raises(InputError, match="evil:net"):
        folder.read(stranger(tmp_path / "a", given))


def test_a_storage_of_a_stranger_is_not_opened(tmp_path: Path) -> None:
    own = {"sampler": "tpe", "settings": 2, "storage": "sqlite:////home/me/file"}
    path = stranger(tmp_path / "a", sweep(tmp_path / "a", **own))
    with pytest.raises(InputError, match=r"storage 'sqlite:////home/me/file'.*--storage"):
        folder.read(path)
    assert folder.read(path, storage=own["storage"]).options.storage == own["storage"]
    with pytest.raises(InputError, match="is not the sweep's"):
        folder.read(path, trusted=True, storage="sqlite:///other.db")


def test_a_sweep_that_others_join_is_the_same_however_they_share_it(tmp_path: Path) -> None:
    path = folder.open_folder(sweep(tmp_path / "a"))
    own = folder.sweep_id(path)
    for how in ({"join": True, "study": "again"}, {"join": True, "storage": "b.log"}):
        assert folder.open_folder(sweep(tmp_path / "a", **how)) == path
    assert folder.sweep_id(path) == own
    with pytest.raises(InputError, match="packs was 1 and is 4"):
        folder.open_folder(sweep(tmp_path / "a", packs=4))


def test_a_password_is_in_no_file_and_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"sampler": "tpe", "settings": 2, "storage": URL}
    path = folder.open_folder(sweep(tmp_path / "a", **own))
    text = (path / "sweep.json").read_text()
    assert "secret" not in text
    assert json.loads(text)["sweep"]["storage"] == "postgresql://me:***@host/db"
    with pytest.raises(InputError, match=r"needs its password again.*PPO_JAX_STORAGE"):
        folder.read(path)
    assert folder.read(path, storage=URL).options.storage == URL
    monkeypatch.setenv("PPO_JAX_STORAGE", URL)
    assert folder.read(path).options.storage == URL
    assert folder.open_folder(sweep(tmp_path / "a", **own)) == path  # begun again by its flags


def test_a_pack_is_written_through_no_link_but_into_the_folder_that_the_user_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    winner = pack_files.PackJob(tmp_path / "link" / "winner", "id", Config(), Hyper(), {}, [], "")
    pack_files.write_pack(winner, lambda words: None)
    assert (tmp_path / "real" / "winner" / "pack.json").is_file()
    (tmp_path / "real" / "packs").symlink_to(tmp_path / "real" / "winner")
    for name in ("packs/000-000", "packs"):
        job = winner._replace(folder=tmp_path / "real" / name)
        with pytest.raises(InputError, match="is a symbolic link"):
            pack_files.write_pack(job, lambda words: None)
