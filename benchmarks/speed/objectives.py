"""Cost of an iteration by objective, relative to clip.

`python benchmarks/speed/objectives.py`. All programs are compiled first; then one chunk of each is
timed, round after round, so that other load on the machine affects all of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from compare import default_out, describe_machine

from ppo_jax.config.config import OBJECTIVES, Config, Hyper
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import programs as parallel
from ppo_jax.rl.surrogates import clip_drift
from ppo_jax.runtime import devices
from ppo_jax.training import schedules

CASES = {
    "8 envs x 128, 1 seed": {"num_envs": 8, "seeds": 1},
    "2,048 envs x 128, 1 seed": {"num_envs": 2048, "seeds": 1},
}
PROBED = "clip, with the gradient cosine"  # optional telemetry


def own_drift(ratio: jax.Array, advantage: jax.Array) -> jax.Array:
    return clip_drift(ratio, advantage, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of an iteration relative to clip")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--hardware")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    devices.prepare_jax(RunOptions())
    machine = describe_machine(arguments.hardware)
    name = default_out(machine["hardware"]).name.replace("speed_", "objectives_", 1)
    out = arguments.out or default_out(machine["hardware"]).with_name(name)
    record = {
        "what": "cost of an iteration relative to objective clip, interleaved in one run",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
        "setting": "CartPole-v1, 4 epochs x 4 minibatches, 64-64 tanh actor and critic",
        "load_average_before": os.getloadavg(),
        "rounds": arguments.rounds,
        "cases": {case: compare(**size, rounds=arguments.rounds) for case, size in CASES.items()},
        "load_average_after": os.getloadavg(),
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    for case, rows in record["cases"].items():
        print(f"\n{case:<32}{'iteration':>12}{'of clip':>10}   lowest to highest round")
        for objective, row in rows.items():
            cost = f"{row['milliseconds']:.2f} ms"
            spread = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
            print(f"{objective:<32}{cost:>12}{row['ratio']:>10.2f}   {spread}")
    print(f"\n{out}")


def compare(num_envs: int, seeds: int, rounds: int) -> dict[str, dict]:
    """Milliseconds an iteration, and the ratio to clip of the same round."""
    programs = {name: prepare(name, num_envs, seeds) for name in (*OBJECTIVES, PROBED)}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, run in programs.items():
            seconds[name].append(run())
    rows = {}
    for name, values in seconds.items():
        ratios = [value / clip for value, clip in zip(values, seconds["clip"], strict=True)]
        rows[name] = {
            "milliseconds": round(1e3 * statistics.median(values), 3),
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }
    return rows


def prepare(name: str, num_envs: int, seeds: int) -> Callable[[], float]:
    """A compiled chunk that continues; each call returns the seconds of one iteration."""
    objective = "clip" if name == PROBED else name
    config = Config(
        objective=objective,
        drift=own_drift if objective == "drift" else None,
        num_envs=num_envs,
        measure_gradient_cosine=name == PROBED,
    )
    hyper = schedules.as_arrays(config, Hyper(learning_rate=2.5e-4, entropy_coef=0.01))
    layout = layouts.choose_layout(config, seeds)
    states = [parallel.init_population(config, hyper, 0, layout)]
    count = max(1, min(parallel.ROWS, 60_000 // config.batch_size))
    chunk = parallel.make_chunk(config, layout).lower(hyper, states[0], np.int32(1)).compile()

    def run() -> float:
        start = time.perf_counter()
        state, rows = chunk(hyper, states.pop(), np.int32(count))
        jax.block_until_ready(rows)
        states.append(state)
        return (time.perf_counter() - start) / count

    run()
    return run


if __name__ == "__main__":
    main()
