"""Files appear whole or not at all, and values become plain JSON."""

from __future__ import annotations

import ast
import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.config import Schedule
from ppo_jax.config.data import PACKAGE
from ppo_jax.storage import files
from ppo_jax.storage.files import to_json, to_strict_json, write_atomic, write_json

OLD, NEW = b"old content", b"new content " * 200_000  # more than one piece

KILLED = """
import os, signal, sys
from pathlib import Path
from ppo_jax.storage import files

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(os, sys.argv[1], kill)
files.write_atomic(Path(sys.argv[2]), b"new content")
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_process_killed_midway_leaves_the_old_content(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(OLD)
    killed = subprocess.run([sys.executable, "-c", KILLED, moment, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD
    others = [name for name in names(tmp_path) if name != "a.json"]
    assert len(others) == 1
    assert files.is_temporary(others[0])


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_content_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(os, moment, full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"new": 2})
    assert names(tmp_path) == ["a.json"]
    assert json.loads(path.read_text()) == {"old": 1}


def test_content_is_on_the_disk_before_it_has_its_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("sync folder" if is_folder else "sync file")
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        assert source.read_bytes() == NEW
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_atomic(tmp_path / "a", NEW)
    assert calls == ["sync file", "rename", "sync folder"]
    assert (tmp_path / "a").read_bytes() == NEW
    assert names(tmp_path) == ["a"]


def test_text_is_written_as_utf8_and_an_old_file_is_replaced(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "a longer first text")
    write_atomic(tmp_path / "a", "§")
    assert (tmp_path / "a").read_bytes() == b"\xc2\xa7"


def test_the_temporary_file_does_not_follow_a_symlink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0123abcd")  # as if guessed
    (tmp_path / ".a.tmp-0123abcd").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "a", NEW)
    assert victim.read_bytes() == OLD
    assert not (tmp_path / "a").exists()


def test_a_symlink_in_the_place_of_the_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(OLD)
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    write_atomic(tmp_path / "a", NEW)
    assert (tmp_path / "victim").read_bytes() == OLD
    assert not (tmp_path / "a").is_symlink()


def test_a_folder_appears_with_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_folder_atomic(tmp_path / "a", {"x": OLD, "y": NEW})
    assert [path.read_bytes() for path in sorted((tmp_path / "a").iterdir())] == [OLD, NEW]
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_folder_atomic(tmp_path / "b", {"x": OLD})
    assert names(tmp_path) == ["a"]


def test_names_of_users_files_are_not_temporary() -> None:
    own = ("a.tmp", ".a.tmp", "config.json", ".a.tmp-12", ".tmp-0123abcd", "a.tmp-0123abcd")
    assert not any(map(files.is_temporary, own))


VALUES = {
    "a": math.nan,
    "b": (math.inf, -math.inf, 1.5),
    "c": np.arange(2),
    "d": jnp.array([jnp.inf, 1.0]),
    "e": np.float32(0.5),
    "f": Schedule(1, 0),
    "g": True,
    3: None,
}
PLAIN = {"a": None, "c": [0, 1], "e": 0.5, "f": "1.0:0.0", "g": True, "3": None}


def test_json_for_settings_keeps_infinities_as_text() -> None:
    assert to_json(VALUES) == {**PLAIN, "b": ["inf", "-inf", 1.5], "d": ["inf", 1.0]}


def test_json_for_rows_has_null_where_a_number_is_not_finite() -> None:
    assert to_strict_json(VALUES) == {**PLAIN, "b": [None, None, 1.5], "d": [None, 1.0]}


def test_both_are_strict_json() -> None:
    for convert in (to_json, to_strict_json):
        text = json.dumps(convert(VALUES), allow_nan=False)
        assert json.loads(text) == convert(VALUES)


def test_no_other_module_replaces_files_by_itself() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr == "replace"
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    assert found == {"storage/files.py"}
