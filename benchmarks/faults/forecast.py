"""Forecast of memory against the measured peak of `train`, `sweep` and `reproduce`.

    python benchmarks/faults/forecast.py            # all sizes, about ten minutes
    python benchmarks/faults/forecast.py sweep --sizes 64 1024
    python benchmarks/faults/forecast.py craftax    # needs the suite, and 16 GB

`craftax` has one member with so many environments, each with 64 steps of 8,268 numbers.
Each case is a process of its own. The base is its resident set when the training program has been
compiled, less the states that are there already. The peak is the largest one from there on.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from ppo_jax.storage.fingerprint import source_digest  # noqa: E402, the path comes first
from ppo_jax.storage.manifest import hardware  # noqa: E402, the path comes first

RESULTS = ROOT / "benchmarks" / "results"

# Members by command.
SIZES = {
    "train": (1_024, 4_096, 12_288),
    "sweep": (512, 4_096, 16_384),
    "reproduce": (64, 128, 256),  # a pack has at most 256 members
    "craftax": (1_024,),
}
USUAL = [command for command in SIZES if command != "craftax"]
SMALL: dict[str, Any] = {
    **{"num_envs": 4, "rollout_length": 16, "num_minibatches": 1, "num_epochs": 1},
}
LARGE = {"num_envs": 32, "rollout_length": 128, "num_minibatches": 32, "num_epochs": 1}
SPEC = """
title = "forecast"
[[cell]]
task = "Pendulum"
variant = "clip"
env = "Pendulum-v1"
seeds = {members}
protocol = "sampled"
episodes = 8
total_env_steps = {steps}
[cell.config]
num_envs = {num_envs}
rollout_length = {rollout_length}
num_minibatches = {num_minibatches}
num_epochs = {num_epochs}
hidden_sizes = [256, 256]
"""


def config_of(members: int, iterations: int) -> Any:
    """Members with the usual network, or with a smaller one if they are very many."""
    from ppo_jax.config.config import Config

    sizes = (64, 64) if members < 8_192 else (32, 32)
    steps = iterations * SMALL["num_envs"] * SMALL["rollout_length"]
    return Config(total_env_steps=steps, hidden_sizes=sizes, **SMALL)


def train(members: int, out: Path) -> None:
    from ppo_jax.apps.run.runner import run
    from ppo_jax.config.config import Hyper

    config = config_of(members, 6)
    how: dict[str, Any] = {"seeds": members, "out": str(out), "quiet": True, "eval_episodes": 8}
    run(config, Hyper(), **how, checkpoint_every=2 * config.batch_size)


def sweep(members: int, out: Path) -> None:
    from ppo_jax.apps.sweep import driver

    config = config_of(members, 10)
    rates = [1e-4 * (1 + i) for i in range(max(members // 8, 1))]
    how: dict[str, Any] = {"seeds": min(members, 8), "out": str(out), "save_seconds": 1e-3}
    axes = {"learning_rate": rates}
    driver.sweep(config, axes, **how, eval_episodes=8, fresh_seeds=0, device_memory="64G")


def reproduce(members: int, out: Path) -> None:
    from ppo_jax.cli.main import main

    out.mkdir()
    spec = out / "forecast.toml"
    steps = 3 * LARGE["num_envs"] * LARGE["rollout_length"]
    spec.write_text(SPEC.format(members=members, steps=steps, **LARGE))
    if main(["reproduce", str(spec), "--out", str(out / "results")]) not in (0, 3):
        raise RuntimeError("reproduce failed")


def craftax(environments: int, out: Path) -> None:
    """One iteration of Craftax' full game in the setting of its authors."""
    from ppo_jax.cli.main import main

    sizes = ["--num-envs", str(environments), "--total-env-steps", str(64 * environments)]
    words = ["train", "craftax/Craftax-Symbolic-v1", "--preset", "craftax/baselines", *sizes]
    if main([*words, "--eval-episodes", "8", "--quiet", "--out", str(out)]) != 0:
        raise RuntimeError("train failed")


def resident() -> dict[str, int]:
    """Bytes that are resident now (VmRSS), and the largest number so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    words = [line.split() for line in lines if line.startswith(("VmRSS", "VmHWM"))]
    return {name.rstrip(":"): 1024 * int(size) for name, size, _ in words}


def child(command: str, members: int) -> None:
    """Carry out one case and print the forecast and the peak."""
    from ppo_jax.apps.sweep import engine
    from ppo_jax.runtime import devices

    found: dict[str, int] = {}
    require, memory_of = devices.require_memory, engine.memory_of

    def begin(forecast: int, held: int) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # what the compiler has freed
        Path("/proc/self/clear_refs").write_text("5")  # the largest number begins anew
        found.update(forecast=forecast, base=resident()["VmRSS"] - held)

    def required(needed: Any, device: Any, held: int = 0) -> None:
        found.setdefault("estimate", needed.main)
        begin(needed.main, held)
        require(needed, device, held)

    def described(config: Any, layout: Any, *given: Any) -> Any:
        memory = memory_of(config, layout, *given)
        begin(memory.total * len(layout.devices) + engine.PROGRAMS, 0)
        return memory

    devices.require_memory, engine.memory_of = required, described
    with tempfile.TemporaryDirectory() as folder:
        carried_out = {"train": train, "sweep": sweep, "reproduce": reproduce, "craftax": craftax}
        carried_out[command](members, Path(folder) / "out")
    print(json.dumps({"estimate": found["forecast"], **found, "peak": resident()["VmHWM"]}))


def measured(command: str, members: int) -> dict[str, int]:
    """The case in a process of its own, which shares no memory with others."""
    words = [sys.executable, __file__, "--child", command, str(members)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def row_of(command: str, members: int) -> dict[str, Any]:
    found = measured(command, members)
    peak = found["peak"] - found["base"]
    row = {
        "command": command,
        "members": members,
        "base_bytes": found["base"],
        "estimate_bytes": found["estimate"],  # before anything is compiled
        "forecast_bytes": found["forecast"],
        "peak_bytes": peak,
        "forecast_over_peak": round(found["forecast"] / peak, 3),
    }
    print(line(row), flush=True)
    return row


def line(row: dict[str, Any]) -> str:
    forecast, peak = (row[name] / 2**20 for name in ("forecast_bytes", "peak_bytes"))
    return (
        f"{row['command']:<10}{row['members']:>7} members  forecast {forecast:8.0f} MiB  "
        f"peak {peak:8.0f} MiB  ratio {row['forecast_over_peak']:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", nargs="*", default=USUAL, help=", ".join(SIZES))
    parser.add_argument("--sizes", type=int, nargs="+", help="members, in place of the usual ones")
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    machine = hardware()
    name = f"forecast_{re.sub('[^a-z0-9]+', '-', machine.lower())}_{today}.json"
    parser.add_argument("--out", type=Path, default=RESULTS / name)
    asked = parser.parse_args()
    rows = []
    if asked.out.exists():  # keeps what is not measured again
        rows = json.loads(asked.out.read_text("utf-8"))["rows"]
    for command in asked.command:
        for members in asked.sizes or SIZES[command]:
            new = {"date": today, "source": source_digest(), **row_of(command, members)}
            of_row = {(row["command"], row["members"]): row for row in rows}
            rows = list({**of_row, (command, members): new}.values())
            content = {"hardware": machine, "jax": version("jax"), "rows": rows}
            asked.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]))
    else:
        main()
