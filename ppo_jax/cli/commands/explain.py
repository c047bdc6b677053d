"""`ppo-jax explain surrogate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.cli.answer import Answer, Command, print_progress
from ppo_jax.cli.parser import Parser
from ppo_jax.config import layers
from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    parser.add_argument("question", nargs="?", metavar="surrogate", help="why the ratio?")
    group = parser.add_argument_group("experiment")
    parser.add_value(group, "--environment", "environment [default: CartPole-v1]", "ENV")
    parser.add_value(group, "--seeds", "seeds of each cell [default: 16]", "N")
    parser.add_value(
        group, "--total-env-steps", "steps of each seed and cell [default: 60000]", "N"
    )
    parser.add_value(group, "--epochs", "steps on each batch [default: 1,2,4,8,16,32]", "N,N,...")
    parser.add_value(group, "--out", "folder for numbers and pictures [default: explain]", "DIR")


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    if flags.get("question") != "surrogate":
        raise InputError("explain answers one question: ppo-jax explain surrogate.")
    numbers: dict[str, Any] = {
        name: layers.whole_number(name, flags[name])
        for name in ("seeds", "total_env_steps")
        if name in flags
    }
    if "epochs" in flags:
        numbers["epochs"] = [layers.whole_number("epochs", e) for e in flags["epochs"].split(",")]
    env = flags.get("environment", "CartPole-v1")
    registration.check_name(env)
    from ppo_jax.apps.diagnose import explain

    result = explain.surrogate(
        env,
        **numbers,
        out=flags.get("out", "explain"),
        tell=print_progress,
    )
    return Answer(result, ["", *result["text"], "", f"figure    {result['figure']}"])


COMMAND = Command("explain", "surrogate", "why the ratio? answered by experiment", _run, _add_flags)
