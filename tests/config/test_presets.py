"""Presets: every stored one is valid, says where it comes from, and can be found."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ppo_jax.config import presets
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError
from ppo_jax.config.presets import Preset
from ppo_jax.config.validate import validate

ALL = presets.all_presets()


def title(preset: Preset) -> str:
    return f"{preset.name}-{preset.objective}"


@pytest.mark.parametrize("each", ALL, ids=title)
def test_stored_preset_is_valid_and_names_its_source(each: Preset) -> None:
    config, hyper = presets.apply(each)
    validate(config, hyper)
    assert config.env == each.env
    assert config.objective == each.objective
    assert each.source
    assert presets.find(each.name, each.objective) == each


@pytest.mark.parametrize("each", ALL, ids=title)
def test_preset_of_an_environment_is_loaded_by_it_and_no_other_is(each: Preset) -> None:
    if each.name == each.env:
        assert presets.load(each.env, each.objective) == each
    else:
        assert presets.load(each.name, each.objective) is None


@pytest.mark.parametrize("each", ALL, ids=title)
def test_numbers_of_a_preset_come_with_what_they_mean(each: Preset) -> None:
    if each.reference is not None:
        assert {"score", "env_steps", "source"} <= set(each.reference)
    if each.score is not None:
        wanted = {"score", "interval", "seeds", "env_steps", "date", "hardware"}
        assert wanted <= set(each.score)
        low, high = each.score["interval"]
        assert low <= each.score["score"] <= high


def test_cartpole_preset_is_the_published_setting() -> None:
    # rl-zoo: n_envs 8, n_steps 32, batch_size 256, n_epochs 20, lin_0.001, gamma .98, lambda .8
    config, hyper = presets.preset("CartPole-v1")
    assert (config.num_envs, config.rollout_length, config.num_epochs) == (8, 32, 20)
    assert config.minibatch_size == 256
    assert hyper.learning_rate == Schedule(1e-3, 0.0)
    assert (hyper.gamma, hyper.gae_lambda) == (0.98, 0.8)


@pytest.mark.parametrize("name", ["Acrobot-v1", "Pendulum-v1", "MountainCar-v0"])
def test_published_settings_keep_their_minibatches_of_64(name: str) -> None:
    assert presets.preset(name)[0].minibatch_size == 64


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0"])
def test_trpo_presets_have_the_published_budget_and_critic(name: str) -> None:
    # sb3-contrib: the critic in minibatches of 128, learning rate 1e-3, no bound on the gradient
    config, hyper = presets.preset(name, "trpo")
    assert config.total_env_steps == 100_000
    assert config.minibatch_size == 128
    assert (hyper.learning_rate, hyper.max_grad_norm) == (1e-3, math.inf)
    # the loss MSE is 2 x ((1/2) MSE)
    assert hyper.value_coef == 2.0


def test_preset_a2c_takes_one_step_on_each_batch() -> None:
    config, _ = presets.preset("a2c")
    assert config.objective == "pg"
    assert (config.num_epochs, config.num_minibatches) == (1, 1)
    assert config.optimizer == "rmsprop_torch"


def test_objective_of_a_preset_is_its_only_one_or_clip() -> None:
    assert presets.find("a2c").objective == "pg"
    assert presets.find("CartPole-v1").objective == "clip"
    assert presets.find("CartPole-v1", "trpo").objective == "trpo"


def test_preset_leaves_the_rest_at_the_defaults() -> None:
    config, hyper = presets.preset("CartPole-v1")
    assert config.hidden_sizes == Config().hidden_sizes
    assert hyper.adam_epsilon == Hyper().adam_epsilon


def test_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="Nearest: CartPole-v1"):
        presets.preset("CartPole")
    with pytest.raises(InputError, match="objective spo"):
        presets.preset("CartPole-v1", "spo")
    with pytest.raises(InputError, match="objective clip"):
        presets.preset("a2c", "clip")


def test_a_suite_in_place_of_a_preset_is_refused_with_its_presets() -> None:
    with pytest.raises(InputError, match=r"'pgx' is a suite and no preset: name one of pgx/c") as e:
        presets.preset("pgx")
    own = {each.name for each in presets.all_presets() if each.name.startswith("pgx/")}
    assert set(str(e.value).rstrip(".").partition("one of ")[2].split(", ")) == own
    with pytest.raises(InputError, match="for objective pg: name one of jumanji/Snake-v1"):
        presets.preset("jumanji", "pg")
    with pytest.raises(InputError, match="no preset 'pgx' for objective spo"):
        presets.preset("pgx", "spo")


@pytest.mark.parametrize(
    "env", ["Nowhere-v0", "my_module:Env", "suite/name", "../presets", "x" * 500, "\0"]
)
def test_environment_without_a_preset_has_none(env: str) -> None:
    assert presets.load(env) is None


def test_own_file_is_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('env = "Foo"\n[spo.hyper]\ngamma = 0.5\n[spo.config]\nnum_envs = 3\n', "utf-8")
    found = presets.find(str(file), "spo")
    assert presets.find(str(file)) == found
    config, hyper = presets.apply(found)
    assert (config.env, config.objective, config.num_envs) == ("Foo", "spo", 3)
    assert hyper.gamma == 0.5
    with pytest.raises(InputError, match="the objectives in it are spo"):
        presets.find(str(file), "clip")


@pytest.mark.parametrize(
    "text, word",
    [
        ("[clip", "is not TOML"),
        ("[clip]\nhypper = {}", "has no entry 'hypper'"),
        ("[clip.hyper]\ngama = 1", "Nearest: gamma"),
        ("[clip.config]\nnum_envs = 'x'", "num_envs='x'"),
        ("clip = 3", "has no table"),
        ("env = 3\n[clip]\n", "env=3 must be the name"),
        ("[clip]\nhyper = 3", "hyper=3, which is no table"),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        presets.apply(presets.find(str(file)))
    assert word in str(caught.value)


def test_missing_file_is_refused() -> None:
    with pytest.raises(InputError, match="No such file"):
        presets.find("nowhere.toml")


def test_the_optimum_of_the_bernoulli_bandit_is_that_of_the_arm_most_signals_favour() -> None:
    """A reward of the arm that pays with 0.9, or none of the one with 0.1, is a true signal."""
    total = 0.5
    for t in range(1, 100):
        weights = [math.comb(t, k) * 0.9**k * 0.1 ** (t - k) for k in range(t + 1)]
        right = sum(weights[t // 2 + 1 :]) + (0.5 * weights[t // 2] if t % 2 == 0 else 0.0)
        total += 0.9 * right + 0.1 * (1.0 - right)
    [preset] = [each for each in ALL if each.name == "BernoulliBandit-misc"]
    assert preset.reference is not None
    assert preset.reference["score"] == pytest.approx(total, abs=1e-6)
