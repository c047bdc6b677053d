"""Rows on their way to the disk survive kills, odd numbers, full disks and removed folders."""

from __future__ import annotations

import errno
import hashlib
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.storage import jsonl
from ppo_jax.storage.jsonl import JsonlLog, Position, read_jsonl, rewind_jsonl, rewind_to


def write_rows(path, rows) -> None:
    log = JsonlLog(path)
    for row in rows:
        log.write(row)
    log.sync()
    log.close()


def test_numbers_that_are_not_finite_become_null_and_arrays_become_lists(tmp_path):
    row = {
        "env_steps": np.int64(5),
        "x": [1.0, float("nan"), float("inf")],
        "y": np.array([[1.5, -np.inf]], np.float32),
        "z": jnp.float32(float("nan")),
        "nested": {"w": (np.bool_(True), None, "text")},
    }
    write_rows(tmp_path / "metrics.jsonl", [row])
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"env_steps": 5, "x": [1.0, null, null], "y": [[1.5, null]], "z": null, '
        '"nested": {"w": [true, null, "text"]}}\n'
    )


def test_each_line_is_on_disk_before_the_next_is_written(tmp_path):
    log = JsonlLog(tmp_path / "a.jsonl")
    for number in range(3):
        log.write({"number": number})
        assert [row["number"] for row in read_jsonl(tmp_path / "a.jsonl")] == list(
            range(number + 1)
        )
    log.close()


@pytest.mark.parametrize("torn", ['{"number": 2', '{"number": 2}', '{"na\udcff'])
def test_a_torn_last_line_is_passed_over_and_dropped_before_more_is_written(tmp_path, torn):
    path = tmp_path / "a.jsonl"
    write_rows(path, [{"number": 0}, {"number": 1}])
    with path.open("ab") as file:
        file.write(torn.encode(errors="surrogateescape"))
    assert [row["number"] for row in read_jsonl(path)] == [0, 1]
    write_rows(path, [{"number": 3}])
    assert path.read_text() == '{"number": 0}\n{"number": 1}\n{"number": 3}\n'


@pytest.mark.parametrize("line", ["{", "[1]", "\udcff", "null"])
def test_a_damaged_line_within_a_file_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"env_steps": 1}\n' + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(InputError, match="line 2 is not a JSON object"):
        read_jsonl(path)
    with pytest.raises(InputError, match="line 2 is not a JSON object"):
        rewind_jsonl(path, 5)


def test_rewinding_to_a_checkpoint_keeps_the_earlier_rows_byte_for_byte(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_rows(path, [{"env_steps": steps, "x": steps / 3} for steps in (100, 200, 300)])
    expected = b"".join(path.read_bytes().splitlines(keepends=True)[:2])
    rewind_jsonl(path, 250)
    assert path.read_bytes() == expected
    rewind_jsonl(path, 200)
    assert path.read_bytes() == expected
    rewind_jsonl(path, 0)
    assert path.read_bytes() == b""
    rewind_jsonl(tmp_path / "none.jsonl", 0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["metrics.jsonl"]


def test_json_of_a_row_is_valid_for_strict_readers(tmp_path):
    write_rows(tmp_path / "a.jsonl", [{"x": np.full(3, np.nan)}])

    def refuse(word):
        raise AssertionError(word)

    json.loads((tmp_path / "a.jsonl").read_text(), parse_constant=refuse)


def test_a_position_is_size_and_hash_of_the_rows_and_goes_on_with_an_old_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_rows(path, [{"x": 1}])
    log = JsonlLog(path)
    log.write({"x": 2})
    data = path.read_bytes()
    assert log.position() == Position(len(data), hashlib.sha256(data).hexdigest())
    log.close()


def test_going_back_to_a_position_drops_the_later_rows_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonlLog(path)
    log.write({"x": 1})
    place = log.position()
    before = path.read_bytes()
    log.write({"x": 2})
    log.close()
    assert rewind_to(path, place) is None
    assert path.read_bytes() == before
    assert rewind_to(path, place) is None


@pytest.mark.parametrize("content", [None, b"", b'{"x": 7}\n{"x": 8}\n', b'{"x": 1}'])
def test_rows_that_are_not_those_of_the_checkpoint_are_set_aside_whole(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    write_rows(path, [{"x": 1}])
    data = path.read_bytes()
    place = Position(len(data), hashlib.sha256(data).hexdigest())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    warning = rewind_to(path, place)
    assert warning is not None
    assert "is not what the run wrote" in warning
    assert not path.exists() or path.read_bytes() == b""
    aside = tmp_path / "metrics.jsonl.set-aside-1"
    assert (aside.read_bytes() if aside.exists() else b"") == (content or b"")
    assert ("set-aside-1" in warning) == aside.exists()


def test_no_log_is_read_or_written_through_a_symbolic_link(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "metrics.jsonl"
    victim.write_text('{"x": 1}\n{"torn')
    path.symlink_to(victim)
    for write in (JsonlLog, rewind_jsonl, lambda path: rewind_to(path, Position(0, ""))):
        with pytest.raises(InputError, match="is a symbolic link"):
            write(path)
    assert victim.read_text() == '{"x": 1}\n{"torn'


def test_a_pipe_in_place_of_a_log_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    for write in (JsonlLog, rewind_jsonl, lambda path: rewind_to(path, Position(0, ""))):
        with pytest.raises(InputError, match="is no file and no folder"):
            write(tmp_path / "metrics.jsonl")


def test_a_row_for_a_file_that_was_removed_or_replaced_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonlLog(path)
    log.write({"x": 1})
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="removed or replaced"):
        log.write({"x": 2})
    path.write_text("another file")
    with pytest.raises(FileNotFoundError, match="removed or replaced"):
        log.check()
    assert path.read_text() == "another file"
    log.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told_at_the_row_that_met_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonlLog(path)
    log.close()
    path.unlink()
    path.symlink_to("/dev/full")
    log._file = path.open("ab", buffering=0)
    with pytest.raises(OSError, match="No space left") as caught:
        log.write({"x": 1})
    assert caught.value.errno == errno.ENOSPC
    log.close()


def test_neither_a_device_nor_a_row_without_end_fills_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="no regular file"):
        read_jsonl(path)
    path.unlink()
    path.write_text('{"a": 1}\n' + "0" * 100)
    monkeypatch.setattr(jsonl, "_LONGEST", 20)
    with pytest.raises(InputError, match="line 2 is not a JSON object"):
        read_jsonl(path)
