"""Prove that a refactor changes no number: train small runs with two versions, compare every bit.

    python scripts/same_numbers.py BEFORE AFTER [--cases clip,kl]

BEFORE and AFTER are git commits or paths of checkouts. Each case calls `python -m ppo_jax ...` with
either version, on the CPU, in processes and a folder of its own. Metrics, arrays of checkpoints,
returns, evaluations and tables of sweeps are compared; clock times, paths and digests are not.

Both versions share one compilation cache. It is keyed by the program, so a changed program is
compiled anew and no difference is hidden. Set JAX_COMPILATION_CACHE_DIR to keep it: the next call
then takes about half as long. The exit code is 1 if a number differs, a case fails or none
can be compared.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from same_numbers_cases import CASES, OWN_PARTS, Case

REPOSITORY = Path(__file__).resolve().parent.parent
WORKERS = min(4, os.cpu_count() or 1)  # cases at a time
GOOD, BAD_INPUT, STOPPED = 0, 2, 75  # exit codes of ppo_jax


# What is compared --------------------------------------------------------------------------------

# The numbers in summaries, which also hold clock times and paths.
RESULTS = (
    *("env_steps", "env_steps_in_all", "members", "final_return", "num_failed"),
    *("episodes_cut", "episode_length_mean", "best", "schedules", "rungs_env_steps"),
)

Values = dict[str, str | np.ndarray]  # by key, in order; numbers as they are written, or arrays


def read_rows(path: Path) -> Values:
    """Every value of a JSON-lines or CSV file, and each whole line, so that all bytes count."""
    text = path.read_text("utf-8")
    is_csv = path.suffix == ".csv"
    rows = csv.DictReader(text.splitlines()) if is_csv else map(json.loads, text.splitlines())
    lines = text.splitlines(keepends=True)
    values: Values = {"header": lines.pop(0)} if is_csv and lines else {}
    for number, (row, line) in enumerate(zip(rows, lines, strict=True), 1):
        values |= {f"row {number}, {key}": value for key, value in flat(row)}
        values[f"row {number}"] = line
    return values


def read_results(path: Path) -> Values:
    """The results in a summary."""
    content = json.loads(path.read_text("utf-8"))
    return dict(flat({key: content[key] for key in RESULTS if key in content}))


def flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The values in nested JSON objects, with keys such as `best.fresh.iqm`."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}".lstrip("."))
    else:
        yield key, json.dumps(value)


def read_arrays(path: Path) -> Values:
    """The arrays of a checkpoint."""
    return dict(sorted(safetensors.numpy.load_file(path).items()))


READERS: dict[str, Callable[[Path], Values]] = {
    "metrics.jsonl": read_rows,
    "lineage.jsonl": read_rows,
    "*.csv": read_rows,
    "arrays.safetensors": read_arrays,
    "summary.json": read_results,
    "result.json": read_results,
    "stdout-*.json": read_results,
}


def numbers(folder: Path) -> dict[str, Values]:
    """What is compared in a case's folder, by file."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        readers = [read for pattern, read in READERS.items() if fnmatch(path.name, pattern)]
        if readers:
            found[str(path.relative_to(folder))] = readers[0](path)
    return found


def first_difference(before: Path, after: Path) -> str | None:
    """File, key and values of the first difference between two folders; None if there is none."""
    old, new = numbers(before), numbers(after)
    if not any(file.endswith("metrics.jsonl") for file in old):
        return "no metrics.jsonl was written before"
    for file in sorted({*old, *new}):
        if file not in old or file not in new:
            return f"{file} exists {'before' if file in old else 'after'} only"
        for key in {**old[file], **new[file]}:
            if key not in old[file] or key not in new[file]:
                return f"{file}, {key} exists {'before' if key in old[file] else 'after'} only"
            changed = change(old[file][key], new[file][key])
            if changed is not None:
                return f"{file}, {key}{changed}"
    return None


def change(old: str | np.ndarray, new: str | np.ndarray) -> str | None:
    """Both values where they differ, an array's by its first entry with other bits."""
    if isinstance(old, str) or isinstance(new, str):
        return None if old == new else f": {old} before, {new} after"
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        kinds = [f"{array.dtype} {list(array.shape)}" for array in (old, new)]
        return f": {kinds[0]} before, {kinds[1]} after"
    bits = [np.frombuffer(array.tobytes(), np.uint8).reshape(old.size, -1) for array in (old, new)]
    differs = (bits[0] != bits[1]).any(axis=1) if old.size else np.zeros(1, bool)
    if not differs.any():
        return None
    place = np.unravel_index(differs.argmax(), old.shape)
    values = f"{old[place]!s} before, {new[place]!s} after"
    return f"{list(map(int, place))}: {values}; {differs.sum()} of {old.size} entries differ"


# How it is run -----------------------------------------------------------------------------------


def call(
    checkout: Path, folder: Path, words: Sequence[str], num_devices: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in `folder`, with the package of `checkout`."""
    own = {
        "PYTHONPATH": str(checkout),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True
    )


def check_import(checkout: Path, folder: Path) -> None:
    """Exit if processes would import another package than that of `checkout`."""
    done = call(checkout, folder, ["-c", "import ppo_jax; print(ppo_jax.__file__)"])
    found = done.stdout.strip() or done.stderr.strip()
    if done.returncode != GOOD or not Path(found).resolve().is_relative_to(checkout):
        raise SystemExit(f"{checkout}: `import ppo_jax` gives {found}")


def run_case(case: Case, checkout: Path, folder: Path) -> tuple[int, str]:
    """Run a case's commands up to the first that fails: exit code (0: none did) and message."""
    folder.mkdir(parents=True)
    (folder / "own_parts.py").write_text(OWN_PARTS, "utf-8")
    for number, command in enumerate(case.commands, 1):
        words = ["-m", "ppo_jax", *command.split()]
        done = call(checkout, folder, words, case.num_devices)
        if done.returncode not in (GOOD, STOPPED):
            return done.returncode, (done.stdout.strip() or done.stderr.strip())[-500:]
        (folder / f"stdout-{number}.json").write_text(done.stdout, "utf-8")
    return GOOD, ""


def verdict(name: str, checkouts: Sequence[Path], work: Path) -> str:
    """The outcome of a case as one line, which begins with `same` if all numbers are."""
    folders = [work / side / name for side in ("before", "after")]
    for side, checkout, folder in zip(("BEFORE", "AFTER"), checkouts, folders, strict=True):
        exit_code, message = run_case(CASES[name], checkout, folder)
        if exit_code == BAD_INPUT and side == "BEFORE":
            return f"not comparable: BEFORE refuses it: {message}"
        if exit_code != GOOD:
            return f"FAILED: exit code {exit_code} of {side}: {message}"
    difference = first_difference(*folders)
    return "same" if difference is None else f"DIFFERENT: {difference}"


@contextmanager
def checked_out(version: str, folder: Path) -> Iterator[Path]:
    """The folder of a version: its own if it is a checkout, else a temporary worktree."""
    if (Path(version) / "ppo_jax").is_dir():
        yield Path(version).resolve()
        return
    worktree = ["git", "-C", str(REPOSITORY), "worktree"]
    added = subprocess.run([*worktree, "add", "--quiet", "--detach", str(folder), version])
    if added.returncode != GOOD:
        raise SystemExit(f"{version} is neither a folder with ppo_jax in it nor a commit.")
    try:
        yield folder.resolve()
    finally:
        subprocess.run([*worktree, "remove", "--force", str(folder)], check=True)


def main() -> int:
    """Run the cases, print a line for each, return the exit code."""
    parser = argparse.ArgumentParser(description="Prove that a refactor changes no number.")
    parser.add_argument("versions", nargs=2, metavar="BEFORE AFTER", help="commit or checkout")
    parser.add_argument("--cases", default=",".join(CASES), help="names, separated by commas")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # temporary folders are removed
    names = given.cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    start = time.monotonic()
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="same-numbers-")))
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", work / "cache")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(cache).absolute())
        checkouts = [
            stack.enter_context(checked_out(version, work / f"checkout-{place}"))
            for place, version in enumerate(given.versions)
        ]
        for checkout in checkouts:
            check_import(checkout, work)
        pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
        outcomes = pool.map(partial(verdict, checkouts=checkouts, work=work), names)
        for name, outcome in zip(names, outcomes, strict=True):
            print(f"{name:<20}{outcome}", flush=True)
            counts[outcome.partition(":")[0]] += 1
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    print(f"{told}; {time.monotonic() - start:.0f} s")
    return int(not counts["same"] or bool(counts["DIFFERENT"] or counts["FAILED"]))


if __name__ == "__main__":
    sys.exit(main())
