"""Three real workers on one study, one of them killed: `python benchmarks/sweep/workers.py`.

Starts three `ppo-jax sweep ... --sampler tpe` processes on one storage, sends SIGKILL to one that
is training, waits for the others, and counts trials in the storage. `--kind packs` does so with the
packs of a random sweep (`--join`): a fourth worker joins after the kill, and the table is compared
with that of one process. Each storage is tried: a journal, a SQLite file, and a PostgreSQL server
that is started for it, or the `--storage` URL alone.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import postgres
import record

STORAGES = ("journal", "sqlite", "postgresql")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("tpe", "packs"), default="tpe")
    parser.add_argument("--settings", type=int, default=18)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--storage", default=",".join(STORAGES), help="these, or a URL")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    name = {"tpe": "workers", "packs": "workers-packs"}[arguments.kind]
    out, kill = arguments.out or record.default_out(name), {"tpe": run, "packs": run_packs}
    result = record.opening("three workers on one study, one killed with SIGKILL while it trained")
    result |= {"kind": arguments.kind, "settings": arguments.settings, "storages": {}}
    for wanted in arguments.storage.split(","):
        with tempfile.TemporaryDirectory() as folder, opened_storage(wanted, Path(folder)) as url:
            found = kill[arguments.kind](arguments, Path(folder), url)
        scheme = url.partition(":")[0].partition("+")[0] if "://" in url else "journal"
        result["storages"][scheme] = found
        record.write(result, out)
        print(json.dumps(found), flush=True)


@contextmanager
def opened_storage(wanted: str, folder: Path) -> Iterator[str]:
    """The URL of a storage that exists within the context."""
    if wanted == "postgresql":
        with postgres.server() as url:
            yield url
    else:
        known = {"sqlite": f"sqlite:///{folder / 'study.db'}", "journal": f"{folder / 'study.log'}"}
        yield known.get(wanted, wanted)


def run(arguments: argparse.Namespace, folder: Path, storage: str) -> dict[str, Any]:
    """Run three workers until the study is over, and count the trials in the storage."""
    begin = time.perf_counter()
    workers = [start(arguments, folder / f"worker{i}", storage) for i in range(3)]
    kill_in_training(workers[0], "training settings")
    summaries = [summary_of(worker) for worker in workers[1:]]
    from ppo_jax.apps.sweep.search import study

    opened = study.open_study("killed", storage, folder, 0)
    trials = opened.get_trials()
    roots = study.roots(trials, arguments.settings)
    counts = collections.Counter(study.root_of(t) for t in trials if t.state.name == "COMPLETE")
    by_worker = collections.Counter(t.user_attrs[study.WORKER] for t in trials if study.is_done(t))
    return {
        "lost": [root for root in roots if not counts[root]],
        "told_twice": [root for root in roots if counts[root] > 1],
        "not_asked_for": [root for root in counts if root not in roots],
        "taken_over": sum(study.ROOT in trial.user_attrs for trial in trials),
        "settings_told_by_each_worker": sorted(by_worker.values()),
        "settings_in_each_summary": [summary["num_settings"] for summary in summaries],
        "winner_trained_again_by": sum(s["best"]["fresh"] is not None for s in summaries),
        "wall_seconds": round(time.perf_counter() - begin, 1),
    }


def run_packs(arguments: argparse.Namespace, folder: Path, storage: str) -> dict[str, Any]:
    """Run three workers on shared packs and one process alone; compare what they leave."""
    count = -(-arguments.settings // arguments.batch)
    own = ["--sampler", "random", "--packs", str(count), "--save-seconds", "0.5"]
    summary_of(start_sweep(arguments, folder / "alone", own))
    begin = time.perf_counter()
    own += ["--join", "--storage", storage, "--grace-seconds", "10"]
    workers = [start_sweep(arguments, folder / "shared", own) for _ in range(3)]
    kill_in_training(workers[0], "group 1/1, pack")
    workers.append(start_sweep(arguments, folder / "shared", own))
    for worker in workers[1:]:
        summary_of(worker)
    seconds = time.perf_counter() - begin
    from ppo_jax.apps.sweep import folder as folders
    from ppo_jax.apps.sweep.search import study

    name = f"sweep-{folders.sweep_id(folder / 'shared')}"
    trials = study.open_study(name, storage, folder, 0).get_trials()
    counts = collections.Counter(study.root_of(t) for t in trials if t.state.name == "COMPLETE")
    by_worker = collections.Counter(t.user_attrs[study.WORKER] for t in trials if study.is_done(t))
    same = ("table.csv", "scores.csv", "best.toml")
    texts = [[(folder / each / file).read_bytes() for file in same] for each in ("alone", "shared")]
    return {
        "packs": count,
        "lost": count - len(list((folder / "shared").glob("packs/*/result.json"))),
        "told_twice": [root for root in counts if counts[root] > 1],
        "taken_over": sum(study.ROOT in trial.user_attrs for trial in trials),
        "packs_told_by_each_worker": sorted(by_worker.values()),
        "equal_to_one_process": {f: a == b for f, a, b in zip(same, *texts, strict=True)},
        "wall_seconds": round(seconds, 1),
    }


def kill_in_training(victim: subprocess.Popen[str], sign: str) -> None:
    """Send SIGKILL a second after the worker has printed a line that begins with `sign`."""
    assert victim.stderr is not None
    told = []
    for line in victim.stderr:
        told.append(line)
        if line.startswith(sign):
            break
    time.sleep(1.0)
    if victim.poll() is not None:
        raise SystemExit(f"the first worker ended before it could be killed: {''.join(told)}")
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()


def summary_of(worker: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a worker, and read the summary that it prints."""
    stdout, stderr = worker.communicate()
    if worker.returncode:
        raise SystemExit(stdout + stderr[-3000:])
    return json.loads(stdout)


def start(arguments: argparse.Namespace, out: Path, storage: str) -> subprocess.Popen[str]:
    own = ["--sampler", "tpe", "--batch", str(arguments.batch), "--study", "killed"]
    own += ["--storage", storage, "--grace-seconds", "10"]
    return start_sweep(arguments, out, own)


def start_sweep(arguments: argparse.Namespace, out: Path, own: list[str]) -> subprocess.Popen[str]:
    """Start a sweep of two numbers, which prints its summary."""
    command = [
        *(sys.executable, "-m", "ppo_jax", "sweep", "CartPole-v1", "lr=1e-4..1e-2:log"),
        *("clip_epsilon=0.1..0.3", "--settings", str(arguments.settings), "--seeds", "2"),
        *("--total-env-steps", str(arguments.steps), "--eval-episodes", "16", "--json"),
        *("--out", str(out), *own),
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=record.ROOT)


if __name__ == "__main__":
    main()
