"""CPU seconds of one training on 1, 2, 4 and 8 devices, and on 1, 2 and 4 hosts of one machine.

    python benchmarks/speed/hosts.py                # seeds and environments, some minutes
    python benchmarks/speed/hosts.py seeds          # one case

Devices and hosts share the machine's cores, so this is no speed: it shows what more devices and
hosts cost in all. Each row is a run of its own, with its start and its compilation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import socket
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
COMMON = "--platform cpu --quiet --json --eval-episodes 2 --num-minibatches 4"
CASES = {
    "seeds": f"--seeds 8 --num-envs 16 --rollout-length 32 --total-env-steps 32768 {COMMON}",
    "environments": f"--num-envs 128 --rollout-length 128 --total-env-steps 131072 {COMMON}",
}
AXES = {"seeds": "seed", "environments": "env"}
LONGEST = 1200  # seconds of one run
PLACES = ((1, 1), (2, 1), (4, 1), (8, 1), (2, 2), (4, 4))  # devices in all, hosts


def flags_of(devices: int) -> str:
    """XLA's flags of a process with so many devices."""
    given = re.sub(
        r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", "")
    )
    return f"{given} --xla_force_host_platform_device_count={devices}".strip()


def row_of(case: str, devices: int, hosts: int) -> dict[str, Any]:
    """One run: CPU seconds of all its processes, and the first host's summary."""
    mesh = f"{AXES[case]}={devices}"
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        words = [sys.executable, "-m", "ppo_jax", "train", "CartPole-v1", *CASES[case].split()]
        words += ["--mesh", mesh, "--out", f"{folder}/run"]
        joined = ["--coordinator", f"127.0.0.1:{port}", "--num-hosts", str(hosts), "--host-index"]
        environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
        environment |= {"XLA_FLAGS": flags_of(devices // hosts)}
        before = cpu_seconds()
        processes = [
            subprocess.Popen(
                [*words, *([*joined, str(i)] if hosts > 1 else [])],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(hosts)
        ]
        try:
            outputs = [process.communicate(timeout=LONGEST)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{case} on {devices} devices and {hosts} hosts failed: {outputs}")
    summary = json.loads(outputs[0])
    row = {
        "case": case,
        "devices": devices,
        "hosts": hosts,
        "cpu_seconds": round(cpu_seconds() - before, 2),
        "train_seconds": summary["train_seconds"],
        "final_return_iqm": summary["final_return"]["iqm"],
    }
    print(json.dumps(row), flush=True)
    return row


def cpu_seconds() -> float:
    """CPU time of all child processes that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", nargs="*", choices=[*CASES, []], help="one or both (default: both)")
    cases = parser.parse_args().case
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    rows: list[dict[str, Any]] = []
    content = {
        "date": today,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": versions(),
        "load": os.getloadavg()[0],  # of other programs: the train seconds suffer from it
        "cases": {case: CASES[case] for case in cases or CASES},
        "rows": rows,
    }
    file = RESULTS / f"hosts_{os.cpu_count()}-cores_{today}.json"
    for case in content["cases"]:
        for place in PLACES:
            rows.append(row_of(case, *place))
            file.write_text(json.dumps(content, indent=1) + "\n")  # what is there is kept
    print(file)


if __name__ == "__main__":
    main()
