"""Three real workers on one study, one of them killed: `python benchmarks/sweep/workers.py`.

Starts three `ppo-jax sweep ... --sampler tpe` processes on a SQLite file (or --storage URL), sends
SIGKILL to one that is training, waits for the others, and counts trials in the storage.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=int, default=18)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--storage")
    parser.add_argument("--out", default=str(ROOT / "benchmarks/results/sweep_workers.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = run(arguments, Path(folder))
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


def run(arguments: argparse.Namespace, folder: Path) -> dict:
    storage = arguments.storage or f"sqlite:///{folder / 'study.db'}"
    begin = time.perf_counter()
    workers = [start(arguments, folder / f"worker{i}", storage) for i in range(3)]
    victim = workers[0]
    for line in victim.stderr:
        if line.startswith("training settings"):
            break
    time.sleep(1.0)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    summaries = []
    for worker in workers[1:]:
        stdout, stderr = worker.communicate()
        if worker.returncode:
            raise SystemExit(stdout + stderr[-3000:])
        summaries.append(json.loads(stdout))
    sys.path.insert(0, str(ROOT))
    from ppo_jax.sweeping import study

    opened = study.open_study("killed", storage, folder, 0)
    trials = opened.get_trials()
    roots = study.roots(trials, arguments.settings)
    told = collections.Counter(study.root_of(t) for t in trials if t.state.name == "COMPLETE")
    return {
        "what": "three workers on one study, one killed with SIGKILL while it trained",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/sweep/workers.py", *sys.argv[1:]]),
        "settings": arguments.settings,
        "lost": [root for root in roots if not told[root]],
        "told_twice": [root for root in roots if told[root] > 1],
        "not_asked_for": [root for root in told if root not in roots],
        "taken_over": sum(study.ROOT in t.user_attrs for t in trials),
        "by_worker": dict(
            collections.Counter(t.user_attrs[study.WORKER] for t in trials if study.is_done(t))
        ),
        "settings_in_each_summary": [summary["num_settings"] for summary in summaries],
        "winner_trained_again_by": sum(s["best"]["fresh"] is not None for s in summaries),
        "wall_seconds": time.perf_counter() - begin,
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
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)


if __name__ == "__main__":
    main()
