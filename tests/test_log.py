"""Logs survive kills, odd numbers and failing services."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config import InputError
from ppo_jax.log import (
    JsonlLog,
    LogFanout,
    Progress,
    TensorBoardLog,
    WandbLog,
    format_seconds,
    format_steps,
    read_jsonl,
    rewind_jsonl,
)


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


def test_tensorboard_gets_the_mean_over_seeds_at_its_environment_step(tmp_path):
    pytest.importorskip("tensorboardX")
    log = TensorBoardLog(tmp_path)
    log.write({"episode_return": [1.0, None, 4.0], "loss": 0.5, "name": "text", "none": None}, 2048)
    log.close()
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        while data:  # length, checksum, record, checksum
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found |= {value.tag: (value.simple_value, event.step) for value in event.summary.value}
            data = data[16 + size :]
    assert found == {"episode_return": (2.5, 2048), "loss": (0.5, 2048)}


def test_wandb_gets_the_mean_over_seeds_and_a_config_without_infinity(monkeypatch, tmp_path):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((values, step)), finish=lambda: calls.append("finish")
    )
    fake = types.SimpleNamespace(init=lambda **options: calls.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log = WandbLog("project", "offline", {"clip": float("inf"), "sizes": (64, 64)}, tmp_path)
    log.write({"kl_old_new": [0.1, 0.3]}, 7)
    log.close()
    config = {"clip": None, "sizes": [64, 64]}
    asked = {"project": "project", "mode": "offline", "config": config, "dir": str(tmp_path)}
    assert calls[0] == asked
    assert calls[1:] == [({"kl_old_new": 0.2}, 7), "finish"]


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("tensorboardX", lambda: TensorBoardLog("unused")),
        ("wandb", lambda: WandbLog("project", "offline", {})),
    ],
)
def test_a_missing_service_is_a_sentence_with_the_extra_to_install(monkeypatch, package, make):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"not installed.*pip install 'ppo-jax\[[a-z]+\]'"):
        make()


class Recorder:
    def __init__(self) -> None:
        self.rows, self.closed = [], False

    def write(self, row, env_steps):
        self.rows.append((row, env_steps))

    def close(self):
        self.closed = True


class Broken(Recorder):
    def write(self, row, env_steps):
        super().write(row, env_steps)
        raise RuntimeError("no route to host")


class Hanging(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, row, env_steps):
        self.released.wait(30)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition()


def test_a_service_that_raises_is_reported_once_and_the_others_go_on():
    good, bad, told = Recorder(), Broken(), []
    fanout = LogFanout({"good": good, "bad": bad}, told.append)
    fanout.write({"x": float("nan")}, 1)
    wait_for(lambda: bad.rows)
    for steps in (2, 3, 4):
        time.sleep(0.01)
        fanout.write({"x": 0.0}, steps)
    fanout.close()
    assert told == ["logging to bad stopped, the run goes on: RuntimeError: no route to host"]
    assert good.rows == [({"x": None}, 1)] + [({"x": 0.0}, steps) for steps in (2, 3, 4)]
    assert good.closed
    assert len(bad.rows) == 1


def test_a_service_that_hangs_neither_slows_nor_stops_a_run():
    hanging, told = Hanging(), []
    fanout = LogFanout({"slow": hanging}, told.append, capacity=3)
    start = time.monotonic()
    for steps in range(10):
        fanout.write({}, steps)
    fanout.close(timeout_seconds=0.1)
    assert time.monotonic() - start < 5
    assert told == ["logging to slow stopped, the run goes on: 3 rows are waiting for it."]
    hanging.released.set()


def test_a_service_that_does_not_finish_is_left_behind_at_the_end():
    hanging, told = Hanging(), []
    fanout = LogFanout({"slow": hanging}, told.append)
    fanout.write({}, 0)
    fanout.close(timeout_seconds=0.05)
    assert told == [
        "logging to slow stopped, the run goes on: it did not finish within 0.05 seconds."
    ]
    hanging.released.set()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def row(env_steps: int) -> dict:
    return {
        "env_steps": env_steps,
        "episode_return": [10.0, None, 30.0],
        "kl_old_new": [0.01, 0.02, None],
        "env_steps_per_second": 1500.0,
    }


def test_a_progress_line_says_what_there_is_to_know():
    progress = Progress(200, 100_000, num_seeds=3, stream=io.StringIO())
    # 75,000 steps left of each of 3 seeds at 1,500 steps a second over all seeds: 150 seconds.
    assert progress.describe(50, row(25_000)) == (
        "50/200  25%  2m30s left  1.5k env steps/s  return 20 (10 to 30)  KL 0.015"
    )
    assert progress.describe(0, {"env_steps": 0}) == "0/200  0%"
    assert "return 5  KL" in progress.describe(1, row(1) | {"episode_return": [5.0]})


@pytest.mark.parametrize("total", [1, 7, 20, 1000, 12345])
def test_without_a_terminal_there_are_some_twenty_plain_lines_and_the_last_is_told(total):
    stream = io.StringIO()
    progress = Progress(total, total * 128, num_seeds=1, stream=stream)
    for iteration in range(1, total + 1):
        progress.update(iteration, {"env_steps": 128 * iteration})
    progress.message("[done] at /a/path")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "[done] at /a/path"
    assert lines[-2] == f"{total}/{total}  100%"
    assert min(total, 20) <= len(lines) - 1 <= 22
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_the_display_is_live_and_messages_keep_their_brackets(monkeypatch):
    for name in ("NO_COLOR", "TERM", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    stream = Terminal()
    progress = Progress(10, 1280, num_seeds=3, stream=stream)
    progress.update(5, row(640))
    progress.message("[red]brackets[/red]")
    progress.close()
    assert "\x1b[" in stream.getvalue()
    assert "5/10" in stream.getvalue()
    assert "[red]brackets[/red]" in stream.getvalue()


def test_a_closed_stream_does_not_end_a_run():
    stream = io.StringIO()
    progress = Progress(10, 10, num_seeds=1, stream=stream)
    stream.close()
    progress.update(10, {"env_steps": 10})
    progress.close()


def test_progress_goes_to_stderr_and_nothing_to_stdout(capsys):
    progress = Progress(1, 1, num_seeds=1)
    progress.update(1, {"env_steps": 1})
    progress.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "1/1  100%\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (999.9, "1k"), (12_345, "12.3k"), (1.5e6, "1.5M"), (2.04e9, "2.04G")],
)
def test_steps_are_told_in_si_units(number, text):
    assert format_steps(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7625, "2h07m")]
)
def test_seconds_are_told_in_two_units(seconds, text):
    assert format_seconds(seconds) == text


def test_json_of_a_row_is_valid_for_strict_readers(tmp_path):
    write_rows(tmp_path / "a.jsonl", [{"x": np.full(3, np.nan)}])

    def refuse(word):
        raise AssertionError(word)

    json.loads((tmp_path / "a.jsonl").read_text(), parse_constant=refuse)
