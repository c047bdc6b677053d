"""A stranger's files against every command: no program that they name is imported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from report_page import make_run

import ppo_jax
from ppo_jax.apps.sweep import axes, driver, folder
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.cli import main
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.storage.files import write_json
from ppo_jax.storage.sealed import write_sealed

HOSTILE = "hostile:Env"
MODULE = "from pathlib import Path\nPath('marker').write_text('it ran')\ndef Env(): ...\n"
SUITE = '[defaults]\nseeds = 1\n[[cell]]\ntask = "a"\nvariant = "b"\nenv = "CartPole-v1"\n'
COMMANDS = (
    "eval run",
    "export run --out policy",
    "replay run",
    "debug run",
    "resume run",
    "train CartPole-v1 --no-preset --init-from run",
    "train --no-preset --config run/config.json",
    "train CartPole-v1 --preset preset.toml",
    "bench --config run/config.json",
    "sweep --config run/config.json CartPole-v1 gamma=0.9,0.99",
    "sweep swept",
    "reproduce suite.toml",
)
# The environment that a command line names wins over that of a file.
NAMES_ITS_ENV = ("train CartPole-v1 --preset", "sweep --config", "bench")


@pytest.fixture(params=["env", "network", "drift", "optimizer"])
def field(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run, a sweep, a preset and a suite of a stranger, one of whose fields names a program."""
    monkeypatch.chdir(tmp_path)
    Path("hostile.py").write_text(MODULE)
    make_run(Path("run"), seeds=2, points=3)
    named = {request.param: HOSTILE}
    named |= {"objective": "drift"} if request.param == "drift" else {}
    content = json.loads(Path("run/config.json").read_text())
    content["config"] |= named
    write_json(Path("run/config.json"), content)
    sweep = folder.Sweep(
        Config(**named), Hyper(), axes.parse(["gamma=0.9,0.99"]), [{}], SweepOptions(out="swept")
    )
    Path("swept").mkdir()
    write_sealed(Path("swept/sweep.json"), folder.describe(sweep))
    lines = "".join(f'{name} = "{value}"\n' for name, value in named.items() if name != "env")
    objective = named.get("objective", "clip")
    env = HOSTILE if request.param == "env" else "CartPole-v1"
    Path("preset.toml").write_text(f'env = "{env}"\n[{objective}.config]\n{lines}')
    spec = SUITE.replace("CartPole-v1", env) + f"[cell.config]\n{lines}"
    Path("suite.toml").write_text(spec)
    return request.param


def test_no_command_imports_the_program_that_a_file_names(
    field: str, capsys: pytest.CaptureFixture
) -> None:
    for command in COMMANDS:
        if field == "env" and command.startswith(NAMES_ITS_ENV):
            continue
        assert main.main(command.split()) == 2, command
        *plan, sentence = capsys.readouterr().err.splitlines()
        assert HOSTILE in sentence, command
        assert "--trust" in sentence
        assert len(plan) in ((0, 2) if command.startswith("train") else (0,))
    assert main.main(["report", "run"]) == 0
    assert HOSTILE in capsys.readouterr().out
    assert main.main(["reproduce", "suite.toml", "--show", "--out", "nowhere"]) == 2
    assert not Path("marker").exists()


def test_no_function_of_python_imports_the_program_that_a_file_names(field: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: ppo_jax.evaluate("run"),
        lambda: ppo_jax.export("run"),
        lambda: ppo_jax.replay("run"),
        lambda: ppo_jax.debug("run"),
        lambda: ppo_jax.resume("run"),
        lambda: ppo_jax.load_policy("run"),
        lambda: ppo_jax.run(Config(), Hyper(), init_from="run"),
        lambda: ppo_jax.preset("preset.toml"),
        lambda: driver.resume("swept"),
    ]
    for call in calls:
        with pytest.raises(InputError, match=HOSTILE):
            call()
    assert not Path("marker").exists()


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--trust", "holds no checkpoint"),
        ("--env hostile:Env", "holds no checkpoint"),
        ("--env other:Env", "allow it with --trust or --env hostile:Env"),
    ],
)
def test_the_users_word_opens_the_door(
    words: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run", env=HOSTILE, seeds=1, points=1)  # the door comes first
    assert main.main(["eval", "run", *words.split()]) == 2
    assert sentence in capsys.readouterr().err
