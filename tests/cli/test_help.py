"""Help texts, lists and the version."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ppo_jax.cli import main
from ppo_jax.cli.parser import COMMON
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.options import RunOptions


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", list(main.COMMANDS))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_every_command(name: str, flag: str, capsys: pytest.CaptureFixture) -> None:
    assert main.main([name, flag]) == 0
    out, err = capsys.readouterr()
    assert f"ppo-jax {name}" in out
    assert "--json" in out
    assert err == ""


def test_help_of_train_lists_every_field_and_default(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    main.main(["train", "--help-all"])
    lines = capsys.readouterr().out.splitlines()
    for owner in (Config, Hyper, RunOptions):
        for spec in dataclasses.fields(owner):
            if spec.name == "env":
                continue
            flag = f"  --{spec.name.replace('_', '-')}"
            place = next(
                i for i, line in enumerate(lines) if line.startswith((f"{flag} ", f"{flag},"))
            )
            entry = "".join(lines[place : place + 2])  # long flags have their text a line below
            assert spec.metadata["help"] in entry
            assert spec.default is None or "[default: " in entry
    text = "\n".join(lines)
    assert "--env.NAME" in text
    assert "step size of the optimiser [default: 0.003:0]" in text


def test_help_for_an_environment_shows_its_preset(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    main.main(["train", "CartPole-v1", "--help-all"])
    out = capsys.readouterr().out
    assert "[preset: 100,000]" in out
    assert "[default: 64,64]" in out
    assert "trpo and npg [default: 0.01]" in out
    for words in (["--objective", "trpo"], ["--objective=trpo"]):
        main.main(["train", "CartPole-v1", *words, "--help-all"])
        assert "trpo and npg [preset: 0.01:0.0005]" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_overview_names_every_command(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main.main(words) == 0
    out = capsys.readouterr().out
    assert all(f" {name} " in out for name in main.COMMANDS)


def test_short_help_shows_the_common_settings_only(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["help", "train"]) == 0
    out = capsys.readouterr().out
    for name in (*COMMON, "preset", "config", "help-all"):
        assert f" --{name.replace('_', '-')} " in out
    assert "--fisher-damping" not in out
    assert "--num-cg-iterations" not in out
    assert out.rstrip().endswith("ppo-jax train --help-all")


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str, capsys: pytest.CaptureFixture) -> None:
    assert main.main([flag]) == 0
    assert capsys.readouterr().out == "ppo-jax 0.1.0\n"


def test_presets_are_listed_for_people_and_as_json(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["presets"]) == 0
    assert "CartPole-v1" in capsys.readouterr().out
    assert main.main(["presets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["presets"]
    assert {"name", "env", "objective", "config", "hyper", "score", "source"} <= set(rows[0])


def test_presets_of_a_suite_are_a_part_of_all(capsys: pytest.CaptureFixture) -> None:
    listed = []
    for words in ("", "jumanji", "jumanji --objective pg"):
        assert main.main(["presets", *words.split(), "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["presets"]
        listed.append([(row["name"], row["objective"]) for row in rows])
    assert listed[1] == [each for each in listed[0] if each[0].startswith("jumanji/")]
    assert listed[2] == [("jumanji/Snake-v1", "pg")]
    assert len(listed[1]) > 1


@pytest.mark.parametrize(
    "command", ["train --help", "train CartPole-v1 --help", "train Cartpol", "presets --json"]
)
def test_what_needs_no_jax_loads_none(command: str) -> None:
    code = (
        "import sys; from ppo_jax.cli.main import main; main(sys.argv[1:]);"
        "sys.exit(bool({'jax', 'numpy', 'matplotlib', 'gymnax'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, *command.split()]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_module_is_the_command() -> None:
    words = [sys.executable, "-m", "ppo_jax", "train", "CartPole-v1", "--seeds", "0", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "seeds=0" in json.loads(done.stdout)["error"]
