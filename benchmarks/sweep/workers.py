"""Three real workers on one study, one of them killed: `python benchmarks/sweep/workers.py`.

Starts three `ppo-jax sweep ... --sampler tpe` processes on one storage, sends SIGKILL to one that
is training, waits for the others, and counts trials in the storage. Once on a SQLite file and once
on a PostgreSQL server that is started for it, or once on the `--storage` URL.
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

STORAGES = ("sqlite", "postgresql")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=int, default=18)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--storage", default=",".join(STORAGES), help="these, or a URL")
    parser.add_argument("--out", type=Path, default=record.default_out("workers"))
    arguments = parser.parse_args()
    result = record.opening("three workers on one study, one killed with SIGKILL while it trained")
    result |= {"settings": arguments.settings, "storages": {}}
    for wanted in arguments.storage.split(","):
        with tempfile.TemporaryDirectory() as folder, opened_storage(wanted, Path(folder)) as url:
            found = run(arguments, Path(folder), url)
        result["storages"][url.partition(":")[0].partition("+")[0]] = found
        record.write(result, arguments.out)
        print(json.dumps(found), flush=True)


@contextmanager
def opened_storage(wanted: str, folder: Path) -> Iterator[str]:
    """The URL of a storage that exists within the context."""
    if wanted == "postgresql":
        with postgres.server() as url:
            yield url
    else:
        yield f"sqlite:///{folder / 'study.db'}" if wanted == "sqlite" else wanted


def run(arguments: argparse.Namespace, folder: Path, storage: str) -> dict[str, Any]:
    """Run three workers until the study is over, and count the trials in the storage."""
    begin = time.perf_counter()
    workers = [start(arguments, folder / f"worker{i}", storage) for i in range(3)]
    victim = workers[0]
    assert victim.stderr is not None
    told = []
    for line in victim.stderr:
        told.append(line)
        if line.startswith("training settings"):
            break
    time.sleep(1.0)
    if victim.poll() is not None:
        raise SystemExit(f"the first worker ended before it could be killed: {''.join(told)}")
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    summaries = []
    for worker in workers[1:]:
        stdout, stderr = worker.communicate()
        if worker.returncode:
            raise SystemExit(stdout + stderr[-3000:])
        summaries.append(json.loads(stdout))
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


def start(arguments: argparse.Namespace, out: Path, storage: str) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "ppo_jax", "sweep", "CartPole-v1", "lr=1e-4..1e-2:log"),
        *("clip_epsilon=0.1..0.3", "--sampler", "tpe", "--settings", str(arguments.settings)),
        *("--batch", str(arguments.batch), "--seeds", "2", "--study", "killed", "--json"),
        *("--storage", storage, "--grace-seconds", "10", "--out", str(out)),
        *("--total-env-steps", str(arguments.steps), "--eval-episodes", "16"),
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=record.ROOT)


if __name__ == "__main__":
    main()
