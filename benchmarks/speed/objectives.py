"""Cost of an iteration by objective, relative to clip, or by memory, relative to none.

`python benchmarks/speed/objectives.py`, and `--by memory`. All programs are compiled first; then
one chunk of each is timed, round after round, so that other load on the machine affects all.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from compare import default_out, describe_machine

from ppo_jax.config.config import MEMORIES, OBJECTIVES, Config, Hyper
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import population
from ppo_jax.distributed import programs as compiled_programs
from ppo_jax.runtime import devices
from ppo_jax.training import schedules

CASES = {
    "objective": {
        "8 envs x 128, 1 seed": Config(num_envs=8),
        "2,048 envs x 128, 1 seed": Config(num_envs=2048),
    },
    "memory": {
        case: Config(
            env="MemoryChain-bsuite", num_envs=16, hidden_sizes=(128, 128), memory_size=128
        )
        for case in ("16 envs, core on two layers", "16 envs, core for a layer")
    },
}
BASE = {"objective": "clip", "memory": "none"}
SETTINGS = {
    "objective": "CartPole-v1, 4 epochs x 4 minibatches, 64-64 tanh actor and critic",
    "memory": "MemoryChain-bsuite, 4 epochs x 4 minibatches, none: two layers of 128",
}
PROBED = "clip, with the gradient cosine"  # optional telemetry


def own_drift(ratio: jax.Array, advantage: jax.Array) -> jax.Array:
    excess = ratio - jnp.clip(ratio, 0.8, 1.2)
    return jax.nn.relu(excess * advantage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--by", choices=list(CASES), default="objective")
    parser.add_argument("--only", nargs="+", default=[], help="programs beside the base (all)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--hardware")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    devices.prepare_jax(RunOptions())
    machine = describe_machine(arguments.hardware)
    by, kinds = arguments.by, {"objective": "objectives", "memory": "memories"}
    out = arguments.out or default_out(machine["hardware"], kinds[by])
    record = {
        "what": f"cost of an iteration relative to {by} {BASE[by]}, interleaved in one run",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
        "setting": SETTINGS[by],
        "load_average_before": os.getloadavg(),
        "rounds": arguments.rounds,
        "cases": {case: compare(by, case, arguments.rounds, arguments.only) for case in CASES[by]},
        "load_average_after": os.getloadavg(),
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    for case, rows in record["cases"].items():
        print(f"\n{case:<32}{'iteration':>12}{f'of {BASE[by]}':>10}{'CPU':>8}   lowest to highest")
        for name, row in rows.items():
            cost = f"{row['milliseconds']:.2f} ms"
            spread = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
            print(f"{name:<32}{cost:>12}{row['ratio']:>10.2f}{row['cpu_ratio']:>8.2f}   {spread}")
    print(f"\n{out}")


def compare(by: str, case: str, rounds: int, only: list[str]) -> dict[str, dict]:
    """Milliseconds an iteration, wall and CPU, and their ratios to the base of the same round."""
    config = CASES[by][case]
    if by == "memory":
        layers = config.hidden_sizes[: 1 if case.endswith("for a layer") else 2]
        deep = dataclasses.replace(config, hidden_sizes=layers)
        configs = {name: dataclasses.replace(deep, memory=name) for name in MEMORIES}
        configs["none"] = config
    else:
        configs = {name: of_objective(name, config) for name in (*OBJECTIVES, PROBED)}
    if only:
        configs = {name: configs[name] for name in dict.fromkeys((BASE[by], *only))}
    programs = {name: prepare(own) for name, own in configs.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, run in programs.items():
            seconds[name].append(run())
    rows, base = {}, seconds[BASE[by]]
    for name, values in seconds.items():
        ratios = [value[0] / one[0] for value, one in zip(values, base, strict=True)]
        cpu_ratios = [value[1] / one[1] for value, one in zip(values, base, strict=True)]
        rows[name] = {
            "milliseconds": round(1e3 * statistics.median(wall for wall, _ in values), 3),
            "cpu_milliseconds": round(1e3 * statistics.median(cpu for _, cpu in values), 3),
            "ratio": round(statistics.median(ratios), 3),
            "cpu_ratio": round(statistics.median(cpu_ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
            "cpu_ratios": [round(ratio, 3) for ratio in cpu_ratios],
        }
    return rows


def of_objective(name: str, config: Config) -> Config:
    objective = "clip" if name == PROBED else name
    return dataclasses.replace(
        config,
        objective=objective,
        drift=own_drift if objective == "drift" else None,
        measure_gradient_cosine=name == PROBED,
    )


def prepare(config: Config) -> Callable[[], tuple[float, float]]:
    """A compiled chunk that continues; a call returns wall and CPU seconds of an iteration."""
    hyper = schedules.as_arrays(config, Hyper(learning_rate=2.5e-4, entropy_coef=0.01))
    layout = layouts.choose_layout(config, 1)
    states = [population.init_population(config, hyper, 0, layout)]
    count = max(1, min(compiled_programs.MAX_CHUNK, 60_000 // config.batch_size))
    chunk = (
        compiled_programs.make_chunk(config, layout).lower(hyper, states[0], np.int32(1)).compile()
    )

    def run() -> tuple[float, float]:
        start, start_cpu = time.perf_counter(), time.process_time()
        state, rows = chunk(hyper, states.pop(), np.int32(count))
        jax.block_until_ready(rows)
        states.append(state)
        wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        return wall / count, cpu / count

    run()
    return run


if __name__ == "__main__":
    main()
