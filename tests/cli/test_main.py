"""The command line: output, streams and exit codes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_jax.cli import main
from ppo_jax.cli.parser import COMMON, join_negative_numbers, split_env_params
from ppo_jax.cli.settings import find_settings
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import FIELDS
from ppo_jax.config.options import RunOptions, validate_options
from ppo_jax.config.validate import validate
from ppo_jax.runtime import signals


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def chosen(command: str) -> Any:
    """The settings that a `train` command line stands for."""
    return chosen_words(*command.split())


def chosen_words(*words: str) -> Any:
    return find_settings(*main.COMMANDS["train"].parser(words).read(words))


# --- bad input -----------------------------------------------------------------------------------

BAD = [
    # unknown environment, command, option, word
    ("train CartPol-v1", "Nearest: CartPole-v1"),
    ("train", "needs an environment"),
    ("trian CartPole-v1", "Nearest: train"),
    ("train CartPole-v1 --num-env 4", "Nearest: --num-envs"),
    ("train CartPole-v1 --num_envs 4", "Nearest: --num-envs"),
    ("train CartPole-v1 --lr 1e-3", "Its name here: --learning-rate"),
    ("train CartPole-v1 --num", "--num is no option"),
    ("train CartPole-v1 Pendulum-v1", "one word too many"),
    ("train CartPole-v1 --objective clap", "Nearest: clip"),
    ("train CartPole-v1 --policy gaus", "Nearest: gaussian"),
    ("train CartPole-v1 --policy-mode det", "deterministic, sampled"),
    ("train CartPole-v1 --platform cup", "Nearest: cpu"),
    ("train CartPole-v1 --preset CartPole", "Nearest: CartPole-v1"),
    ("train CartPole-v1 --preset a2c --objective clip", "no preset 'a2c' for objective clip"),
    # wrong type, missing or superfluous value
    ("train CartPole-v1 --num-envs many", "num_envs='many' must be a whole number"),
    ("train CartPole-v1 --num-envs 1.5", "num_envs='1.5' must be a whole number"),
    ("train CartPole-v1 --num-envs", "--num-envs needs a value"),
    ("train CartPole-v1 --num-envs --seeds 2", "--num-envs needs a value"),
    ("train CartPole-v1 --json=yes", "--json takes no value"),
    ("train CartPole-v1 --clip-epsilon 1e400", "clip_epsilon='1e400' is not a number"),
    ("train CartPole-v1 --learning-rate high", "learning_rate='high' is not a number"),
    ("train CartPole-v1 --learning-rate 1:2:sine", "START:END:cosine"),
    ("train CartPole-v1 --hidden-sizes 64x64", "hidden_sizes="),
    ("train CartPole-v1 --stop-at-return best", "stop_at_return='best'"),
    ("train CartPole-v1 --env.length long", "env.length='long' must be a number"),
    ("train CartPole-v1 --env.length", "--env.length needs a name and a value"),
    ("train CartPole-v1 --env. 3", "needs a name and a value"),
    # sizes and ranges
    ("train CartPole-v1 --num-envs 0", "num_envs=0 must be"),
    ("train CartPole-v1 --rollout-length -5", "rollout_length=-5 must be"),
    ("train CartPole-v1 --hidden-sizes 0", "hidden_sizes=(0,)"),
    ("train CartPole-v1 --num-envs 1e9", "num_envs=1000000000 must be at most 16777216"),
    ("train CartPole-v1 --optimizer adm", "Nearest: adam"),
    ("train CartPole-v1 --seeds 0", "seeds=0 must be"),
    ("train CartPole-v1 --seeds 1e9", "seeds=1000000000 must be at most 1048576"),
    ("train CartPole-v1 --seed -1", "seed=-1 must be"),
    ("train CartPole-v1 --devices 0", "devices=0 must be"),
    ("train CartPole-v1 --eval-episodes 0", "eval_episodes=0 must be"),
    ("train CartPole-v1 --gamma 1.5", "gamma=1.5 must be"),
    ("train CartPole-v1 --log-std-init nan:-inf", "log_std_init=nan must be"),
    ("train CartPole-v1 --learning-rate inf", "learning_rate=inf must be finite"),
    ("train CartPole-v1 --num-minibatches 7", "nearest number that does is 8"),
    ("train CartPole-v1 --total-env-steps 255", "raise it to 256"),
    ("train CartPole-v1 --memory gru --shuffle samples", "leave it out, or take env-rows"),
    ("train CartPole-v1 --memory gru --memory-size 0", "memory_size=0 must be"),
    # files and folders
    ("train CartPole-v1 --config nowhere.json", "No such file"),
    ("train CartPole-v1 --config bad.yaml", "'bad.yaml' is no YAML: it has an alias (*name)"),
    ("train CartPole-v1 --config preset.toml", "is a preset: give it with --preset preset.toml"),
    (
        "train CartPole-v1 --preset flat.toml",
        "no preset: give it with --config flat.toml",
    ),
    ("train CartPole-v1 --config .", "cannot be read"),
    ("train CartPole-v1 --preset nowhere.toml", "No such file"),
    ("train CartPole-v1 --preset CartPole-v1 --no-preset", "exclude each other"),
    ("train CartPole-v1 --out=", "out is empty"),
    ("export run --out=", "out is empty"),
    ("replay run --out=", "out is empty"),
    ("report run --out=", "out is empty"),
    ("train CartPole-v1 --out full", "exists and is not empty"),
    ("train CartPole-v1 --out full/file", "is a file"),
    ("eval", "There is no run in 'runs'"),
    ("eval .", "holds runs and is none itself: name one of them, for example ppo-jax eval run"),
    ("watch run --out film.avi", "must end in .gif or .mp4"),
    ("watch run --member -1", "member=-1 must be at least 0"),
    ("diff run", "diff compares two runs, and 1 are named"),
    ("runs nowhere", "is no folder"),
    ("completion tcsh", "completion needs the name of a shell: bash, zsh, fish"),
    ("enjoy run", "Its name here: watch"),
    # other programs' words
    ("train CartPole-v1 --objective a2c", "--preset a2c has these settings"),
    ("train CartPole-v1 --algo ppo", "Its name here: --objective"),
    ("train CartPole-v1 --n-envs 4", "Its name here: --num-envs"),
    ("train CartPole-v1 --batch-size 64", "8 x 32 / 64 = 4, so give --num-minibatches 4"),
    ("train CartPole-v1 --num-envs 16 --batch-size=60", "about 8, so give --num-minibatches 8"),
    ("train CartPole-v1 --env-id Acrobot-v1", "has no flag: ppo-jax train Acrobot-v1"),
    ("resume run --learning-rate 1", "ppo-jax train ENV --init-from RUN --learning-rate VALUE"),
    ("sweep CartPole-v1 lrr=1,2", "Nearest: learning_rate"),
    ("sweep full", "is a folder without a sweep"),
    ("eval nowhere", "no run's folder"),
    ("eval swept", "is a sweep's folder, not a run's"),
    ("eval run --episodes 0", "eval_episodes=0 must be"),
    ("eval run --policy-mode best", "policy_mode='best' is not one of"),
    ("eval run --video film.avi", "must end in .gif or .mp4"),
    ("train CartPole-v1 --resume auto", "name it with --out"),
    ("train CartPole-v1 --resume always", "never, auto"),
    ("train CartPole-v1 --max-seconds 0", "max_seconds=0.0 must be"),
    ("resume", "There is no run in 'runs'"),
    ("resume nowhere", "no run's folder"),
    ("resume run --keep 0", "keep=0 must be"),
    ("resume run --gamma 0.9", "--gamma is no option"),
    ("resume run --total-env-steps many", "total_env_steps='many' must be"),
    ("resume run", "is damaged"),
    ("envs --all", "--all is no option"),
    ("presets CartPole", "Nearest: CartPole-v1"),
    ("presets CartPole-v1 Acrobot-v1", "one word too many"),
    ("doctor --env.length 3", "--env.length is no option"),
]


@pytest.fixture
def _folders(tmp_path: Path) -> None:
    for name in ("full/file", "run/config.json", "swept/sweep.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}", "utf-8")
    (tmp_path / "bad.yaml").write_text("num_envs: &n 4\nseeds: *n\n", "utf-8")
    (tmp_path / "preset.toml").write_text("[clip.config]\nnum_envs = 4\n", "utf-8")
    (tmp_path / "flat.toml").write_text("[config]\nnum_envs = 4\n", "utf-8")


@pytest.mark.usefixtures("_folders")
@pytest.mark.parametrize("command, word", BAD)
def test_bad_input_is_one_sentence_with_exit_code_2_and_nothing_written(
    command: str, word: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main.main(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert word in err
    assert err.startswith("ppo-jax: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("_folders")
@pytest.mark.parametrize("command, word", BAD[:-1:6])
def test_error_is_a_json_object_on_stdout_when_asked(
    command: str, word: str, capsys: pytest.CaptureFixture
) -> None:
    assert main.main([*command.split(), "--json"]) == 2
    out, err = capsys.readouterr()
    assert list(json.loads(out)) == ["error"]
    assert word in json.loads(out)["error"]
    assert err == ""


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"num_env": 3}', '{"num_envs": "x"}', "\x00", "[" * 100_000]
)
def test_bad_settings_file_is_refused_by_name(text: str, capsys: pytest.CaptureFixture) -> None:
    Path("bad.json").write_text(text, "utf-8")
    assert main.main(["train", "CartPole-v1", "--config", "bad.json"]) == 2
    assert "Traceback" not in capsys.readouterr().err


FLAGS = [f"--{name.replace('_', '-')}" for name in FIELDS]
WORDS = ["CartPole-v1", "", "-", "--", "--=", "-1", "1e6", "nan", "inf", "a:b", "1:2", "64,64", "µ"]
MORE = ["--config", "--preset", "--no-preset", "--env.x", "--env.", "--no-quiet", "--json=", "-x"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*FLAGS, *WORDS, *MORE]) | st.text(max_size=4), max_size=6))
def test_no_words_whatever_end_in_anything_but_settings_or_a_sentence(words: list[str]) -> None:
    with contextlib.suppress(InputError):
        read = find_settings(*main.COMMANDS["train"].parser(words).read(words))
        validate(read.config, read.hyper)
        validate_options(read.options)


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["train", "CartPole-v1", "--num-envs", "0", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


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


# --- precedence ----------------------------------------------------------------------------------


def test_bare_command_takes_the_environments_preset() -> None:
    run = chosen("CartPole-v1")
    assert run.config.num_epochs == 20
    assert run.sources["num_epochs"] == "preset CartPole-v1"


def test_no_preset_starts_from_the_defaults() -> None:
    run = chosen("CartPole-v1 --no-preset")
    assert run.config == Config(env="CartPole-v1")
    assert run.hyper == Hyper()


def test_environment_or_objective_without_a_preset_runs_on_defaults() -> None:
    assert chosen("probe:reward-lag --num-envs 8").config == Config(env="probe:reward-lag")
    assert chosen("CartPole-v1 --objective spo").config == Config(objective="spo")


def test_flag_wins_over_file_over_preset_over_default() -> None:
    # preset: 8 environments, 32 steps, 20 epochs; default shuffle
    Path("s.json").write_text('{"rollout-length": 64, "num_epochs": 3, "gamma": "0.5:1"}', "utf-8")
    run = chosen("CartPole-v1 --config s.json --num-epochs 2 --learning-rate 1e-4")
    assert run.config.num_envs == 8
    assert run.config.rollout_length == 64
    assert run.config.num_epochs == 2
    assert run.config.shuffle == Config().shuffle
    assert run.hyper.gamma == Schedule(0.5, 1.0)
    assert run.hyper.learning_rate == 1e-4
    assert run.hyper.gae_lambda == 0.8


def test_flag_equal_to_the_default_still_wins_over_the_preset() -> None:
    assert Config().num_epochs == 4
    assert chosen("CartPole-v1 --num-epochs 4").config.num_epochs == 4


def test_switch_can_be_turned_off_again() -> None:
    assert chosen("Acrobot-v1").config.normalize_rewards is True
    assert chosen("Acrobot-v1 --no-normalize-rewards").config.normalize_rewards is False


def test_objective_of_the_file_picks_the_preset() -> None:
    Path("s.toml").write_text('objective = "pg"\n', "utf-8")
    run = chosen("CartPole-v1 --config s.toml")
    assert run.config == Config(objective="pg")


def test_preset_a2c_brings_its_objective_to_any_environment() -> None:
    run = chosen("Acrobot-v1 --preset a2c")
    assert (run.config.env, run.config.objective) == ("Acrobot-v1", "pg")
    assert (run.config.num_epochs, run.config.num_minibatches) == (1, 1)
    assert run.sources["num_epochs"] == "preset a2c"


def test_preset_of_another_environment_keeps_the_one_that_was_named() -> None:
    run = chosen("Catch-bsuite --preset CartPole-v1")
    assert run.config.env == "Catch-bsuite"
    assert run.config.num_epochs == 20


def test_ppo_is_the_word_for_clip_everywhere() -> None:
    Path("s.yaml").write_text("objective: PPO-Penalty\nkl_target: 1e-2\n", "utf-8")
    run = chosen("CartPole-v1 --config s.yaml")
    assert (run.config.objective, run.hyper.kl_target) == ("kl", 0.01)
    assert chosen("CartPole-v1 --objective ppo") == chosen("CartPole-v1 --objective clip")
    assert Config(objective="ppo") == Config()


def test_numbers_may_have_units() -> None:
    run = chosen("CartPole-v1 --total-env-steps 1.1M --num-envs 1k --kl-coef 2k --env.x 1.5k")
    assert (run.config.total_env_steps, run.config.num_envs) == (1_100_000, 1000)
    assert (run.hyper.kl_coef, run.hyper.env) == (2000.0, {"x": 1500})
    for text in ("1m", "M", "1e3k", "1 k"):
        with pytest.raises(InputError, match="num_envs="):
            chosen_words("CartPole-v1", "--num-envs", text)


@pytest.mark.parametrize(
    "words",
    [
        "Pendulum-v1 --seeds 3 --policy-mode sampled --learning-rate 0.1234567891:1e-9:cosine",
        "CartPole-v1 --objective trpo --env.length 0.7 --hidden-sizes 8,9 --kl-stop inf --out a/ü",
        "tiny:Walk --max-seconds 1.5 --stop-at-return -3 --quiet",
    ],
)
def test_printed_settings_are_read_back_to_the_same(
    words: str, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(["train", *words.split(), "--print-config"]) == 0
    Path("my.toml").write_text(capsys.readouterr().out, "utf-8")
    assert chosen("--config my.toml")[:3] == chosen(words)[:3]
    assert sorted(Path().iterdir()) == [Path("my.toml")]


def test_a_printed_preset_is_a_settings_file(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["presets", "CartPole-v1", "--objective", "trpo"]) == 0
    text = capsys.readouterr().out
    assert "# other objectives of this preset: clip" in text
    Path("my.toml").write_text(text, "utf-8")
    wanted = chosen("CartPole-v1 --objective trpo")
    assert chosen("--config my.toml --no-preset")[:2] == wanted[:2]


def test_environment_of_a_file_that_is_not_taken_is_named() -> None:
    Path("s.toml").write_text('env = "Pendulum-v1"\nnum_envs = 4\n', "utf-8")
    run = chosen("CartPole-v1 --config s.toml")
    assert run.sources["num_envs"] == "s.toml (without its env Pendulum-v1)"


def test_record_of_a_run_is_a_settings_file_but_does_not_take_its_folder() -> None:
    record = {
        "format": 1,
        "config": {"env": "Catch-bsuite", "num_envs": 4, "network": None},
        "hyper": {"gamma": 0.9, "kl_stop": "inf", "env": {"x": 1}},
        "options": {"out": "runs/old", "seeds": 3, "devices": None},
        "notes": "more",
    }
    Path("config.json").write_text(json.dumps(record), "utf-8")
    run = chosen("--config config.json --seed 5")
    assert run.config.env == "Catch-bsuite"
    assert run.hyper.env == {"x": 1}
    assert run.options == RunOptions(seeds=3, seed=5)


def test_environment_parameters_are_collected() -> None:
    run = chosen("CartPole-v1 --env.length 0.7 --env.gravity=9 --env.x -1e-3 --seeds 2")
    assert run.hyper.env == {"length": 0.7, "gravity": 9, "x": -1e-3}
    assert run.options.seeds == 2


def test_negative_numbers_and_schedules_are_values_not_flags() -> None:
    run = chosen("CartPole-v1 --log-std-init -1e-3:-3.2 --stop-at-return -80.5")
    assert run.hyper.log_std_init == Schedule(-1e-3, -3.2)
    assert run.options.stop_at_return == -80.5
    assert join_negative_numbers(["--a", "-1", "--b=2", "-3"]) == ["--a=-1", "--b=2", "-3"]


def test_words_around_environment_parameters_stay_in_order() -> None:
    rest, params = split_env_params(["a", "--env.x", "1", "--b", "--env.y-z=2", "c"])
    assert rest == ["a", "--b", "c"]
    assert params == {"x": "1", "y_z": "2"}


def test_the_last_of_two_values_counts_and_a_note_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = chosen("CartPole-v1 --num-envs 4 --num-envs=8 --env.length 1 --env.length 2 --seeds 3")
    assert (run.config.num_envs, run.hyper.env, run.options.seeds) == (8, {"length": 2}, 3)
    notes = capsys.readouterr().err
    assert "note: --num-envs is given twice; the last value counts\n" in notes
    assert "note: --env.length is given twice" in notes
    assert "--seeds" not in notes
    chosen("CartPole-v1 --normalize-rewards --normalize-rewards")
    assert capsys.readouterr().err == ""


# --- help and lists ------------------------------------------------------------------------------


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
    assert "step size of the optimiser [default: 0.0003]" in text


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


# --- end to end ----------------------------------------------------------------------------------

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
