"""`Config` and `Hyper`: derived numbers by hand, refusals as sentences."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppo_jax.config import config
from ppo_jax.config.config import (
    OBJECTIVES,
    TRUST_REGION,
    Config,
    Hyper,
    Schedule,
)
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import parse_number
from ppo_jax.config.options import RunOptions
from ppo_jax.config.validate import validate


def test_budget_is_rounded_up_to_whole_iterations() -> None:
    # 6 x 5 = 30 steps an iteration; 100 / 30 = 3.3, so 4 iterations and 120 steps
    config = Config(total_env_steps=100, num_envs=6, rollout_length=5, num_minibatches=3)
    assert config.batch_size == 30
    assert config.minibatch_size == 10
    assert config.num_iterations == 4
    assert config.trained_env_steps == 120


def test_budget_of_whole_iterations_is_not_rounded() -> None:
    config = Config(total_env_steps=120, num_envs=6, rollout_length=5)
    assert config.num_iterations == 4


def test_counts_of_numpy_are_pythons() -> None:
    config = Config(num_envs=np.int64(4), hidden_sizes=(np.int32(8), 16))
    assert (type(config.num_envs), config.num_envs) == (int, 4)
    assert [type(size) for size in config.hidden_sizes] == [int, int]
    changed = dataclasses.replace(config, total_env_steps=np.array(4096))
    assert changed == Config(num_envs=4, hidden_sizes=(8, 16), total_env_steps=4096)
    options = RunOptions(seeds=np.uint8(3), devices=np.int64(2), out=None)
    assert repr(options) == repr(RunOptions(seeds=3, devices=2))
    for other in (True, np.True_, 4.0, "4", None):
        with pytest.raises(InputError, match=r"num_envs=.* must be a whole number"):
            validate(Config(num_envs=other), Hyper())


def test_config_is_hashable_so_that_it_can_be_static() -> None:
    assert hash(Config()) == hash(Config())
    assert {Config(): 1}[Config()] == 1


@pytest.mark.parametrize(
    "text, number",
    [
        ("0.1", 0.1),
        ("1e-3", 1e-3),
        ("inf", math.inf),
        ("-2", -2.0),
        ("1e-3:0", Schedule(1e-3, 0.0, 0.0)),
        ("1e-3:0:linear", Schedule(1e-3, 0.0, 0.0)),
        ("1e-3:1e-4:cosine", Schedule(1e-3, 1e-4, 1.0)),
    ],
)
def test_numbers_and_schedules_are_read(text: str, number: Any) -> None:
    assert parse_number("x", text) == number


@pytest.mark.parametrize("text", ["", "a", "1:2:3", "1:b", "1:2:cosine:4", "1,5", ":", "1:"])
def test_text_that_is_no_number_is_refused_with_the_spelling(text: str) -> None:
    with pytest.raises(InputError, match="START:END"):
        parse_number("gamma", text)


@pytest.mark.parametrize("schedule", [Schedule(1e-3, 0.0), Schedule(0.5, 0.25, 1.0)])
def test_schedule_is_written_as_it_is_read(schedule: Schedule) -> None:
    assert parse_number("x", str(schedule)) == schedule


def test_every_field_has_help() -> None:
    for spec in (*dataclasses.fields(Config), *dataclasses.fields(Hyper)):
        assert spec.metadata["help"], spec.name


def test_every_word_for_an_objective_has_its_surrogate() -> None:
    from ppo_jax.training.objectives import SURROGATES  # here, as it loads jax

    words = set(OBJECTIVES) - {"drift", *TRUST_REGION}
    assert words == {name for name in SURROGATES if " " not in name}


def test_importing_the_settings_loads_no_jax() -> None:
    folder = Path(config.__file__).parent
    names = ", ".join(f"ppo_jax.config.{path.stem}" for path in folder.glob("[a-z]*.py"))
    assert names.count("ppo_jax.config.") >= 8
    code = f"import sys, {names}; print({{'jax', 'numpy', 'matplotlib'}} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "set()\n"
