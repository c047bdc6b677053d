"""The settings that a command line stands for: flags, file, preset, default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ppo_jax.cli import main
from ppo_jax.cli.parser import join_negative_numbers, split_env_params
from ppo_jax.cli.settings import find_settings
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def chosen(command: str) -> Any:
    """The settings that a `train` command line stands for."""
    return chosen_words(*command.split())


def chosen_words(*words: str) -> Any:
    return find_settings(*main.COMMANDS["train"].parser(words).read(words))


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
