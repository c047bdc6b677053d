"""Commands that find runs: the list, the newest one, differences, an episode, tab completion."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppo_jax.analysis.terminal import picture, sparkline
from ppo_jax.apps.run import watch
from ppo_jax.apps.run.evaluate import evaluate
from ppo_jax.cli import main
from ppo_jax.cli.commands import completion
from ppo_jax.cli.commands.table import COMMANDS
from ppo_jax.config.errors import InputError
from ppo_jax.runtime import frames
from ppo_jax.storage import checkpoint, checkpoint_list, lock, run_list


@pytest.fixture
def runs(walked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three copies of a run: done, stopped and killed, of which the last is the newest."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("done", "stopped", "killed"), 1):
        folder = Path("runs") / name
        shutil.copytree(walked.folder, folder)
        if name == "stopped":
            summary = json.loads((folder / "summary.json").read_text("utf-8"))
            text = json.dumps({**summary, "stopped_by": "SIGTERM"})
            (folder / "summary.json").write_text(text, "utf-8")
        if name == "killed":
            (folder / "summary.json").unlink()
            config = json.loads((folder / "config.json").read_text("utf-8"))
            config["hyper"]["gamma"] = 0.5
            (folder / "config.json").write_text(json.dumps(config), "utf-8")
        for file in folder.iterdir():
            os.utime(file, (1e9 + number, 1e9 + number))
    return Path("runs")


def test_a_run_of_somebody_else_is_listed_whatever_its_files_hold(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((runs / "killed" / "config.json").read_text("utf-8"))
    config["config"]["env"] = "\x1b]0;title\x07two\nlines"
    (runs / "killed" / "config.json").write_text(json.dumps(config), "utf-8")
    (runs / "killed" / "timing.jsonl").write_text("[" * 200_000 + "\n", "utf-8")
    (runs / "done" / "timing.jsonl").unlink()
    (runs / "done" / "timing.jsonl").symlink_to("/dev/zero")
    big = json.dumps({"episode_return": [10**400]}) + "\n"
    (runs / "stopped" / "metrics.jsonl").write_text(big, "utf-8")
    assert main.main(["runs"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert "\\x1b]0;title\\x07two lines" in lines[1]
    assert len(lines) == 7


def test_runs_are_listed_newest_first_with_their_state(runs: Path, capsys: Any) -> None:
    assert main.main(["runs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert [(row["run"], row["state"]) for row in rows] == [
        ("runs/killed", "killed"),
        ("runs/stopped", "stopped"),
        ("runs/done", "done"),
    ]
    assert [(row["env"], row["seeds"], row["env_steps"]) for row in rows] == [
        ("tiny:Walk", 3, 224)
    ] * 3
    assert rows[0]["score"] is None
    assert rows[0]["training_return"] is not None
    assert rows[2]["score"] is not None
    with lock.held(runs / "stopped"):
        assert run_list.describe(runs / "stopped").state == "training"
    (runs / "done" / "config.json").write_text("{", "utf-8")
    assert run_list.describe(runs / "done").state == "damaged"
    assert main.main(["runs"]) == 0
    assert "runs/killed   killed" in capsys.readouterr().out


def test_a_command_without_a_run_takes_the_newest_and_names_it(runs: Path, capsys: Any) -> None:
    (runs / "killed" / "config.json").write_text("{}", "utf-8")  # so that nothing is played
    assert main.main(["eval"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("run: runs/killed (the newest one)\n")
    assert "'runs/killed/config.json' is damaged" in err


def test_two_runs_differ_in_what_was_changed(runs: Path, capsys: Any) -> None:
    assert main.main(["diff", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == ["runs/stopped", "runs/killed"]
    (change,) = found["settings"].items()
    assert (change[0], change[1][1]) == ("gamma", 0.5)
    assert main.main(["diff", "runs/done", "runs/stopped"]) == 0
    assert ["settings", "the", "same", "the", "same"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]


def test_an_episode_is_written_and_told(
    swung: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from PIL import Image

    monkeypatch.setattr(frames, "MAX_FRAMES", 6)
    words = ["watch", str(swung.folder), "--member", "0", "--out", str(tmp_path / "a.gif")]
    assert main.main(words) == 0
    out = capsys.readouterr().out
    assert "in 6 steps, cut there" in out
    assert "seed 0 (member 0), deterministic" in out
    with Image.open(tmp_path / "a.gif") as drawn:
        assert drawn.n_frames == 7
    assert main.main([*words, "--member", "9"]) == 2


def test_an_episode_of_an_earlier_checkpoint_keeps_its_file_name(
    swung: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(frames, "MAX_FRAMES", 6)
    run = tmp_path / "run"
    shutil.copytree(swung.folder, run)
    found = {}
    for choice in ("newest", "16", "0"):
        assert main.main(["watch", str(run), "--checkpoint", choice, "--json"]) == 0
        found[choice] = json.loads(capsys.readouterr().out)
        assert found[choice]["video"] == str(run / "episode-0.gif")
    assert found["newest"] == found["16"]
    assert (found["16"]["env_steps"], found["0"]["env_steps"]) == (16, 0)
    assert found["16"]["episode_return"] != found["0"]["episode_return"]
    assert main.main(["watch", str(run), "--checkpoint", "best"]) == 2
    assert "train with --eval-every, or take 'newest'" in capsys.readouterr().err


def test_the_seed_of_an_episode_is_the_best_of_its_checkpoint(peaked: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(peaked.folder, run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    rows[0]["eval_return"], rows[1]["eval_return"] = [-3.0, None, -2.0], [-3.0, -1.0, -2.0]
    del rows[2]["eval_return"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    final = peaked.summary["final_return"]["per_seed"]
    last = final.index(max(final))
    steps = [row["env_steps"] for row in rows]
    assert [watch.best_seed(run, at) for at in (*steps[:3], steps[-1])] == [2, 1, last, last]
    (run / "summary.json").unlink()
    assert [watch.best_seed(run, at) for at in (steps[0], steps[2])] == [2, 0]
    (run / "metrics.jsonl").write_text("[]\n", "utf-8")
    assert watch.best_seed(run, steps[0]) == 0


@pytest.mark.parametrize("command", ["eval", "export"])
def test_a_command_reads_the_checkpoint_of_its_flag(
    peaked: Any, tmp_path: Path, capsys: Any, command: str
) -> None:
    best = checkpoint_list.best(peaked.folder)
    assert best is not None
    own = ["--episodes", "4"] if command == "eval" else ["--out", str(tmp_path / "policy")]
    words = [command, str(peaked.folder), *own, "--checkpoint", "best", "--json"]
    assert main.main(words) == 0
    steps = json.loads(capsys.readouterr().out)["env_steps"]
    assert checkpoint.checkpoint_folder(peaked.folder, steps) == best


def test_one_seed_is_evaluated_as_among_all(walked: Any) -> None:
    every = walked.summary["final_return"]["per_seed"]
    one = evaluate(walked.folder, episodes=walked.summary["episodes_per_seed"], member=1)
    assert (one["num_seeds"], one["final_return"]["per_seed"]) == (1, [pytest.approx(every[1])])
    with pytest.raises(InputError, match="member=9 is not among"):
        evaluate(walked.folder, member=9)


@pytest.mark.parametrize(
    "words, some, none",
    [
        ("tr", ["train"], "sweep"),
        ("help re", ["report", "resume", "replay", "reproduce"], "train"),
        ("train CartP", ["CartPole-v1"], "Pendulum-v1"),
        ("train CartPole-v1 --obj", ["--objective"], "--seeds"),
        ("train CartPole-v1 --objective c", ["clip"], "pg"),
        ("train CartPole-v1 --objective=c", ["--objective=clip"], "--objective=pg"),
        ("train CartPole-v1 --preset a2", ["a2c"], "CartPole-v1"),
        ("train CartPole-v1 --seeds ", [], "CartPole-v1"),
        ("watch runs/", ["runs/killed", "runs/stopped", "runs/done"], "train"),
        ("watch runs/done --checkpoint ", ["newest", "best"], "train"),
        ("completion ", ["bash", "zsh", "fish"], "train"),
        ("no-command ", [], "train"),
    ],
)
def test_words_are_completed(runs: Path, words: str, some: list[str], none: str) -> None:
    *before, current = words.split(" ")
    found = completion.complete(COMMANDS, current, before)
    assert found[: len(some)] == some or set(some) <= set(found)
    assert none not in found
    assert bool(found) == bool(some)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_asks_for_the_words(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert main.main(["completion", shell]) == 0
    assert completion.VARIABLE in capsys.readouterr().out
    monkeypatch.setenv(completion.VARIABLE, "wa\n")
    assert main.main(["completion", "words"]) == 0
    assert capsys.readouterr().out == "\n"  # the word before is empty, which is no command
    monkeypatch.setenv(completion.VARIABLE, "wa")
    assert main.main(["completion", "words"]) == 0
    assert capsys.readouterr().out == "watch\n"


def test_a_picture_of_two_pixels_a_sign() -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    frame[:2] = (255, 0, 0)
    assert picture(frame, 4, 9, "truecolor") == [
        "\x1b[38;2;255;0;0;48;2;255;0;0m▀" * 4 + "\x1b[0m",
        "\x1b[38;2;0;0;0;48;2;0;0;0m▀" * 4 + "\x1b[0m",
    ]
    assert picture(frame, 4, 9, "256")[0].startswith("\x1b[38;5;196;48;5;196m▀")
    assert picture(np.full((4, 4, 3), 255, np.uint8), 4, 9, None) == ["", ""]
    assert len(picture(np.zeros((90, 300, 3), np.uint8), 60, 99, None)) == 9


def test_a_curve_of_one_line() -> None:
    assert sparkline([0.0, None, 1.0, float("nan"), 0.5]) == "▁█▅"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([1.0]) == ""
    assert len(sparkline(list(range(100)))) == 16
