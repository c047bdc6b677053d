"""Waiting times of a new user: `python benchmarks/speed/start.py` (4 minutes on two cores).

Wall time from the start of the process to a solved CartPole (deterministic return of 475 or more)
with the preset, once with an empty compile cache and once with a filled one. Also the time to the
output of `--help` and to the refusal of a bad input. Commands alternate, round after round.

`whole` is `ppo-jax train CartPole-v1` as typed, which prints the return after training. `stop`
evaluates during training (`--eval-every`) and ends there (`--stop-at-return 475`). `solved_seconds`
is the time at which the first such return is on the screen. Only the compile cache is cold:
Python's bytecode and matplotlib's list of fonts exist from a first round that does not count.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from machine import ROOT, begin, default_out, store

GOAL = 475.0
TRAIN = ("train", "CartPole-v1")
STOP = ("--eval-every", "10000", "--eval-episodes", "128", "--stop-at-return", f"{GOAL:g}")
TRAININGS = {"whole": TRAIN, "stop": (*TRAIN, *STOP)}
QUICK = {
    "--help": (("--help",), 0),
    "train --help": (("train", "--help"), 0),
    "train CartPole-v9": (("train", "CartPole-v9"), 2),
}
GOALS_SECONDS = {"cold": 15.0, "warm": 7.0, "quick": 0.5}
RETURN = re.compile(r"\breturn +(-?[0-9][0-9.]*)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of every command")
    parser.add_argument("--python", default=sys.executable, help="that ppo_jax is installed for")
    parser.add_argument("--hardware", help="name of this machine in the result")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    record = begin(
        "seconds from typing a command to its output",
        " ".join(["python", "benchmarks/speed/start.py", *sys.argv[1:]]),
        arguments.hardware,
    )
    out = arguments.out or default_out(record["machine"]["hardware"], "start")
    command = installed(arguments.python)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        warm = place / "warm"
        record |= {
            "rounds": arguments.rounds,
            "goals_seconds": GOALS_SECONDS,
            "versions": versions(arguments.python),
            "trainings": {name: {"cold": [], "warm": []} for name in TRAININGS},
            "quick": {name: [] for name in QUICK},
        }
        for words in TRAININGS.values():  # fills the warm cache, and does not count
            train(command, words, place, warm)
        for index in range(arguments.rounds):
            for name, words in TRAININGS.items():
                for kind, cache in (("cold", place / f"{name}-{index}"), ("warm", warm)):
                    found = train(command, words, place, cache)
                    record["trainings"][name][kind].append(found)
            for name, (words, code) in QUICK.items():
                record["quick"][name].append(quick(command, words, code, place, warm))
            store(record, out)
        record["summary"] = summary(record)
        record["imports"] = {
            name: imports(arguments.python, words, place, warm)
            for name, words in (("--help", ("--help",)), ("train", TRAIN))
        }
    store(record, out)
    for name, seconds in record["summary"].items():
        told = ["never" if x is None else f"{x:.2f} s" for x in seconds.values()]
        print(f"{name:<28}{told[0]:>10}   ({told[1]} to {told[2]})")
    for name, packages in record["imports"].items():
        told = ", ".join(f"{package} {value:.2f}" for package, value in packages.items())
        print(f"seconds of imports, {name}: {told}")
    print(out)


def installed(python: str) -> list[str]:
    """The command of a user: the script beside the interpreter, else the module."""
    script = Path(python).parent / "ppo-jax"
    return [str(script)] if script.exists() else [python, "-m", "ppo_jax"]


def environment(place: Path, cache: Path) -> dict[str, str]:
    """The user's environment with its own cache of compiled programs."""
    settings = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_", "XLA_")) or name == "JAX_PLATFORMS"
    }
    fonts = place / "matplotlib"
    return settings | {
        "XDG_CACHE_HOME": str(cache),
        "MPLCONFIGDIR": str(fonts),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",  # so that a line's time is that of its writing
    }


def train(command: list[str], words: tuple[str, ...], place: Path, cache: Path) -> dict[str, Any]:
    """Seconds until the output, and every line on the screen with its time."""
    with tempfile.TemporaryDirectory(dir=place) as run:
        started, started_cpu = time.perf_counter(), children_cpu_seconds()
        process = subprocess.Popen(
            [*command, *words, "--out", str(Path(run) / "run")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(place, cache),
        )
        assert process.stdout is not None
        lines = [(time.perf_counter() - started, line.strip()) for line in process.stdout]
        process.wait()
        seconds = time.perf_counter() - started
        cpu_seconds = children_cpu_seconds() - started_cpu
    if process.returncode:
        raise RuntimeError("\n".join(line for _, line in lines))
    solved = next((at for at, line in lines if is_solved(line)), None)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "solved_seconds": solved,
        "lines": [(round(at, 3), line.replace(run, "")) for at, line in lines],
    }


def is_solved(line: str) -> bool:
    """Check that the line reports a deterministic return that is high enough."""
    if not line.startswith(("evaluated after ", "return ")):
        return False  # returns of episodes that ended while training are of sampled actions
    found = RETURN.search(line)
    return found is not None and float(found[1]) >= GOAL


def quick(
    command: list[str], words: tuple[str, ...], code: int, place: Path, cache: Path
) -> dict[str, float]:
    started, started_cpu = time.perf_counter(), children_cpu_seconds()
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, env=environment(place, cache)
    )
    seconds = time.perf_counter() - started
    cpu_seconds = children_cpu_seconds() - started_cpu
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}, not {code}")
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def children_cpu_seconds() -> float:
    """CPU time of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summary(record: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Medians and ranges; a training that was not solved counts as endless."""
    found = {}
    for name, kinds in record["trainings"].items():
        for kind, runs in kinds.items():
            solved = [run["solved_seconds"] for run in runs]
            found[f"{name}, {kind}: solved"] = spread([x or math.inf for x in solved])
            found[f"{name}, {kind}: ended"] = spread([run["seconds"] for run in runs])
            found[f"{name}, {kind}: CPU"] = spread([run["cpu_seconds"] for run in runs])
    for name, runs in record["quick"].items():
        found[name] = spread([run["seconds"] for run in runs])
    return found


def spread(values: list[float]) -> dict[str, float | None]:
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def imports(python: str, words: tuple[str, ...], place: Path, cache: Path) -> dict[str, float]:
    """Seconds of importing by top-level package, without its imports, the largest ten first."""
    with tempfile.TemporaryDirectory(dir=place) as run:
        given = ["--out", str(Path(run) / "run")] if words[0] == "train" else []
        done = subprocess.run(
            [python, "-X", "importtime", "-m", "ppo_jax", *words, *given],
            capture_output=True,
            text=True,
            env=environment(place, cache),
        )
    total: dict[str, float] = defaultdict(float)
    for line in done.stderr.splitlines():
        found = re.match(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)", line)
        if found:
            total[found[2].partition(".")[0]] += int(found[1]) / 1e6
    largest = sorted(total.items(), key=lambda item: -item[1])[:10]
    return {"all": sum(total.values()), **dict(largest)}


def versions(python: str) -> dict[str, str]:
    names = ("ppo-jax", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy", "matplotlib")
    ask = f"import importlib.metadata as m; [print(n, m.version(n)) for n in {names}]"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True)
    python_version = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {"python": python_version, **dict(x.split() for x in done.stdout.splitlines())}


if __name__ == "__main__":
    main()
