"""Logging services that raise, hang or do not start are left behind."""

from __future__ import annotations

import sys
import threading
import time
import types

import pytest
from tiny import BATCH, tiny_run

from ppo_jax.apps.run.runner import resume
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.runtime import loggers
from ppo_jax.runtime.loggers import LogFanout, TensorBoardLog, WandbLog
from ppo_jax.storage import run_folder


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


class FakeWandb(types.SimpleNamespace):
    """The part of the service that is used, with a list of all calls."""

    def __init__(self) -> None:
        super().__init__(calls=[], summaries={})
        self.run = types.SimpleNamespace(
            log=lambda values, step: self.calls.append((values, step)),
            finish=lambda: self.calls.append("finish"),
            define_metric=lambda name, summary: self.summaries.update({name: summary}),
        )

    def init(self, **options):
        self.calls.append(options)
        return self.run


def test_wandb_gets_scalars_over_seeds_and_a_config_without_infinity(monkeypatch, tmp_path):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    given = {"clip": float("inf"), "sizes": (64, 64)}
    log = WandbLog("project", "offline", given, tmp_path, "abc")
    log.write({"kl_old_new": [0.1, 0.3], "ratio_max": [1.5, 3.0, None]}, 7)
    log.close()
    config = {"clip": None, "sizes": [64, 64]}
    asked = {"project": "project", "mode": "offline", "config": config, "dir": str(tmp_path)}
    assert fake.calls[0] == {
        **asked,
        "id": "abc",
        "resume": "allow",
        "allow_val_change": True,
    }
    assert fake.calls[1:] == [({"kl_old_new": 0.2, "ratio_max": 3.0}, 7), "finish"]
    assert fake.summaries == {"ratio_max": "max", "log_ratio_abs_first": "max"}


def test_a_resumed_run_goes_on_with_its_own_run_at_wandb(monkeypatch, tmp_path):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(loggers, "find_spec", lambda package: object())
    every = {"log_every": BATCH, "wandb": "project", "checkpoint_every": BATCH}
    stopped = tiny_run(
        tmp_path / "a", callbacks=[lambda row: row["env_steps"] == 3 * BATCH], **every
    )
    resume(stopped.folder, quiet=True)
    begun, gone_on = [call for call in fake.calls if isinstance(call, dict)]
    assert begun["id"] == gone_on["id"] == run_folder.run_id(stopped.folder)
    assert len(begun["id"]) == 32
    steps = [call[1] for call in fake.calls if isinstance(call, tuple)]
    assert steps == [BATCH * i for i in range(1, 8)]


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("tensorboardX", lambda: TensorBoardLog("unused")),
        ("wandb", lambda: WandbLog("project", "offline", {})),
    ],
)
def test_a_missing_service_is_a_sentence_with_the_extra_to_install(monkeypatch, package, make):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"not installed.*pip install -e '\.\[[a-z]+\]'"):
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
    fanout = LogFanout({"good": lambda: good, "bad": lambda: bad}, told.append)
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
    fanout = LogFanout({"slow": lambda: hanging}, told.append, capacity=3)
    start = time.monotonic()
    for steps in range(10):
        fanout.write({}, steps)
    fanout.close(timeout_seconds=0.1)
    assert time.monotonic() - start < 5
    assert told == ["logging to slow stopped, the run goes on: 3 rows are waiting for it."]
    hanging.released.set()


def test_a_service_that_does_not_finish_is_left_behind_at_the_end():
    hanging, told = Hanging(), []
    fanout = LogFanout({"slow": lambda: hanging}, told.append)
    fanout.write({}, 0)
    fanout.close(timeout_seconds=0.05)
    assert told == ["logging to slow stopped, the run goes on: it did not finish in time."]
    hanging.released.set()


def test_a_service_that_does_not_start_is_reported_once():
    told = []

    def broken():
        raise RuntimeError("no quota")

    fanout = LogFanout({"service": broken}, told.append)
    wait_for(lambda: not fanout._workers["service"]._thread.is_alive())
    for steps in range(3):
        fanout.write({}, steps)
    fanout.close()
    assert told == ["logging to service stopped, the run goes on: RuntimeError: no quota"]


def test_a_service_that_hangs_while_it_starts_holds_nobody_up():
    released, told = threading.Event(), []
    start = time.monotonic()
    fanout = LogFanout({"service": lambda: released.wait(30)}, told.append)
    fanout.write({}, 1)
    fanout.close(timeout_seconds=0.05)
    assert time.monotonic() - start < 5
    assert told == ["logging to service stopped, the run goes on: it did not finish in time."]
    released.set()


def test_several_hanging_services_share_the_time_to_finish():
    released = threading.Event()
    start = time.monotonic()
    waiting = {str(i): lambda: released.wait(30) for i in range(5)}
    LogFanout(waiting, lambda text: None).close(timeout_seconds=0.3)
    assert time.monotonic() - start < 1.2
    released.set()


def test_a_wanted_service_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    for options in (RunOptions(tensorboard=True), RunOptions(wandb="project")):
        with pytest.raises(InputError, match=r"not installed: install it with pip install"):
            loggers.require(options)
    loggers.require(RunOptions())


def test_only_what_is_wanted_is_started(tmp_path):
    assert loggers.openers(tmp_path, RunOptions(), {}, 0) == {}
    wanted = RunOptions(tensorboard=True, wandb="project")
    assert set(loggers.openers(tmp_path, wanted, {}, 0)) == {"tensorboard", "wandb"}
