"""Growth of a sweep with its settings: `python benchmarks/sweep/scale.py`.

Each count of settings is one `ppo-jax sweep --sampler random` of tiny runs in a process of its own:
CartPole-v1, one seed, 4 environments x 16 steps x 4 iterations, each of them a logged point. So
the cost of a setting is the sweep's own, not its training's. Recorded are seconds, the process's
peak of memory, and the bytes of the folder by file. `--source` measures another checkout, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

COUNTS = (64, 1024, 4096)
AXES = ("learning_rate=1e-4..1e-2:log", "gamma=0.9..0.999", "clip_epsilon=0.1..0.3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--device-memory", help="as of `ppo-jax sweep`: smaller packs")
    parser.add_argument("--source", type=Path, nargs="+", default=[record.ROOT])
    parser.add_argument("--out", type=Path, default=record.default_out("scale"))
    arguments = parser.parse_args()
    result = record.opening("a random sweep of tiny runs by the number of its settings")
    result |= {"env_steps_per_member": 256, "runs": []}
    for count in arguments.settings:
        for source in arguments.source:
            found = measured(source.resolve(), count, arguments.device_memory)
            result["runs"].append(found)
            record.write(result, arguments.out)
            print(json.dumps(found), flush=True)


def measured(source: Path, count: int, device_memory: str | None) -> dict[str, Any]:
    """Run one sweep, and measure its process and its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sweep"
        command = [
            *(sys.executable, "-m", "ppo_jax", "sweep", "CartPole-v1", *AXES, "--json", "--quiet"),
            *("--sampler", "random", "--settings", str(count), "--seeds", "1", "--no-preset"),
            *("--fresh-seeds", "0", "--num-envs", "4", "--rollout-length", "16"),
            *("--total-env-steps", "256", "--log-every", "64", "--eval-episodes", "4"),
            *("--out", str(folder)),
            *([] if device_memory is None else ["--device-memory", device_memory]),
        ]
        environment = {**os.environ, "PYTHONPATH": str(source), "JAX_COMPILATION_CACHE_DIR": name}
        answer, errors = Path(name) / "answer.json", Path(name) / "errors"
        begin = time.perf_counter()
        with answer.open("w") as stdout, errors.open("w") as stderr:
            child = subprocess.Popen(
                command, stdout=stdout, stderr=stderr, env=environment, cwd=name
            )
            _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(errors.read_text()[-3000:])
        summary = json.loads(answer.read_text())
        return {
            "source": git_commit(source),
            "settings": count,
            "device_memory": device_memory,
            "packs": len(list(folder.glob("packs/*/pack.json"))),
            "wall_seconds": round(seconds, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "train_seconds": summary["train_seconds"],
            "compile_seconds": summary["compile_seconds"],
            "host_peak_bytes": usage.ru_maxrss * 1024,
            "folder_bytes": sum(sizes(folder).values()),
            "files": {k: size for k, size in sizes(folder).items() if size > 20_000},
        }


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of a folder, those of all packs together."""
    found: dict[str, int] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        name = f"packs/*/{path.name}" if name.startswith("packs/") else name
        found[name] = found.get(name, 0) + path.stat().st_size
    return found


def git_commit(source: Path) -> str:
    """The commit of a checkout, with + if files differ from it."""
    words = ["git", "-C", str(source), "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
