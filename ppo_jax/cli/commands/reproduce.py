"""`ppo-jax reproduce SUITE|SPEC...`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ppo_jax.apps.reproduce import specs
from ppo_jax.cli.answer import Answer, Command, print_progress
from ppo_jax.cli.parser import Parser, add_host_flags
from ppo_jax.cli.trust import add_trust_flags, find_trust
from ppo_jax.config import layers, values
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.options import HOSTS, PLATFORMS, RunOptions, check_hosts
from ppo_jax.config.validate import check_count

_SECONDS = ("time_limit", "save_seconds")


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    parser.add_argument(
        "spec", nargs="*", metavar="SPEC", help="SUITE, SUITE/TASK, SUITE/TASK/VARIANT, FILE.toml"
    )
    group = parser.add_argument_group(
        f"what to run (suites: {', '.join(specs.names())}; without one they are listed)"
    )
    parser.add_value(group, "--seeds", "seeds of each cell, in place of the spec's number", "N")
    parser.add_switch(group, "--quick", "about a tenth of the budget, marked as such everywhere")
    parser.add_switch(group, "--show", "print stored results, run nothing")
    parser.add_switch(
        group,
        "--check",
        "run all cells again and compare with results of such a machine",
    )
    parser.add_value(
        group, "--out", "folder [default: benchmarks/results/SUITE_PLATFORM_DATE]", "DIR"
    )
    parser.add_value(group, "--platform", " | ".join(PLATFORMS), "NAME")
    parser.add_value(group, "--time-limit", "seconds until it stops with everything saved", "X")
    parser.add_value(
        group, "--save-seconds", "seconds of training between checkpoints [default: 60]", "X"
    )
    add_host_flags(parser)
    add_trust_flags(parser)


def _run(flags: dict[str, Any], _: dict[str, str]) -> Answer:
    if not flags.get("spec"):
        return _suites()
    if "show" in flags and "check" in flags:
        raise InputError("--show runs nothing and --check runs all: give one of them.")
    platform = flags.get("platform")
    if platform is not None and platform not in PLATFORMS:
        raise InputError(
            f"platform={platform!r} is not one of {', '.join(PLATFORMS)}."
            + nearest(platform, PLATFORMS)
        )
    seeds = layers.whole_number("seeds", flags["seeds"]) if "seeds" in flags else None
    if seeds is not None:
        check_count("seeds", seeds, 1, 2**20)
    seconds = {name: _seconds(name, flags[name]) for name in _SECONDS if name in flags}
    joining = {
        name: layers.convert(RunOptions, layers.FIELDS[name][1], flags[name])
        for name in HOSTS
        if name in flags
    }
    if joining and "show" in flags:
        raise InputError("--show runs nothing, which takes one host: leave the others out.")
    check_hosts(RunOptions(**joining))
    suites = specs.select(flags["spec"], "quick" in flags, seeds)
    if "show" not in flags:
        specs.require_trust(suites, find_trust(flags))
    from ppo_jax.apps.reproduce import running

    done = running.reproduce(
        running.Request(
            suites=tuple(suites),
            out=flags.get("out"),
            is_quick="quick" in flags,
            is_check="check" in flags,
            is_show="show" in flags,
            platform=platform,
            joining=joining,
            **seconds,
        ),
        tell=print_progress,
    )
    return Answer(done.data, done.lines, done.exit_code)


def _seconds(name: str, text: str) -> float:
    found = values.whole_or_real(name, text)
    if not 0 < found < math.inf:
        raise InputError(f"{name}={found} must be a number of more than 0.")
    return found


def _suites() -> Answer:
    """List the suites."""
    rows = []
    for name in specs.names():
        suite = specs.load(name)
        rows.append({"suite": name, "cells": len(suite.cells), "title": suite.title})
    lines = [f"{row['suite']:<24}{row['cells']:>4} cells   {row['title']}" for row in rows]
    return Answer({"suites": rows}, [*lines, "", "ppo-jax reproduce SUITE runs what is missing."])


COMMAND = Command(
    "reproduce", "[SPEC...]", "published results next to measured ones", _run, _add_flags
)
