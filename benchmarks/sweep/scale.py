"""Growth of a sweep with its settings: `python benchmarks/sweep/scale.py`.

Each count of settings is one `ppo-jax sweep --sampler random` of tiny runs in a process of its own:
CartPole-v1, 4 environments x 16 steps x 4 iterations, each of them a logged point. So the cost of a
setting is the sweep's own, not its training's. Recorded are seconds, the process's peak of memory,
and the bytes of the folder by file. `--source` measures another checkout, too. `--then` measures
commands that read the finished folder: the sweep again, and `runs`.
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
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--then", action="store_true", help="read the folder with other commands")
    parser.add_argument("--device-memory", help="as of `ppo-jax sweep`: smaller packs")
    parser.add_argument("--source", type=Path, nargs="+", default=[record.ROOT])
    parser.add_argument("--out", type=Path, default=record.default_out("scale"))
    arguments = parser.parse_args()
    result = record.opening("a random sweep of tiny runs by the number of its settings")
    result |= {"env_steps_per_member": 64 * arguments.iterations, "runs": []}
    for count in arguments.settings:
        for source in arguments.source:
            found = measured(source.resolve(), count, arguments)
            result["runs"].append(found)
            record.write(result, arguments.out)
            print(json.dumps(found), flush=True)


def measured(source: Path, count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one sweep, and measure its process and its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sweep"
        limit = arguments.device_memory
        words = [
            *("sweep", "CartPole-v1", *AXES, "--json", "--quiet", "--out", str(folder)),
            *("--sampler", "random", "--settings", str(count), "--seeds", str(arguments.seeds)),
            *("--fresh-seeds", "0", "--num-envs", "4", "--rollout-length", "16", "--no-preset"),
            *("--total-env-steps", str(64 * arguments.iterations), "--log-every", "64"),
            *("--eval-episodes", "4"),
            *([] if limit is None else ["--device-memory", limit]),
        ]
        commit = git_commit(source)
        answer, cost = run(source, words, Path(name))
        summary = json.loads(answer)
        readers = {
            "sweep FOLDER": ["sweep", str(folder), "--quiet"],
            "runs": ["runs", name],
        }
        return {
            "source": commit,
            "settings": count,
            "seeds": arguments.seeds,
            "device_memory": limit,
            "packs": len(list(folder.glob("packs/*/pack.json"))),
            **cost,
            "train_seconds": summary["train_seconds"],
            "compile_seconds": summary["compile_seconds"],
            "folder_bytes": sum(sizes(folder).values()),
            "files": {k: size for k, size in sizes(folder).items() if size > 20_000},
            "then": {
                name_of: run(source, words, Path(name))[1] for name_of, words in readers.items()
            }
            if arguments.then
            else {},
        }


def run(source: Path, words: list[str], folder: Path) -> tuple[str, dict[str, Any]]:
    """Run `ppo-jax` with some words in a folder: its answer, and its time and peak of memory."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(source),
        "JAX_COMPILATION_CACHE_DIR": str(folder),
    }
    answer, errors = folder / "answer.json", folder / "errors"
    begin = time.perf_counter()
    with answer.open("w") as stdout, errors.open("w") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "ppo_jax", *words],
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd=folder,
        )
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(errors.read_text()[-3000:])
    cost = {
        "wall_seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "host_peak_bytes": usage.ru_maxrss * 1024,
    }
    return answer.read_text(), cost


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
