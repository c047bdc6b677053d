"""Gymnasium's environments in this process and in workers, in turns: training steps per second.

    python benchmarks/speed/hosted.py [--turns 5]

Each case is trained from the same state with the same compiled programs, once with all environments
in the trainer's process and once with a worker for each core. `rule` is what the program chooses.
HalfCheetah needs the extra `gymnasium`, RepeatPreviousEasy the extra `popgym`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import machine

from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed import hosted
from ppo_jax.envs.suites import gymnasium as adapter
from ppo_jax.envs.suites.gymnasium_lanes import Workers, cores
from ppo_jax.training import trainer

CASES = {
    "RepeatPreviousEasy": ("gymnasium/popgym:popgym-RepeatPreviousEasy-v0", "gru"),
    "CartPole-v1": ("gymnasium/CartPole-v1", "none"),
    "HalfCheetah-v5": ("gymnasium/HalfCheetah-v5", "none"),
}
STEPS = 8192  # environment steps of a turn


def measured(env: str, memory: str, num_envs: int, turns: int) -> dict[str, Any]:
    """Steps per second of each side, the medians, and the choice of the rule."""
    config = Config(
        env=env,
        num_envs=num_envs,
        rollout_length=64,
        num_epochs=4,
        num_minibatches=4,
        memory=memory,
        memory_size=32,
        hidden_sizes=(64, 64),
    )
    hyper, rule = Hyper(), adapter.workers_for
    state = trainer.init(config, hyper, jax.random.key(0))
    lowered = hosted.lower_iteration(config, hyper, jax.eval_shape(lambda: state))
    programs = hosted.Programs(*(each.compile() for each in lowered))
    chosen = hosted.make_vector(config, hyper, num_envs)
    found: dict[str, Any] = {"rule": "workers" if isinstance(chosen, Workers) else "here"}
    chosen.close()
    sides = {}
    for name, count in (("here", 0), ("workers", min(cores(), num_envs))):
        adapter.workers_for = lambda *_, count=count: count
        sides[name] = hosted.start(config, hyper, state)
        found[name] = []
    adapter.workers_for = rule
    iterations = max(1, STEPS // (64 * num_envs))
    for turn in range(turns + 1):  # the first one warms up
        for name, place in sides.items():
            began = time.perf_counter()
            for _ in range(iterations):
                steps, hand, _ = hosted.take(config, programs, place, hyper, state)
                jax.block_until_ready(programs.absorb(hyper, state, steps, hand))
            if turn:
                spent = time.perf_counter() - began
                found[name].append(round(iterations * 64 * num_envs / spent))
    for vector, _ in sides.values():
        vector.close()
    medians = {name: statistics.median(found[name]) for name in sides}
    return {**found, "median": medians, "ratio": round(medians["here"] / medians["workers"], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--hardware", help="name of the machine")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    what = "Gymnasium's environments in the trainer's process and in workers, in turns"
    record = machine.begin(what, "python benchmarks/speed/hosted.py", given.hardware)
    out = given.out or machine.default_out(record["machine"]["hardware"], "hosted-steps")
    record |= {"versions": machine.versions("gymnasium", "popgym"), "cases": {}}
    for name in given.case or CASES:
        for num_envs in (8, 64):
            label = f"{name}, {num_envs} environments"
            record["cases"][label] = measured(*CASES[name], num_envs, given.turns)
            machine.store(record, out)
            print(label, json.dumps(record["cases"][label]), flush=True)


if __name__ == "__main__":
    main()
