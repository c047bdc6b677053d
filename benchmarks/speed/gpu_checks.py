"""What a GPU must keep besides its speed: `python benchmarks/speed/gpu_checks.py`.

- A run that was stopped and resumed has the bits of one that was not, with and without the cache of
  compiled programs.
- The forecast of memory is compared with the measured peak.
- Two GPUs train two seeds, and one seed whose environments they share, if two are there.
- `ppo-jax doctor` reports the machine.

Each check is a process of its own. The result is stored after each; a check that fails is named and
the others go on. `--small` tries everything on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from machine import ROOT, begin, default_out, store

STOPPED = 75  # exit code of a run that was stopped and is saved
SECONDS = 300.0  # a process that takes longer is ended
PEAK = """
import json, resource, sys
import jax
from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed.layout import choose_layout
from ppo_jax.distributed.memory import forecast
from ppo_jax.distributed.population import abstract_population
from ppo_jax.distributed import door, programs
from ppo_jax.runtime.startup import begin
from ppo_jax.training.schedules import as_arrays
config = Config(**json.loads(sys.argv[1]))
hyper, layout = as_arrays(config, Hyper()), choose_layout(config, 1)
expected = forecast(config, layout, abstract_population(config, hyper, layout))
begun = begin(config, hyper, 0, layout)
chunk = begun.chunk.compile()
state, rows = chunk(hyper, begun.state, jax.numpy.asarray(2))
jax.block_until_ready(state)
stats = jax.local_devices()[0].memory_stats() or {}
print(json.dumps({
    "forecast_bytes": expected.device,
    "forecast_with_program_bytes": expected.with_program(chunk).device,
    "peak_bytes": stats.get("peak_bytes_in_use"),
    "main_memory_peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
}))
"""


class Failed(RuntimeError):
    """A process ended badly."""


def call(words: Sequence[str], folder: Path, codes: Sequence[int] = (0,), **env: str) -> str:
    """Run this Python in a folder; return what it prints.

    Raises:
        Failed: another exit code, or no end in time.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, **env}
    try:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"no end within {SECONDS:.0f} s: {' '.join(words)[:200]}") from None
    if done.returncode not in codes:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Failed(f"exit code {done.returncode}: {lines[-1][:300] if lines else ''}")
    return done.stdout


def train(folder: Path, options: str, codes: Sequence[int] = (0,), **env: str) -> str:
    words = f"-m ppo_jax train CartPole-v1 --no-preset --quiet --json --eval-episodes 4 {options}"
    return call(words.split(), folder, codes, **env)


def same_bits(one: Path, other: Path) -> bool:
    """Check that the last checkpoints of two runs hold equal arrays."""
    newest = [
        max(run.rglob("arrays.safetensors"), key=lambda p: p.stat().st_mtime_ns)
        for run in (one, other)
    ]
    first, second = (safetensors.numpy.load_file(path) for path in newest)
    return first.keys() == second.keys() and all(
        np.array_equal(first[name].view(np.uint8), second[name].view(np.uint8)) for name in first
    )


def resumed(folder: Path, is_small: bool) -> dict[str, Any]:
    """Bits of a run that was stopped at its start and resumed, next to those of a whole one."""
    envs, steps = (16, 8192) if is_small else (2048, 2_621_440)
    options = f"--num-envs {envs} --rollout-length 128 --total-env-steps {steps}"
    found = {}
    for name, env in (
        ("with the cache", {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}),
        ("without the cache", {"JAX_ENABLE_COMPILATION_CACHE": "false"}),
    ):
        whole, parts = (folder / f"{word}-{name.split()[0]}" for word in ("whole", "parts"))
        train(folder, f"{options} --out {whole}", **env)
        train(folder, f"{options} --out {parts} --max-seconds 0.001", (0, STOPPED), **env)
        call(f"-m ppo_jax resume {parts} --quiet --json".split(), folder, **env)
        found[f"same_bits_{name.replace(' ', '_')}"] = same_bits(whole, parts)
    return found


def memory(folder: Path, is_small: bool) -> dict[str, Any]:
    """Forecast and measured peak of a training program's memory."""
    config = {"num_envs": 16 if is_small else 16_384, "rollout_length": 128}
    return json.loads(call(["-c", PEAK, json.dumps(config)], folder).splitlines()[-1])


def two_devices(folder: Path, is_small: bool) -> dict[str, Any]:
    """Seconds of two seeds, and of one seed's environments, on one device and on two."""
    count = call(["-c", "import jax; print(len(jax.devices()))"], folder, **virtual(is_small))
    if int(count.split()[-1]) < 2:
        return {"left_out": "one device is there"}
    envs, steps = (64, 32_768) if is_small else (16_384, 41_943_040)
    options = f"--num-envs {envs} --rollout-length 128 --total-env-steps {steps}"
    found = {}
    for name, more in (("seeds", "--seeds 2"), ("environments", "")):
        for devices, mesh in ((1, ""), (2, f"--mesh {'seed' if more else 'env'}=2")):
            out = folder / f"{name}-{devices}"
            words = f"{options} {more} --out {out} " + (mesh or "--devices 1")
            found[f"{name}_{devices}"] = json.loads(train(folder, words, **virtual(is_small)))[
                "env_steps_per_second"
            ]
    return found


def virtual(is_small: bool) -> dict[str, str]:
    """Two virtual devices of a CPU."""
    return {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"} if is_small else {}


def doctor(folder: Path, is_small: bool) -> dict[str, Any]:
    del is_small
    return json.loads(call(["-m", "ppo_jax", "doctor", "--json"], folder, (0, 1)))


CHECKS: dict[str, Callable[[Path, bool], dict[str, Any]]] = {
    "doctor": doctor,
    "resume": resumed,
    "memory": memory,
    "two_devices": two_devices,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small sizes, on a CPU")
    parser.add_argument("--only", nargs="+", choices=CHECKS, help="some of the checks")
    parser.add_argument("--out", help="result file (default: benchmarks/results/gpu-checks_...)")
    arguments = parser.parse_args()
    if arguments.small:
        os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory(prefix="gpu-checks-") as name:
        asked = "import jax; print(jax.local_devices()[0].device_kind)"
        device = call(["-c", asked], Path(name)).splitlines()[-1]
        out = Path(arguments.out) if arguments.out else default_out(device, "gpu-checks")
        command = " ".join(["python", "benchmarks/speed/gpu_checks.py", *sys.argv[1:]])
        record = begin("what a GPU must keep", command, None) | {"device": device, "checks": {}}
        for check in arguments.only or CHECKS:
            started, folder = time.monotonic(), Path(name) / check
            folder.mkdir()
            try:
                found = CHECKS[check](folder, arguments.small)
            except (Failed, KeyError, ValueError) as error:
                found = {"error": str(error)}
            found["seconds"] = round(time.monotonic() - started, 1)
            record["checks"][check] = found
            store(record, out)
            print(f"{check}: {json.dumps(found)[:400]}", flush=True)
    print(out)


if __name__ == "__main__":
    main()
