"""Growth of the cost of training: `python benchmarks/speed/growth.py` (about 3 minutes).

Seconds and peak memory against environment steps, environments and seeds, one process per point:

* steps: whole runs of the host loop (`ppo_jax.run`) of 8 environments;
* environments and seeds: an iteration of the compiled loop, median of its calls.

Expected: seconds linear in steps, memory constant in them; seconds below linear in environments and
seeds until the machine is full. `growth` is the exponent p of cost ~ size^p between two points, 1
for linear. Peak memory is the process's and includes compilation; `program_bytes` is the memory of
the compiled loop as reported by the compiler.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from machine import ROOT, begin, default_out, store, versions

ROLLOUT_LENGTH = 128
SIZES = {
    "env_steps": (65_536, 262_144, 1_048_576, 4_194_304),
    "num_envs": (4, 16, 64, 256, 1024, 4096),
    "num_seeds": (1, 2, 4, 8, 16, 32, 64),
}
FIXED = {
    "env_steps": "8 environments, 1 seed, 1 epoch of 1 minibatch",
    "num_envs": "1 seed, 4 epochs of 4 minibatches",
    "num_seeds": "4 environments, 4 epochs of 4 minibatches",
}
SECONDS = 1.5  # time of calls per point


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--largest", type=float, default=1.0, help="sizes up to this share")
    parser.add_argument("--hardware", help="name of this machine in the result")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)  # of one process
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measure(arguments.point[0], int(arguments.point[1]))))
        return
    record = begin(
        "seconds and memory against environment steps, environments and seeds",
        " ".join(["python", "benchmarks/speed/growth.py", *sys.argv[1:]]),
        arguments.hardware,
    )
    out = arguments.out or default_out(record["machine"]["hardware"], "growth")
    record |= {"versions": versions(), "env": "CartPole-v1", "rollout_length": ROLLOUT_LENGTH}
    record["curves"] = {}
    for axis, sizes in SIZES.items():
        points = [ask(axis, n) for n in sizes if n <= arguments.largest * sizes[-1]]
        record["curves"][axis] = {"fixed": FIXED[axis], "points": points, **exponents(points)}
        store(record, out)
        for point in points:
            print(
                f"{axis} {point['size']:>10,}: {point['seconds']:.5f} s, "
                f"peak {point['peak_bytes'] / 2**20:,.0f} MiB"
            )
    picture = out.with_suffix(".png")
    draw(record, picture)
    print(f"{out}\n{picture}")


def ask(axis: str, size: int) -> dict[str, Any]:
    """Measure one point in a separate process."""
    command = [sys.executable, __file__, "--point", axis, str(size)]
    # Without a cache on disk, every point includes the memory of compiling; with one, only some
    # would.
    cache = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    environment = {**os.environ, **cache, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(axis: str, size: int) -> dict[str, Any]:
    import resource

    import jax

    from ppo_jax.apps.diagnose import timing
    from ppo_jax.config.config import Config, Hyper
    from ppo_jax.config.options import RunOptions
    from ppo_jax.runtime import devices

    devices.prepare_jax(RunOptions())
    found: dict[str, Any] = {"axis": axis, "size": size}
    if axis == "env_steps":
        found |= whole_run(size)
    else:
        num_envs = size if axis == "num_envs" else 4
        seeds = size if axis == "num_seeds" else 1
        config = Config(num_envs=num_envs, rollout_length=ROLLOUT_LENGTH)
        program = timing.prepare(config, Hyper(), seeds)
        timed = timing.time_alone(program, SECONDS)
        found |= {
            "seconds": timed.iteration_seconds,
            "seconds_range": timed.iteration_seconds_range,
            "cpu_seconds": timed.iteration_cpu_seconds,
            "env_steps": program.steps_per_iteration,
            "layout": program.layout.kind,
            "program_bytes": program.program_bytes,
        }
    found["live_array_bytes"] = sum(leaf.nbytes for leaf in jax.live_arrays())
    found["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found


def whole_run(env_steps: int) -> dict[str, Any]:
    """The host loop from start to end; seconds of its chunks, without compilation."""
    import ppo_jax

    config = ppo_jax.Config(
        total_env_steps=env_steps, rollout_length=ROLLOUT_LENGTH, num_epochs=1, num_minibatches=1
    )
    with tempfile.TemporaryDirectory() as folder:
        options = ppo_jax.RunOptions(out=str(Path(folder) / "run"), quiet=True, eval_episodes=1)
        summary = ppo_jax.run(config, ppo_jax.Hyper(), options).summary
        files = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {
        "seconds": summary["train_seconds"],
        "env_steps": summary["env_steps"],
        "folder_bytes": files,
    }


def exponents(points: list[dict[str, Any]]) -> dict[str, Any]:
    """Exponents of growth from point to point, and over the whole curve."""

    def exponent(a: dict[str, Any], b: dict[str, Any], name: str) -> float:
        return round(math.log(b[name] / a[name]) / math.log(b["size"] / a["size"]), 3)

    ends = points[0], points[-1]
    return {
        "growth": [exponent(a, b, "seconds") for a, b in pairwise(points)],
        "growth_overall": exponent(*ends, "seconds") if len(points) > 1 else None,
        "memory_growth_overall": exponent(*ends, "peak_bytes") if len(points) > 1 else None,
    }


def draw(record: dict[str, Any], out: Path) -> None:
    """Seconds above, memory below, a column for each axis; dotted: linear growth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        "env_steps": "environment steps of a run",
        "num_envs": "environments",
        "num_seeds": "seeds",
    }
    figure, grid = plt.subplots(2, len(titles), figsize=(10, 5), sharex="col")
    for (above, below), (axis, title) in zip(grid.T, titles.items(), strict=True):
        curve = record["curves"][axis]
        sizes = [point["size"] for point in curve["points"]]
        seconds = [point["seconds"] for point in curve["points"]]
        above.loglog(sizes, seconds, "o-", color="#1b6ca8", ms=4)
        linear = [seconds[-1] * size / sizes[-1] for size in sizes]
        above.loglog(sizes, linear, ":", color="#888888", lw=1)
        above.set_title(
            f"{title}: cost ~ size^{curve['growth_overall']}\n{curve['fixed']}",
            fontsize=7,
            loc="left",
        )
        memory = [point["peak_bytes"] / 2**20 for point in curve["points"]]
        below.semilogx(sizes, memory, "o-", color="#c8553d", ms=4, label="process, peak")
        if "program_bytes" in curve["points"][0]:
            program = [point["program_bytes"] / 2**20 for point in curve["points"]]
            below.semilogx(sizes, program, "s--", color="#7a9e3f", ms=3, label="compiled loop")
        below.set_ylim(bottom=0)
        below.set_xlabel(title, fontsize=8)
        below.legend(frameon=False, fontsize=7)
        for axes in (above, below):
            axes.tick_params(labelsize=7)
            axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("seconds (a run; an iteration)", fontsize=8)
    grid[1, 0].set_ylabel("MiB", fontsize=8)
    text = f"{record['env']}; {record['machine']['hardware']}; {record['date'][:10]}"
    figure.text(0.01, 0.01, text, fontsize=7, color="#666666")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(out, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
