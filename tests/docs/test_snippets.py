"""Python snippets and commands of README and docs are carried out, at tiny budgets."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from documents import DOCUMENTS, ROOT, blocks, inline_commands, shell_commands

import ppo_jax
from ppo_jax.apps.sweep import axes
from ppo_jax.cli.commands.sweep import read_options
from ppo_jax.cli.commands.table import COMMANDS
from ppo_jax.cli.commands.train import find_settings, validate
from ppo_jax.cli.main import main
from ppo_jax.config.config import Config, Hyper

TINY: dict[str, Any] = {
    "total_env_steps": 64,
    "num_envs": 4,
    "rollout_length": 8,
    "num_epochs": 1,
    "num_minibatches": 1,
}
FLAGS = [
    word for name, value in TINY.items() for word in (f"--{name}".replace("_", "-"), f"{value}")
]
# Command -> words behind those of the document, so that it takes seconds.
SMALLER = {
    "train": [*FLAGS, "--seeds", "2", "--eval-episodes", "2", "--quiet"],
    "eval": ["--episodes", "2"],
    "replay": ["--keep", "1,2"],
    "bench": [*FLAGS, "--seeds", "1", "--seconds", "1", "--quiet"],
    "report": ["--force"],
}
# Words in a document -> what they are here.
PLACES = {
    "runs/RUN": "runs/cartpole",
    "mymodule:MyEnv": "corridor:Corridor",
    "runs/a1,runs/a2": "runs/a,runs/c",
    "benchmarks/results/SUITE_PLATFORM_DATE": f"{ROOT}/benchmarks/results/classic_cpu_2026-11-28",
}
COPIES = ("runs/a", "runs/b", "runs/c", "runs/my-run")
# Beginnings of commands that are parsed and not run -> reason.
ONLY_PARSED = {
    "sweep CartPole-v1 learning_rate": "the page's Python does the same",
    "sweep CartPole-v1 lr=1e-4..1e-2:log gamma": "tests/apps/sweep runs halving",
    "sweep CartPole-v1 lr=1e-4..1e-2:log objective": "three compile groups of a study",
    "sweep CartPole-v1 lr=1e-4..1e-2:log --sampler tpe": "needs a database",
    "sweep CartPole-v1 lr=1e-4..1e-2:64:log": "test_join.py and test_ray_engine.py share packs",
    "sweep runs/sweep-": "a sweep of another day",
    "bench mymodule": "the line before it, with another environment",
    "bench Pendulum-v1 --sizes": "two minutes",
    "report ppo-table-1": "300 pictures",
    "report mine.toml": "needs results of a user's own suite",
    "train CartPole-v1 --memory": "tests/training trains with every memory",
    "train CartPole-v1 --objective squared": "test_recipe.py runs it in a changed package",
}
RUN_IN = (
    "README.md",
    "docs/extending.md",
    "docs/durability.md",
    "docs/export.md",
    "docs/report.md",
    "docs/cluster.md",
)
IN_ORDER = (*RUN_IN, "docs/sweeps.md", "docs/speed.md")


def small(config: Config) -> Config:
    return dataclasses.replace(config, hidden_sizes=(8,), **TINY)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of docs/extending.md; presets and settings are tiny in it."""
    folder = tmp_path_factory.mktemp("snippets")
    for code in blocks("docs/extending.md", "python"):
        name = re.match(r"# (\w+\.py)\n", code)
        if name:
            (folder / name[1]).write_text(code, "utf-8")
    preset, whole = ppo_jax.preset, ppo_jax.Config
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(
            ppo_jax, "preset", lambda *given: (small(preset(*given)[0]), preset(*given)[1])
        )
        patch.setattr(ppo_jax, "Config", lambda **given: small(whole(**given)))
        yield folder


@pytest.fixture(scope="module")
def trained(workplace: Path) -> Path:
    """The folder after README's Python: its run is what the commands of all documents read."""
    (code,) = blocks("README.md", "python")
    space: dict[str, Any] = {}
    exec(code, space)
    assert space["result"].exit_code == 0
    assert np.shape(space["metrics"]["entropy"]) == (8, 2)  # seeds, iterations
    assert space["policy"](jnp.zeros(4)) in (0, 1)
    for place in COPIES:
        shutil.copytree(workplace / "runs" / "cartpole", workplace / place)
    described = workplace / "runs" / "c" / "config.json"  # of other seeds than those of runs/a
    content = json.loads(described.read_text("utf-8"))
    content["options"]["seed"] = 1000
    described.write_text(json.dumps(content), "utf-8")
    return workplace


@pytest.mark.slow
def test_python_of_the_api_page_runs_from_top_to_bottom(workplace: Path) -> None:
    space: dict[str, Any] = {}
    for code in blocks("docs/api.md", "python"):
        exec(code, space)
    assert space["grid"].shape == (4, 8)
    assert bool(jnp.all(space["grid"] > 1.0))
    assert space["solved"]({"episode_return": [495.0, None, 500.0]})
    assert not space["solved"]({"episode_return": [495.0, 400.0]})
    assert not space["solved"]({"episode_return": [None]})
    assert space["total"] == space["step"] + 1  # CartPole pays 1 a step


@pytest.mark.slow
def test_python_of_the_sweeps_page_gives_a_table(workplace: Path) -> None:
    (code,) = blocks("docs/sweeps.md", "python")
    space: dict[str, Any] = {}
    exec(code, space)
    assert len(space["table"].settings) == 10
    assert space["table"].to_arrow().num_rows >= 10 * 8


def commands_to_run() -> list[list[str]]:
    found = []
    for document in IN_ORDER:
        for command in shell_commands(document):
            if not any(" ".join(command).startswith(start) for start in ONLY_PARSED):
                found.append(command)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("command", commands_to_run(), ids=" ".join)
def test_a_command_of_a_shell_block_runs(
    trained: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if "onnx" in " ".join(command):
        pytest.importorskip("onnxruntime")
    given = [PLACES.get(word, word) for word in command]
    if command[0] == "export":  # of the same run as another document's
        shutil.rmtree("runs/cartpole/policy-0", ignore_errors=True)
    code = main([*given, *SMALLER.get(command[0], [])])
    assert code == 0, capsys.readouterr().err


def test_every_reason_not_to_run_a_command_is_still_needed() -> None:
    shown = [" ".join(command) for document in IN_ORDER for command in shell_commands(document)]
    for start in ONLY_PARSED:
        assert any(command.startswith(start) for command in shown), start


@pytest.mark.slow
def test_python_of_the_checkpoint_format_reads_a_checkpoint(workplace: Path) -> None:
    assert main(["train", "CartPole-v1", "--out", "runs/format", *SMALLER["train"]]) == 0
    (newest,) = sorted((workplace / "runs/format/checkpoints").glob("step_*"))[-1:]
    (code,) = blocks("docs/durability.md", "python")
    assert "runs/mine/checkpoints/step_000000123456" in code
    space: dict[str, Any] = {}
    exec(code.replace("runs/mine/checkpoints/step_000000123456", newest.as_posix()), space)
    assert {len(array) for array in space["arrays"].values()} == {2}  # seeds


@pytest.mark.slow
def test_python_of_the_export_page_acts(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_numpy, in_onnx = blocks("docs/export.md", "python")
    assert main(["export", "runs/cartpole", "-o", "alone"]) == 0
    monkeypatch.syspath_prepend(str(trained / "alone"))
    space: dict[str, Any] = {"observation": np.zeros(4, np.float32)}
    exec(in_numpy, space)
    del sys.modules["policy"]
    assert space["action"] in (0, 1)
    pytest.importorskip("onnxruntime")
    assert main(["export", "runs/cartpole", "-o", "fresh.onnx"]) == 0
    space = {"observations": np.zeros((3, 4), np.float32)}
    exec(in_onnx.replace("cartpole.onnx", "fresh.onnx"), space)
    assert (space["actions"].shape, space["actions"].dtype) == ((3,), np.int32)


@pytest.mark.slow
def test_python_of_a_masked_policy_serves_what_is_legal(workplace: Path) -> None:
    words = ["train", "kitchen:Kitchen", "--out", "runs/served", *SMALLER["train"]]
    assert main(words) == 0
    (code,) = (code for code in blocks("docs/extending.md", "python") if "# serve.py" in code)
    space: dict[str, Any] = {}
    exec(code.replace("runs/kitchen", "runs/served"), space)
    assert int(space["action"]["oven"]) == 0
    assert space["action"]["heat"].shape == (1,)


def all_commands() -> list[str]:
    found = {
        " ".join(command)
        for document in DOCUMENTS
        for command in (*shell_commands(document), *inline_commands(document))
    }
    return sorted(found)


@pytest.fixture(scope="module")
def settings_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the settings files that docs/settings.md shows."""
    folder = tmp_path_factory.mktemp("settings")
    for code in blocks("docs/settings.md", "toml"):
        (folder / code.split()[1]).write_text(code, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.mark.usefixtures("settings_files")
@pytest.mark.parametrize("command", all_commands())
def test_the_parser_knows_every_command_option_and_value(command: str) -> None:
    name, *rest = command.split()
    if name.startswith("-"):
        assert name in ("--help", "--version")
        return
    if name == "help":
        assert rest == ["COMMAND"]
        return
    if rest[-1:] in (["--preset"], ["..."]):  # an option's name, or a beginning
        rest = rest[:-1]
    parser = COMMANDS[name].parser(rest)
    if rest[-1:] == ["--help"]:
        assert parser.format_help()
        return
    rest = ["3" if word in ("j", "K") else word for word in rest]
    given, env_params = parser.read(rest)
    assert not env_params or COMMANDS[name].takes_env_params
    if "squared" in rest:  # the recipe's word: the package does not know it
        return
    if name == "train" and given.get("env", "ENV") not in ("ENV", "RUN"):
        settings = find_settings(given, env_params)
        validate(settings.config, settings.hyper)
    if name == "sweep" and given.get("axes"):
        axes.check(axes.parse(given["axes"]), read_options(given))


@pytest.mark.usefixtures("settings_files")
def test_the_settings_files_of_the_documents_are_read_whole() -> None:
    given = {"env": "Pendulum-v1", "config": "my.toml"}
    settings = find_settings(given, {})
    assert settings.config.minibatch_size == 64  # as the comment in the file has it
    assert str(settings.hyper.learning_rate) == "0.001:0"
    assert settings.hyper.env == {"g": 9.81}
    assert settings.options.seeds == 4
    settings = find_settings({"env": "Acrobot-v1", "preset": "mine.toml"}, {})
    assert (settings.config.num_envs, settings.config.total_env_steps) == (16, 100_000)


def test_the_fields_that_are_made_small_are_settings() -> None:
    assert set(TINY) <= set(Config.__dataclass_fields__) | set(Hyper.__dataclass_fields__)
