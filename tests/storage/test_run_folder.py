"""A run's folder: its content, its makers, and the settings that are read back."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Walk

from ppo_jax.apps.run import runner
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.envs.suites.probes import PROBES
from ppo_jax.storage import run_folder

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def made(folder: Path, config: Config, hyper: Hyper | None = None, **options: object) -> Path:
    settled = RunOptions(out=str(folder), **options)  # pyright: ignore[reportArgumentType]
    with run_folder.claimed(config, hyper or Hyper(), settled, jax.local_devices()) as path:
        return path


def test_the_default_folder_names_environment_objective_and_utc_time() -> None:
    path = run_folder.default_path(Config(env="my.module:Env", objective="kl"), NOW)
    assert path == Path("runs/my.module-Env-kl-20260304T050607")
    path = run_folder.default_path(Config(env="brax/ant"), NOW)
    assert path == Path("runs/brax-ant-clip-20260304T050607")


@pytest.mark.parametrize(
    "env, name",
    [
        ("CartPole-v1", "CartPole-v1"),
        (Walk(), "Walk"),
        (Walk, "Walk"),
        ((Walk(), Walk().default_params), "Walk"),
        (PROBES["time-limit"].environment, "time-limit"),
    ],
    ids=["name", "instance", "class", "pair", "Environment"],
)
def test_every_kind_of_environment_has_a_short_name(env: object, name: str) -> None:
    assert run_folder.env_name(Config(env=env)) in (name, f"probe:{name}")


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "default_path", lambda config: Path("runs/a"))
    paths = []
    for _ in range(3):
        with run_folder.claimed(Config(), Hyper(), RunOptions(), []) as path:
            paths.append(path)
    assert [path.name for path in paths] == ["a", "a-2", "a-3"]
    assert all((path / "config.json").is_file() for path in paths)


def test_a_new_an_empty_and_a_nested_folder_may_be_used(tmp_path: Path) -> None:
    run_folder.check_new_folder(str(tmp_path))
    run_folder.check_new_folder(str(tmp_path / "a" / "b" / "c"))
    assert list(tmp_path.iterdir()) == []  # checking makes nothing


def test_a_folder_that_cannot_become_a_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    file = tmp_path / "full" / "file"
    file.write_text("")
    for out, words in ((file, "is a file"), (file.parent, "not empty"), (file / "x", "writable")):
        with pytest.raises(InputError, match=words):
            run_folder.check_new_folder(str(out))
    monkeypatch.setattr(run_folder.os, "access", lambda path, mode: False)  # as root, all is
    monkeypatch.chdir(tmp_path)
    for out in (str(tmp_path / "new"), None):
        with pytest.raises(InputError, match=r"no writable folder: name another place with --out"):
            run_folder.check_new_folder(out)


def test_a_disk_that_fails_is_told_as_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_json", full)
    with pytest.raises(InputError, match="No space left on device"):
        made(tmp_path / "a", Config())


def test_settings_come_back_from_the_folder_as_they_went_in(tmp_path: Path) -> None:
    config = Config(env="Pendulum-v1", hidden_sizes=(32, 16), policy="gsde", num_envs=16)
    hyper = Hyper(
        learning_rate=Schedule(1e-3, 0.0, 1.0),
        kl_stop=math.inf,
        gamma=np.float32(0.5),
        clip_epsilon=jnp.float32(0.25),
        env={"max_speed": 4.0},
    )
    folder = made(tmp_path / "a", config, hyper, seeds=5, stop_at_return=-200.0)
    found = run_folder.read_settings(folder)
    assert found.config == config
    assert found.hyper == dataclasses.replace(hyper, gamma=0.5, clip_epsilon=0.25)
    assert found.options == RunOptions(seeds=5, stop_at_return=-200.0, out=str(folder))
    text = (folder / "config.json").read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["hyper"]["kl_stop"] == "inf"


def test_objects_are_recorded_by_name_and_asked_for_again(tmp_path: Path) -> None:
    walk, network = (Walk(), Walk().default_params), (abs, abs)
    folder = made(tmp_path / "a", Config(env=walk, network=network))
    assert json.loads((folder / "config.json").read_text())["config"]["env"] == "Walk (an object)"
    with pytest.raises(InputError, match=r"its env as a Python object.*env=\.\.\."):
        run_folder.read_settings(folder)
    with pytest.raises(InputError, match=r"its network as a Python object.*network=\.\.\."):
        run_folder.read_settings(folder, env=walk)
    found = run_folder.read_settings(folder, env=walk, network=network)
    assert (found.config.env, found.config.network) == (walk, network)


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "no run folder"),
        ("{}", "damaged: it lacks 'format'"),
        (b'{"format": "\xf6"}', "damaged: 'utf-8' codec"),
        ("[" * 100_000, "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"config": {}}', "damaged.*format"),
        ('{"format": 1, "config": {"num_evns": 3}, "hyper": {}}', "damaged.*num_envs"),
        ('{"format": 99, "config": {}, "hyper": {}}', "has format 99; this version reads 1"),
    ],
)
def test_what_is_no_run_or_a_damaged_one_is_refused(
    tmp_path: Path, text: str | bytes | None, words: str
) -> None:
    if text is not None:
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=words):
        run_folder.read_settings(tmp_path)


def test_the_manifest_names_versions_devices_and_machine(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", Config())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["versions"]["numpy"] == np.__version__
    assert all(manifest["versions"][name] for name in ("ppo-jax", "jaxlib", "gymnax", "optax"))
    assert manifest["devices"] == [f"{d.platform}:{d.device_kind}" for d in jax.local_devices()]
    started = datetime.fromisoformat(manifest["started"])
    assert abs((datetime.now(UTC) - started).total_seconds()) < 60
    assert "--xla_force_host_platform_device_count" in manifest["xla_flags"]


def test_a_schedule_comes_back_with_every_digit(tmp_path: Path) -> None:
    hyper = Hyper(learning_rate=Schedule(0.1234567890123, 1e-9 / 3, 1.0))
    assert run_folder.read_settings(made(tmp_path / "a", Config(), hyper)).hyper == hyper


def test_a_run_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = {run_folder.run_id(made(tmp_path / name, Config())) for name in "abc"}
    assert len(names) == 3
    assert None not in names
    assert run_folder.run_id(tmp_path) is None
    assert run_folder.is_run(tmp_path / "a")
    assert not run_folder.is_run(tmp_path)


def test_a_claimed_folder_is_locked_until_it_is_left(tmp_path: Path) -> None:
    held = rf"is being written by process {os.getpid()} on"
    options = RunOptions(out=str(tmp_path / "a"))
    with run_folder.claimed(Config(), Hyper(), options, []) as path:
        with pytest.raises(InputError, match=held):
            run_folder.check_new_folder(str(path))
        with pytest.raises(InputError, match=held):
            made(path, Config())
    assert sorted(entry.name for entry in path.iterdir()) == ["config.json", "manifest.json"]
    with pytest.raises(InputError, match=r"not empty: name a new folder \(or go on with its run"):
        made(path, Config())


@pytest.mark.parametrize("was_there", [False, True])
def test_a_start_that_fails_before_it_saved_leaves_the_folder_as_it_was(
    tmp_path: Path, was_there: bool
) -> None:
    path = tmp_path / "a"
    if was_there:
        path.mkdir()
    options = RunOptions(out=str(path))

    def fail() -> None:
        with run_folder.claimed(Config(), Hyper(), options, []):
            (path / "metrics.jsonl").touch()
            raise ValueError("no such network")

    with pytest.raises(ValueError, match="no such network"):
        fail()
    assert path.exists() == was_there
    assert not was_there or list(path.iterdir()) == []


def test_a_start_that_fails_after_it_saved_leaves_everything(tmp_path: Path) -> None:
    options = RunOptions(out=str(tmp_path / "a"))

    def fail() -> None:
        with run_folder.claimed(Config(), Hyper(), options, []) as path:
            (path / "checkpoints").mkdir()
            raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="disk"):
        fail()
    left = sorted(entry.name for entry in (tmp_path / "a").iterdir())
    assert left == ["checkpoints", "config.json", "manifest.json"]


def test_what_a_killed_start_left_may_be_taken(tmp_path: Path) -> None:
    for name in ("run.lock", ".config.json.tmp-0123abcd"):
        (tmp_path / name).write_text("")
    run_folder.check_new_folder(str(tmp_path))
    assert made(tmp_path, Config()) == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "manifest.json"]


@pytest.mark.parametrize("name", ["run.lock", "metrics.jsonl", "timing.jsonl", "checkpoints"])
def test_a_run_with_a_symbolic_link_in_place_of_its_files_does_not_go_on(
    tmp_path: Path, name: str
) -> None:
    folder = made(tmp_path / "a", Config())
    (tmp_path / "victim").write_text("precious")
    (folder / name).symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match=f"{name}' is a symbolic link"):
        runner.resume(folder)
    with pytest.raises(InputError, match=f"{name}' is a symbolic link|is not empty"):
        made(folder, Config())
    assert (tmp_path / "victim").read_text() == "precious"
