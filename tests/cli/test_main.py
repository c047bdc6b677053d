"""The command line: exit codes, streams, and a training from start to end."""

from __future__ import annotations

import errno
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ppo_jax.cli import main
from ppo_jax.cli.settings import find_settings
from ppo_jax.runtime import signals


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def chosen(command: str) -> Any:
    """The settings that a `train` command line stands for."""
    return chosen_words(*command.split())


def chosen_words(*words: str) -> Any:
    return find_settings(*main.COMMANDS["train"].parser(words).read(words))


def test_failure_of_the_program_is_exit_code_1_without_a_traceback(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(given: dict, params: dict) -> None:
        raise RuntimeError("the disk is full\nand more")

    command = main.COMMANDS["presets"]._replace(run=fail)
    monkeypatch.setitem(main.COMMANDS, "presets", command)
    assert main.main(["presets"]) == 1
    err = capsys.readouterr().err
    assert err == "ppo-jax: RuntimeError: the disk is full (--debug shows where)\n"


def test_a_setting_of_jaxs_own_that_it_refuses_is_bad_input(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(given: dict, params: dict) -> None:
        text = "raise ValueError('invalid truth value \\'maybe\\'')"
        exec(compile(text, "site-packages/jax/_src/config.py", "exec"))

    command = main.COMMANDS["presets"]._replace(run=start)
    monkeypatch.setitem(main.COMMANDS, "presets", command)
    assert main.main(["presets"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ppo-jax: jax cannot start (ValueError: invalid truth value 'maybe'): ")


def test_ctrl_c_is_exit_code_130(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(given: dict, params: dict) -> None:
        raise KeyboardInterrupt

    command = main.COMMANDS["presets"]._replace(run=interrupt)
    monkeypatch.setitem(main.COMMANDS, "presets", command)
    assert main.main(["presets", "--json"]) == 130
    assert json.loads(capsys.readouterr().out) == {"error": "interrupted"}


def test_a_stop_with_nothing_to_save_is_its_exit_code(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(given: dict, params: dict) -> None:
        raise signals.Stopped("SIGHUP", signals.STOPPED)

    command = main.COMMANDS["presets"]._replace(run=stop)
    monkeypatch.setitem(main.COMMANDS, "presets", command)
    assert main.main(["presets"]) == 75
    assert capsys.readouterr().err.startswith("ppo-jax: Stopped by SIGHUP: ")


def test_a_terminal_that_is_gone_does_not_change_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

        def fileno(self) -> int:
            return 1

    silenced: list[int] = []
    monkeypatch.setattr(main, "_silence", silenced.append)
    monkeypatch.setattr(sys, "stdout", Gone())
    assert main.main(["presets"]) == 0
    assert silenced == [1]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed: str, tmp_path: Path) -> None:
    """The next file must not take the place of a stream, as its content would be mixed."""
    code = (
        "import os, sys; from ppo_jax.cli import main; "
        "code = main.main(['presets']); file = open('new', 'w'); "
        "sys.exit(code if file.fileno() > 2 and sys.stdout and sys.stderr else 9)"
    )
    words = f"exec {sys.executable} -c {shlex.quote(code)} {closed}"
    assert subprocess.run(["sh", "-c", words], cwd=tmp_path, timeout=60).returncode == 0


TINY = "--num-envs 4 --rollout-length 16 --total-env-steps 256 --num-epochs 1 --eval-episodes 2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess, Path]:
    folder = tmp_path_factory.mktemp("trained")
    words = ["train", "CartPole-v1", *TINY.split(), "--seeds", "2", "--out", "run 1", "--json"]
    command = [sys.executable, "-m", "ppo_jax", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return done, folder


def test_training_prints_its_summary_as_the_only_words_on_stdout(trained: Any) -> None:
    done, folder = trained
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((folder / "run 1" / "summary.json").read_text("utf-8"))
    assert (summary["num_seeds"], summary["env_steps"]) == (2, 256)
    assert len(summary["final_return"]["per_seed"]) == 2
    assert "settings: preset CartPole-v1" in done.stderr


def test_run_folder_records_what_the_flags_said(trained: Any) -> None:
    record = json.loads((trained[1] / "run 1" / "config.json").read_text("utf-8"))
    assert record["config"]["num_envs"] == 4
    assert record["hyper"]["gamma"] == 0.98
    run = chosen_words("--config", str(trained[1] / "run 1" / "config.json"), "--seed", "7")
    assert (run.config.env, run.config.num_envs, run.options.seeds) == ("CartPole-v1", 4, 2)
    assert (run.options.seed, run.options.out) == (7, None)


def test_folder_of_an_earlier_run_is_refused_and_left_alone(
    trained: Any, capsys: pytest.CaptureFixture
) -> None:
    folder = trained[1] / "run 1"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main.main(["train", "CartPole-v1", *TINY.split(), "--out", str(folder)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
