"""Files appear whole or not at all, and values become plain JSON."""

from __future__ import annotations

import ast
import errno
import json
import math
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.config import Schedule
from ppo_jax.config.data import PACKAGE
from ppo_jax.config.errors import InputError
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


@pytest.mark.parametrize("has_links", [True, False])
def test_of_many_writers_exactly_one_is_first_and_its_content_stays(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_links(*names: object) -> None:
        raise OSError(errno.EPERM, "no hard links here", *names)

    if not has_links:
        monkeypatch.setattr(files.os, "link", without_links)
    contents = [NEW + bytes([i]) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        firsts = list(pool.map(lambda c: files.write_first(tmp_path / "it", c), contents))
    assert firsts.count(True) == 1
    assert (tmp_path / "it").read_bytes() == contents[firsts.index(True)]
    assert names(tmp_path) == ["it"]


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


def test_a_file_set_aside_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("first", "second"):
        path.write_text(text)
        files.set_aside(path)
    kept = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert kept == {"a.json.set-aside-1": "first", "a.json.set-aside-2": "second"}


def test_a_body_that_fails_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text("old")

    def write_half() -> None:
        with files.replacing(path) as new:
            assert new.suffix == ".svg"
            assert files.is_temporary(new.name)
            new.write_text("half")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        write_half()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.svg", "old")]


def test_a_file_that_is_replaced_was_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    path = tmp_path / "a.svg"
    path.symlink_to(tmp_path / "victim")
    with files.replacing(path) as new:
        new.write_text("new")
    assert (path.read_text(), path.is_symlink()) == ("new", False)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("victim", ["victim", "nowhere"])
def test_a_link_is_refused_by_a_sentence(tmp_path: Path, victim: str) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a").symlink_to(tmp_path / victim)
    with pytest.raises(InputError, match=r"a' is a symbolic link, and nothing is written through"):
        files.open_own(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()
