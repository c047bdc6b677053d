"""Refusals of settings: each is one sentence with the value, the rule and the remedy."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import numpy as np
import pytest

from ppo_jax.config.config import OPTIMIZERS, Config, Hyper, Schedule
from ppo_jax.config.errors import InputError
from ppo_jax.config.validate import nearest_divisor, validate, without_effect


def refusal(config: dict[str, Any] | None = None, hyper: dict[str, Any] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        validate(Config(**(config or {})), Hyper(**(hyper or {})))
    return str(caught.value)


def test_defaults_are_valid() -> None:
    validate(Config(), Hyper())


@pytest.mark.parametrize(
    "name", ["total_env_steps", "num_envs", "rollout_length", "num_epochs", "num_minibatches"]
)
@pytest.mark.parametrize("value", [0, -4, 1.5, True, "8", None])
def test_size_that_is_no_positive_whole_number_is_refused(name: str, value: Any) -> None:
    said = refusal({name: value})
    assert said == f"{name}={value!r} must be a whole number of at least 1."


@pytest.mark.parametrize(
    "name, value, best",
    [
        ("objective", "clipp", "clip"),
        ("policy", "gausian", "gaussian"),
        ("torso", "cn", "cnn"),
        ("activation", "Tahn", "tanh"),
        ("shuffle", "sample", "samples"),
        ("normalize_advantages", "batches", "batch"),
        ("time_limits", "terminate", "termination"),
        ("precision", "bfloat", "bfloat16"),
    ],
)
def test_unknown_word_is_refused_with_the_nearest(name: str, value: str, best: str) -> None:
    said = refusal({name: value})
    assert said.startswith(f"{name}={value!r} is not one of ")
    assert best in said.partition("Nearest: ")[2]


@pytest.mark.parametrize("sizes", [(), (0,), (64, -1), (64, 1.5)])
def test_hidden_sizes_that_name_no_widths_are_refused(sizes: tuple) -> None:
    assert "at least one width" in refusal({"hidden_sizes": sizes})


@pytest.mark.parametrize("steps", [0, -2])
def test_gsde_resample_steps_of_nothing_is_refused(steps: int) -> None:
    assert "at least 1, or -1" in refusal({"gsde_resample_steps": steps})


@pytest.mark.parametrize(
    "minibatches, best",
    # divisors of 8 x 20 = 160: 1 2 4 5 8 10 16 20 32 40 80 160; of two as near, the smaller
    [(7, 8), (3, 2), (24, 20), (150, 160), (161, 160)],
)
def test_minibatches_that_do_not_divide_name_the_nearest_that_does(
    minibatches: int, best: int
) -> None:
    config = {"num_envs": 8, "rollout_length": 20, "num_minibatches": minibatches}
    said = refusal(config)
    assert "does not divide num_envs x rollout_length = 160; " in said
    assert said.endswith(f"the nearest number that does is {best}.")


def test_env_rows_must_divide_the_environments() -> None:
    config = {"num_envs": 6, "rollout_length": 4, "num_minibatches": 4, "shuffle": "env-rows"}
    assert "= 6; the nearest number that does is 3." in refusal(config)
    validate(Config(**{**config, "shuffle": "samples"}), Hyper())


def test_budget_of_less_than_one_iteration_is_refused() -> None:
    config = {"total_env_steps": 1023, "num_envs": 8, "rollout_length": 128}
    assert "raise it to 1024" in refusal(config)
    validate(Config(**{**config, "total_env_steps": 1024}), Hyper())


@pytest.mark.parametrize(
    "name, value",
    [
        ("gamma", 1.01),
        ("gamma", -0.1),
        ("gae_lambda", 2.0),
        ("learning_rate", -1e-3),
        ("clip_epsilon", -0.1),
        ("max_grad_norm", 0.0),
        ("value_coef", -0.5),
        ("kl_stop", 0.0),
        ("entropy_coef", math.nan),
        ("learning_rate", Schedule(1e-3, -1.0)),
        ("gamma", "0.99x"),
        ("gamma", None),
        ("learning_rate", math.inf),
        ("value_coef", math.inf),
        ("trust_region_kl", math.inf),
        ("log_std_init", -math.inf),
        ("log_std_init", math.nan),
    ],
)
def test_number_out_of_its_range_is_refused(name: str, value: Any) -> None:
    said = refusal(hyper={name: value})
    assert said.startswith(f"{name}=")
    assert "must be" in said


@pytest.mark.parametrize(
    "name, value",
    [
        ("gamma", 1.0),
        ("gamma", 0.0),
        ("clip_epsilon", Schedule(0.2, 0.0)),
        ("learning_rate", 0.0),
        ("clip_epsilon", math.inf),
        ("max_grad_norm", math.inf),
        ("log_std_init", -3.29),
        ("learning_rate", Schedule(1e-3, 0.0)),
    ],
)
def test_ends_of_the_ranges_are_allowed(name: str, value: Any) -> None:
    validate(Config(), Hyper(**{name: value}))


def test_the_length_of_the_schedules_has_no_schedule() -> None:
    said = refusal(hyper={"schedule_env_steps": Schedule(100.0, 200.0)})
    assert said.startswith("schedule_env_steps=100:200 is the length of the schedules")


@pytest.mark.parametrize("epsilon", [0.0, Schedule(0.2, 0.0), Schedule(0, 0.2)])
def test_the_drift_of_spo_divides_by_epsilon(epsilon: Any) -> None:
    said = refusal({"objective": "spo"}, {"clip_epsilon": epsilon})
    assert "must be more than 0 with objective spo" in said
    validate(Config(objective="clip"), Hyper(clip_epsilon=epsilon))


def test_a_single_advantage_is_not_standardised_to_nothing() -> None:
    one = {"num_envs": 4, "rollout_length": 8, "num_minibatches": 32}
    assert "the only advantage of each minibatch 0" in refusal(one)
    validate(Config(**one, normalize_advantages="batch"), Hyper())
    validate(Config(**one, normalize_advantages="none"), Hyper())
    validate(Config(**one, objective="trpo"), Hyper())  # standardised over the whole batch
    least = {"num_envs": 1, "rollout_length": 1, "num_minibatches": 1}
    for fields in ({"normalize_advantages": "batch"}, {"objective": "trpo"}):
        assert "the only advantage of each batch 0" in refusal({**least, **fields})


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "my_module:lion", lambda hyper: None])
def test_an_optimiser_is_a_word_or_the_users_own(optimizer: Any) -> None:
    validate(Config(optimizer=optimizer), Hyper())


@pytest.mark.parametrize("optimizer, best", [("adamW", "adamw"), ("rms", "rmsprop"), (None, "")])
def test_an_unknown_optimiser_is_refused_with_the_nearest(optimizer: Any, best: str) -> None:
    message = refusal({"optimizer": optimizer})
    assert message.startswith(f"optimizer={optimizer!r} is not one of adam, adamw, rmsprop, sgd, ")
    assert best in message.partition("Nearest: ")[2]


@pytest.mark.parametrize("number", [1, 2, 36, 97, 160, 1024, 9699690])
def test_the_nearest_divisor_is_the_one_found_by_trial(number: int) -> None:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    for wanted in (1, 5, 7, 24, 100, number // 2 + 1, 2 * number):
        best = min(divisors, key=lambda d: (abs(d - wanted), d))
        assert nearest_divisor(number, wanted) == best


def test_the_nearest_divisor_of_a_large_prime_is_found_without_delay() -> None:
    started = time.perf_counter()
    assert nearest_divisor(2**31 - 1, 1000) == 1
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize(
    "sizes, words",
    [
        ({"num_envs": 10**9}, "num_envs=1000000000 must be at most 16777216."),
        ({"rollout_length": 10**30}, "must be at most 16777216."),
        ({"total_env_steps": 10**18}, "must be at most 9007199254740992."),
        (
            {"num_envs": 10**5, "rollout_length": 10**5, "num_minibatches": 7},
            "num_envs x rollout_length = 10000000000 is too large for one iteration",
        ),
        (
            {"total_env_steps": 10**12, "num_envs": 1, "rollout_length": 8},
            "would take 125000000000 iterations",
        ),
        (
            {"total_env_steps": 8 * 858_993_460, "num_envs": 8, "rollout_length": 1},
            "random numbers repeat after 858993458",
        ),
        (
            {"total_env_steps": 2**31 + 1, "num_envs": 1, "rollout_length": 128},
            "would take 2147483776 steps of each environment",
        ),
        ({"hidden_sizes": (10**6,)}, "widths of at most 65536"),
        ({"hidden_sizes": (8,) * 65}, "has 65 layers, and takes at most 64"),
        ({"memory_size": 10**6}, "memory_size=1000000 must be at most 65536"),
        ({"memory_layers": 0}, "memory_layers=0 must be a whole number of at least 1"),
        ({"memory_window": 2.0}, "memory_window=2.0 must be a whole number of at least 1"),
        ({"gsde_resample_steps": 1.5}, "whole number"),
    ],
)
def test_counts_that_no_machine_holds_are_refused(sizes: dict[str, Any], words: str) -> None:
    assert words in refusal({"normalize_advantages": "none", **sizes})


@pytest.mark.parametrize(
    "settings, words",
    [
        (
            {"memory": "gru", "num_envs": 6, "num_minibatches": 4},
            "num_minibatches=4 does not divide num_envs (with memory gru) = 6",
        ),
        (
            {"memory": "attention", "memory_start": "learned"},
            "memory_start='learned' does not fit memory 'attention'",
        ),
        ({"memory": "gru", "network": "my:net"}, "leave --memory or --network out"),
        ({"memory": "grue"}, "memory='grue' is not one of none, gru, lstm"),
        ({"previous_inputs": "reward+action"}, "Nearest: "),
    ],
)
def test_a_memory_that_does_not_fit_the_other_settings_is_refused(
    settings: dict[str, Any], words: str
) -> None:
    assert words in refusal(settings)


@pytest.mark.parametrize(
    "name, value",
    [("weight_decay", -0.1), ("momentum", 1.5), ("rmsprop_decay", -0.1), ("momentum", math.inf)],
)
def test_numbers_of_the_optimisers_have_ranges(name: str, value: float) -> None:
    assert refusal(hyper={name: value}).startswith(f"{name}={value!r} must be at least 0")


def test_settings_that_nothing_reads_are_named() -> None:
    assert without_effect(Config(), Hyper()) == []
    config = Config(memory_size=64, kl_direction="new-old")
    assert without_effect(config, Hyper(kl_coef=50.0, kl_target=Schedule(1.0, 2.0))) == [
        "kl_coef, kl_target, kl_direction have no effect with objective clip",
        "memory_size has no effect with memory none",
    ]
    assert without_effect(Config(objective="ppo-kl"), Hyper(kl_coef=50.0)) == []
    assert without_effect(Config(optimizer="my:adam"), Hyper(momentum=0.5)) == []
    torch = Config(optimizer="rmsprop_torch")
    assert without_effect(torch, Hyper(adam_epsilon=1e-3, rmsprop_decay=0.9)) == []
    config = Config(objective="trpo", measure_gradient_cosine=True)
    assert without_effect(config, Hyper(kl_stop=0.1, kl_lr_target=0.1)) == [
        "kl_stop, kl_lr_target, measure_gradient_cosine have no effect with objective trpo"
    ]
    assert without_effect(Config(), Hyper(momentum=np.ones(3))) == [
        "momentum has no effect with optimizer adam"
    ]


@pytest.mark.parametrize(
    "config, hyper, words",
    [
        ({"normalize_rewards": "yes"}, {}, "normalize_rewards='yes' must be True or False"),
        ({}, {"learning_rate": True}, "learning_rate=True must be a number"),
        ({}, {"learning_rate": np.True_}, "learning_rate=np.True_ must be a number"),
        ({}, {"learning_rate": Schedule(0.1, 0.0, "x")}, "cosine of learning_rate='x' must be"),
        ({"hidden_sizes": 8}, {}, "hidden_sizes=8 must name at least one width"),
        ({"hidden_sizes": np.array([8, 8])}, {}, "must name at least one width"),
        ({}, {"learning_rate": "1e-3"}, "learning_rate='1e-3' must be a number"),
        ({}, {"env": "length=1"}, "env='length=1' must be a dict"),
    ],
)
def test_values_of_another_type_are_refused(config: dict, hyper: dict, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        validate(Config(**config), Hyper(**hyper))
