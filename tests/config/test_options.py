"""`RunOptions`: refusals as sentences."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions, parse_mesh, validate_options


def test_defaults_are_valid() -> None:
    validate_options(RunOptions())


@pytest.mark.parametrize(
    "name, value, word",
    [
        ("seeds", 0, "at least 1"),
        ("seeds", -2, "at least 1"),
        ("seeds", 1.5, "whole number"),
        ("seeds", True, "whole number"),
        ("seed", -1, "at least 0"),
        ("seed", 2**32, "4294967295"),
        ("eval_every", -1, "at least 0"),
        ("eval_episodes", 0, "at least 1"),
        ("log_every", -5, "at least 0"),
        ("checkpoint_every", -5, "at least 0"),
        ("devices", 0, "at least 1"),
        ("policy_mode", "determinstic", "Nearest: deterministic"),
        ("platform", "cuda", "cpu, gpu, tpu"),
        ("keep", 0, "at least 1"),
        ("checkpoint_minutes", -1.0, "at least 0"),
        ("checkpoint_minutes", math.inf, "at least 0"),
        ("max_seconds", 0.0, "more than 0"),
        ("max_seconds", math.nan, "more than 0"),
        ("resume", "always", "never, auto"),
        ("resume", "auto", "name it with --out"),
        ("stop_at_return", math.nan, "finite"),
        ("stop_at_return", math.inf, "finite"),
        ("out", "", "empty"),
        ("wandb", "", "empty"),
        ("mesh", "seed=4,env=0", "such as seed=4,env=2"),
        ("mesh", "seeds=4", "such as seed=4,env=2"),
        ("coordinator", "a:1", "give all three"),
        ("num_hosts", 0, "at least 1"),
        ("hosts", "slurm", "none, auto"),
        ("max_seconds", "x", "must be a number"),
        ("stop_at_return", "x", "must be a number"),
        ("mesh", 3, "must be a word"),
        ("out", 3, "must be a word"),
        ("quiet", "no", "must be True or False"),
    ],
)
def test_option_that_no_run_can_follow_is_refused(name: str, value: Any, word: str) -> None:
    with pytest.raises(InputError) as caught:
        validate_options(RunOptions(**{name: value}))
    assert name in str(caught.value)
    assert word in str(caught.value)


def test_last_seed_of_a_run_must_fit_into_32_bits() -> None:
    validate_options(RunOptions(seed=2**32 - 4, seeds=4))
    with pytest.raises(InputError, match="too large for 5 seeds"):
        validate_options(RunOptions(seed=2**32 - 4, seeds=5))


@pytest.mark.parametrize(
    "words, mesh",
    [(None, None), ("seed=4,env=2", (4, 2)), ("env=2", (1, 2)), (" seed=3", (3, 1))],
)
def test_a_mesh_has_one_place_along_an_axis_that_is_left_out(words: Any, mesh: Any) -> None:
    assert parse_mesh(words) == mesh


@pytest.mark.parametrize(
    "changes, word",
    [
        ({}, None),
        ({"host_index": 2}, "below num_hosts=2"),
        ({"coordinator": "a"}, "an address and a port"),
        ({"coordinator": "a:65536"}, "an address and a port"),
        ({"hosts": "auto"}, "no hosts='auto'"),
    ],
)
def test_hosts_joined_by_hand_need_three_options_that_fit(changes: Any, word: str | None) -> None:
    options = RunOptions(coordinator="a:1", num_hosts=2, host_index=1)
    options = dataclasses.replace(options, **changes)
    if word is None:
        validate_options(options)
        return
    with pytest.raises(InputError, match=word):
        validate_options(options)
