"""From texts and files to settings: types, names, precedence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ppo_jax.config.config import Config, Hyper, Schedule, hint
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import BEFORE, FIELDS, Layer, file_layer, resolve, with_new_fields
from ppo_jax.config.options import RunOptions
from ppo_jax.storage import run_folder
from ppo_jax.storage.files import to_json


def one(name: str, value: Any) -> Any:
    settings = resolve([Layer("flag", {name: value}, {})])
    for part in (settings.config, settings.hyper, settings.options):
        if type(part) is FIELDS[name][0]:
            return getattr(part, name)
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name, value, read",
    [
        ("num_envs", "16", 16),
        ("total_env_steps", "1e6", 1_000_000),
        ("total_env_steps", "1_000_000", 1_000_000),
        ("total_env_steps", 2.5e3, 2500),
        ("gsde_resample_steps", "-1", -1),
        ("hidden_sizes", "64,64", (64, 64)),
        ("hidden_sizes", "256", (256,)),
        ("hidden_sizes", [32, 16], (32, 16)),
        ("shared_torso", True, True),
        ("shared_torso", "false", False),
        ("learning_rate", "1e-3:0:cosine", Schedule(1e-3, 0.0, 1.0)),
        ("gamma", 1, 1.0),
        ("learning_rate", {"start": 1.0, "end": 0.5}, Schedule(1.0, 0.5, 0.0)),
        ("value_clip_epsilon", "inf", float("inf")),
        ("devices", "auto", None),
        ("devices", "2", 2),
        ("stop_at_return", "475", 475.0),
        ("platform", None, None),
        ("out", "runs/a b", "runs/a b"),
    ],
)
def test_values_are_read_as_their_fields_type(name: str, value: Any, read: Any) -> None:
    got = one(name, value)
    assert got == read
    assert type(got) is type(read)


@pytest.mark.parametrize(
    "name, value",
    [
        ("num_envs", "1.5"),
        ("num_envs", "many"),
        ("num_envs", "inf"),
        ("num_envs", "nan"),
        ("num_envs", True),
        ("num_envs", None),
        ("num_envs", ""),
        ("num_envs", [8]),
        ("hidden_sizes", "64;64"),
        ("hidden_sizes", "64,1.5"),
        ("shared_torso", "maybe"),
        ("shared_torso", 3),
        ("objective", 3),
        ("gamma", True),
        ("gamma", [0.9]),
        ("gamma", None),
        ("gamma", {"start": 1.0}),
        ("stop_at_return", "1:2"),
        ("stop_at_return", "high"),
    ],
)
def test_value_of_the_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        one(name, value)
    assert str(caught.value).startswith(f"{name}=")


def test_later_layers_win_name_by_name_and_say_so() -> None:
    settings = resolve(
        [
            Layer("preset x", {"num_envs": 4, "gamma": 0.9, "num_epochs": 2}, {"a": 1, "b": 1}),
            Layer("f.json", {"num_envs": 5, "gamma": "0.8"}, {"b": 2}),
            Layer("flag", {"num_envs": "6"}, {"c": "3"}),
        ]
    )
    assert (settings.config.num_envs, settings.config.num_epochs) == (6, 2)
    assert settings.hyper.gamma == 0.8
    assert settings.hyper.gae_lambda == Hyper().gae_lambda
    assert settings.hyper.env == {"a": 1, "b": 2, "c": 3}
    assert settings.sources == {
        "num_envs": "flag",
        "gamma": "f.json",
        "num_epochs": "preset x",
        "env.a": "preset x",
        "env.b": "f.json",
        "env.c": "flag",
    }


def test_no_layer_gives_the_defaults() -> None:
    assert resolve([])[:2] == (Config(), Hyper())


def test_a_word_for_a_suites_environment_is_left_to_its_adapter() -> None:
    def read(env: str) -> Any:
        return resolve([Layer("flag", {"env": env}, {"x": "spring", "y": "3"})]).hyper.env

    assert read("brax/ant") == {"x": "spring", "y": 3}
    for env in ("CartPole-v1", "my.module:Ant", "gymnax:a/b"):
        with pytest.raises(InputError, match=r"env.x='spring' must be a number, true, false or"):
            read(env)
    with pytest.raises(InputError, match="must be a number, true, false or"):
        resolve([Layer("f.json", {"env": "brax/ant"}, {"x": [None]})])


@pytest.mark.parametrize(
    "value, read",
    [
        *(("3", 3), ("0.7", 0.7), ("-1e-3", -1e-3), (2, 2), (" 1_000 ", 1000), ("inf", math.inf)),
        *(("true", True), ("False", False), (True, True), ("9" * 400, 10**400 - 1)),
        *(("[1, 2.5]", [1, 2.5]), ("1,2", [1, 2]), ("[[1],[true]]", [[1], [True]]), ("[]", [])),
        *(([1, "2"], [1, 2]), ((0.5,), [0.5]), (np.float32(0.5), 0.5), (np.arange(2), [0, 1])),
    ],
)
def test_environment_parameters_stay_whole_where_they_are_written_so(value: Any, read: Any) -> None:
    got = resolve([Layer("flag", {}, {"x": value})]).hyper.env["x"]
    assert got == read
    assert type(got) is type(read)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "long",
            "",
            None,
            "1:2",
            "1,",
            "[1,]",
            "[1",
            "1e400",
            "1e-400",
            "9" * 5000,
            '{"a": 1}',
            "null",
        ),
        *("[" * 3000, "[" * 3000 + "1" + "]" * 3000, [None], {1}, "0x10"),
    ],
)
def test_environment_parameter_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"^env\.length="):
        resolve([Layer("flag", {}, {"length": value})])


def test_tables_of_environment_parameters_are_joined_by_dots() -> None:
    table = {"env": {"physics": {"gravity": 9, "air": {"drag-coef": 0.5}}, "n": 3}}
    content = {"hyper": table, "config": {"env": "Pendulum-v1"}}
    flag = Layer("flag", {}, {"physics.gravity": "8"})
    settings = resolve([file_layer("my.toml", content), flag])
    assert settings.hyper.env == {"physics.gravity": 8, "physics.air.drag_coef": 0.5, "n": 3}
    for content in ({"hyper": {"env": 5}}, {"hyper": {"env": []}}, {"hyper": []}, {"config": 5}):
        with pytest.raises(InputError, match="must be a table"):
            resolve([file_layer("my.toml", content)])


def test_unknown_name_is_refused_with_its_source_and_the_nearest() -> None:
    with pytest.raises(InputError, match=r"^my\.toml: 'num_env' is not.*Nearest: num_envs"):
        resolve([Layer("my.toml", {"num_env": 3}, {})])


@pytest.mark.parametrize(
    "other, own",
    [("lr", "learning_rate"), ("n_steps", "rollout_length"), ("vf_coef", "value_coef")],
)
def test_other_programs_names_lead_to_ours(other: str, own: str) -> None:
    assert hint(other, FIELDS) == f" Its name here: {own}."


@pytest.mark.parametrize(
    "content",
    [
        {"num-envs": 4, "gamma": 0.9, "env": {"length": 0.7}},
        {"config": {"num_envs": 4}, "hyper": {"gamma": 0.9, "env": {"length": 0.7}}},
        {"num_envs": 4, "hyper": {"gamma": 0.9, "env": {"length": 0.7}}},
        {"format": 1, "config": {"num-envs": 4}, "hyper": {"gamma": 0.9, "env": {"length": 0.7}}},
    ],
)
def test_files_may_be_flat_or_in_tables(content: dict[str, Any]) -> None:
    settings = resolve([file_layer("f", content)])
    assert settings.config.num_envs == 4
    assert settings.hyper.gamma == 0.9
    assert settings.hyper.env == {"length": 0.7}


def test_environment_name_in_a_file_is_not_taken_for_its_parameters() -> None:
    layer = file_layer("f", {"config": {"env": "Pendulum-v1"}, "hyper": {"env": {}}})
    assert resolve([layer]).config.env == "Pendulum-v1"


def test_unknown_name_in_a_flat_file_is_refused() -> None:
    with pytest.raises(InputError, match="Its name here: learning_rate"):
        resolve([file_layer("f.toml", {"lr": 1e-3})])


def test_a_record_of_an_earlier_version_gets_the_defaults_of_newer_fields() -> None:
    recorded = {"config": {"env": "Catch-bsuite"}, "hyper": {"gamma": 0.5}, "run_id": "a"}
    completed = with_new_fields(recorded)
    assert completed["run_id"] == "a"
    defaults = run_folder.describe_run(Config(), Hyper(), RunOptions())
    for table, name, value in (("config", "env", "Catch-bsuite"), ("hyper", "gamma", 0.5)):
        expected = {**to_json(defaults[table]), **BEFORE[table], name: value}
        assert completed[table] == expected
    assert completed["config"]["scale_bytes"] is False  # its default was another one then
    assert recorded["hyper"] == {"gamma": 0.5}
