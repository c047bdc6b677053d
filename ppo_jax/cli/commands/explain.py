"""`ppo-jax explain surrogate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ppo_jax.cli import parser as flags
from ppo_jax.cli.answer import Answer, Command
from ppo_jax.config import layers
from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration


def _add_flags(parser: flags.Parser, words: Sequence[str]) -> None:
    del words
    parser.add_argument("question", nargs="?", metavar="surrogate", help="why the ratio?")
    group = parser.add_argument_group("experiment")
    parser.add_value(group, "--environment", "where to train [default: CartPole-v1]", "ENV")
    parser.add_value(group, "--seeds", "per cell [default: 16]", "N")
    parser.add_value(group, "--total-env-steps", "per seed and cell [default: 60000]", "N")
    parser.add_value(group, "--epochs", "steps on each batch [default: 1,2,4,8,16,32]", "N,N,...")
    parser.add_value(group, "--out", "folder for numbers and pictures [default: explain]", "DIR")


def _run(given: dict[str, Any], _: dict[str, str]) -> Answer:
    if given.get("question") != "surrogate":
        raise InputError("explain answers one question: ppo-jax explain surrogate.")
    numbers: dict[str, Any] = {
        name: layers.whole_number(name, given[name])
        for name in ("seeds", "total_env_steps")
        if name in given
    }
    if "epochs" in given:
        numbers["epochs"] = [layers.whole_number("epochs", e) for e in given["epochs"].split(",")]
    env = given.get("environment", "CartPole-v1")
    registration.check_name(env)
    from ppo_jax.apps.diagnose import explain

    result = explain.surrogate(
        env,
        **numbers,
        out=given.get("out", "explain"),
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    return Answer(result, ["", *result["text"], "", f"figure    {result['figure']}"])


COMMAND = Command("explain", "surrogate", "why the ratio? answered by experiment", _run, _add_flags)
