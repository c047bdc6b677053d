"""`python benchmarks/faults/run.py [--only kills] [--out FILE.json]`: faults that a run survives.

Kills, faults, damages, signals, races, full disks and mutated files, with expected and actual
outcomes; the cost of checkpoints, and a soak test. Run it on a checkout that is not edited
meanwhile: a source that changes between stop and resume changes the bits. `cost` (a quarter of an
hour) and `soak` are best run alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cost
import damages
import disks
import fuzz
import kills
import pack_damages
import packs
import readers
import saves
import soak
import stops
from cases import CASES, words_of
from processes import finish

from ppo_jax.storage.fingerprint import source_digest
from ppo_jax.storage.manifest import hardware

PARTS = (
    *("fuzz", "saves", "damages", "disks", "races", "signals", "kills", "pack_kills"),
    *("reader_kills", "pack_damages", "cost", "soak"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--minutes", type=float, default=10.0, help="for signals and kills")
    parser.add_argument("--kills", type=int, default=8, help="of each kind of run")
    parser.add_argument("--runs", default="", help="runs that are killed, with '; ' between: all")
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--damages", type=int, default=2200)
    parser.add_argument("--pack-damages", type=int, default=600)
    parser.add_argument("--packs", default="", help="kinds of packs, with commas between: all")
    parser.add_argument("--pack-steps", type=int, default=128_000, help="of sweeps, reproductions")
    parser.add_argument("--races", type=int, default=20)
    parser.add_argument("--files", type=int, default=6000, help="mutated files")
    parser.add_argument("--lines", type=int, default=12000, help="random command lines")
    parser.add_argument("--cost-seconds", type=float, default=32.0, help="of a turn")
    parser.add_argument("--cost-turns", type=int, default=3, help="with checkpoints, and without")
    parser.add_argument("--cost-every", type=float, default=10.0, help="seconds between saves")
    parser.add_argument("--soak-minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("faults.json"))
    asked = parser.parse_args()
    result = {
        "what": "counts of faults that a run survives, and of their outcomes",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "hardware": hardware(),
            "system": platform.system(),
        },
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("ppo-jax", "jax", "jaxlib", "gymnax")},
        "source": source_digest(),
        "seed": asked.seed,
        "parts": {},
    }
    if asked.out.exists():  # keeps the parts that are not repeated
        result["parts"] = json.loads(asked.out.read_text("utf-8"))["parts"]
    with tempfile.TemporaryDirectory() as name:
        for part in PARTS:
            if part in asked.only.split(","):
                begin, load = time.monotonic(), os.getloadavg()
                kept = result["parts"].get(part, {}).get("cases", [])
                stamp = {
                    "date": datetime.now(UTC).isoformat(timespec="seconds"),
                    "source": source_digest(),
                    "command": f"python benchmarks/faults/run.py {shown(asked)}",
                }
                for found in COUNTED[part](asked, Path(name)):
                    result["parts"][part] = {
                        **stamp,
                        "seconds": round(time.monotonic() - begin),
                        "load_average_before": load,
                        **joined(found, kept, stamp),
                    }
                    asked.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
                print(f"{part}: {json.dumps(result['parts'][part])[:400]}", flush=True)


def joined(found: dict[str, Any], kept: list[dict], stamp: dict[str, str]) -> dict[str, Any]:
    """Counts over new cases and over earlier ones of other names, which keep their stamps."""
    if "cases" not in found:
        return found
    names = {case["case"] for case in found["cases"]}
    cases = [case for case in kept if case["case"] not in names]
    cases += [{**stamp, **case} for case in found["cases"]]
    counts = [name for name in found if name != "cases"]
    return {**{name: sum(case.get(name, 0) for case in cases) for name in counts}, "cases": cases}


def shown(asked: argparse.Namespace) -> str:
    """The options, without the path of the result."""
    given = {name.replace("_", "-"): value for name, value in vars(asked).items() if name != "out"}
    return " ".join(f"--{name} {value}" for name, value in given.items())


Found = Iterator[dict[str, Any]]  # the last one is the result, earlier ones are partial


def count_fuzz(asked: argparse.Namespace, folder: Path) -> Found:
    yield fuzz.results(folder, asked.files, asked.lines, asked.seed)


def count_saves(asked: argparse.Namespace, folder: Path) -> Found:
    yield saves.results(folder)


def count_damages(asked: argparse.Namespace, folder: Path) -> Found:
    for run, seed in (("one", "0"), ("other", "1")):
        finish(words_of(CASES[0], folder / run, "--seed", seed))
    yield damages.results(folder / "one", folder / "other", asked.damages, folder, asked.seed)


def count_disks(asked: argparse.Namespace, folder: Path) -> Found:
    case = CASES[0]
    finish(words_of(case, folder / "readable"))
    yield {
        "folder_removed": disks.removed(case, folder),
        "read_only": disks.read_only(case, folder, folder / "readable"),
        "full": disks.full(case, folder, list(range(4, 84, 4))),
    }


def count_races(asked: argparse.Namespace, folder: Path) -> Found:
    yield stops.races(CASES[0], folder, asked.races)


def count_signals(asked: argparse.Namespace, folder: Path) -> Found:
    until = time.monotonic() + 60 * asked.minutes / 3
    yield stops.signals(CASES[0], folder, asked.signals, until, asked.seed)


def count_kills(asked: argparse.Namespace, folder: Path) -> Found:
    cases = []
    until = time.monotonic() + 60 * asked.minutes * 2 / 3
    for found in kills.results(folder, asked.kills, until, asked.seed, asked.runs):
        cases.append(found)
        names = ("kills", "differing_bits_in_arrays", "differing_bits_in_metrics")
        yield {**{name: sum(case[name] for case in cases) for name in names}, "cases": cases}


def count_pack_kills(asked: argparse.Namespace, folder: Path) -> Found:
    cases = []
    until = time.monotonic() + 60 * asked.minutes
    size = (asked.kills, asked.pack_steps)
    for found in packs.results(folder, *size, until, asked.seed, asked.packs):
        cases.append(found)
        names = ("kills", "signals", "right_exit_code", "errors", "differing_bits")
        yield {**{name: sum(case[name] for case in cases) for name in names}, "cases": cases}


def count_reader_kills(asked: argparse.Namespace, folder: Path) -> Found:
    cases = []
    until = time.monotonic() + 60 * asked.minutes
    for found in readers.results(folder, asked.kills, until, asked.seed):
        cases.append(found)
        names = ("kills", "compared", "output_cut", "other_output", "run_changed")
        yield {**{name: sum(case[name] for case in cases) for name in names}, "cases": cases}


def count_pack_damages(asked: argparse.Namespace, folder: Path) -> Found:
    kinds = packs.chosen(asked.packs)
    yield from pack_damages.in_process(folder, asked.pack_damages, asked.seed, kinds)


def count_cost(asked: argparse.Namespace, folder: Path) -> Found:
    yield from cost.in_process(folder, asked.cost_seconds, asked.cost_turns, asked.cost_every)


def count_soak(asked: argparse.Namespace, folder: Path) -> Found:
    yield soak.results(folder, asked.soak_minutes)


COUNTED = {
    "fuzz": count_fuzz,
    "saves": count_saves,
    "damages": count_damages,
    "disks": count_disks,
    "races": count_races,
    "signals": count_signals,
    "kills": count_kills,
    "pack_kills": count_pack_kills,
    "reader_kills": count_reader_kills,
    "pack_damages": count_pack_damages,
    "cost": count_cost,
    "soak": count_soak,
}


if __name__ == "__main__":
    main()
