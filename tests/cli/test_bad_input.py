"""Bad input on the command line: one sentence, exit code 2, nothing written."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_jax.cli import main
from ppo_jax.cli.settings import find_settings
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import FIELDS
from ppo_jax.config.options import validate_options
from ppo_jax.config.validate import validate


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    ("train memory/Recall-v0 --env.length long", "'length' is no parameter of this environment"),
    ("train memory/Recall-v0 --env.delay long", "env.delay='long' must be a number"),
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
    ("sweep swept gamma=0.9,0.99", "is a sweep's folder, which takes no axes: leave them out"),
    ("sweep lr=3", "'lr=3/sweep.json' is damaged"),
    ("sweep Acrobot-v1 lr=nan..1", "'nan' is not a finite number"),
    (
        "sweep CartPole-v1 lr=1,2 --budget 10000 --total-env-steps 1024",
        "--budget 10000 has nothing to set beside sampler grid",
    ),
    (
        "sweep CartPole-v1 lr=1..2 --sampler pbt --settings 3 --budget 9999 --total-env-steps 1024",
        "beside --settings 3, and --total-env-steps 1024: leave one of them out.",
    ),
    ("eval nowhere", "no run's folder"),
    ("eval swept", "is a sweep's folder, not a run's"),
    ("eval run --episodes 0", "eval_episodes=0 must be"),
    ("eval run --checkpoint bset", "checkpoint='bset' must be newest, best or the environment"),
    ("watch run --checkpoint neweset", "Nearest: newest"),
    ("export run --checkpoint 1.5", "for example 1e6."),
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
    ("presets brax --objective spo", "no preset 'brax' for objective spo"),
    ("train brax/ant --preset brax", "is a suite and no preset: name one of brax/ant, brax/g"),
    ("doctor brax", "is a suite: name one of its environments"),
    ("presets CartPole-v1 Acrobot-v1", "one word too many"),
    ("doctor --env.length 3", "--env.length is no option"),
]


@pytest.fixture
def _folders(tmp_path: Path) -> None:
    folders = ("swept", "lr=3", "Acrobot-v1")  # the last two are an axis and an environment, too
    for name in ("full/file", "run/config.json", *(f"{each}/sweep.json" for each in folders)):
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


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*FLAGS, *WORDS, *MORE]) | st.text(max_size=4), max_size=6))
def test_no_words_whatever_end_in_anything_but_settings_or_a_sentence(words: list[str]) -> None:
    with contextlib.suppress(InputError):
        read = find_settings(*main.COMMANDS["train"].parser(words).read(words))
        validate(read.config, read.hyper)
        validate_options(read.options)


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["train", "CartPole-v1", "--num-envs", "0", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
