"""Write all stored tables anew from the scores of their seeds; nothing is trained.

    python benchmarks/rejudge.py

Intervals, differences and verdicts of the newest learning results, suites, studies and comparisons
with other trainers are computed again, with the presets and references of today. `python
benchmarks/readme.py` then renews the documents. It prints how many cells have each word.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import defaults
import gymnasium_sb3
import parity
from learning import judged, store
from learning_table import write_table
from stored import RESULTS, newest

from ppo_jax.analysis import ranges
from ppo_jax.apps.reproduce import running, specs, tables
from ppo_jax.config import presets
from ppo_jax.storage.files import write_json


def main() -> None:
    folder = newest("learning_*")
    if folder is not None:
        print(folder.name, dict(Counter(learning(path) for path in sorted(folder.glob("*.json")))))
        write_table(folder)
    for name in specs.names():
        for is_quick in (False, True):
            found = newest(f"{name}_*_quick" if is_quick else f"{name}_*[0-9]")
            if found is not None:
                print(found.name, suite(found, specs.load(name, is_quick)))
    for name in ("defaults", "defaults-long", "optimizers"):
        found = newest(f"{name}_cpu_*")
        if found is not None and (found / "summary.json").exists():
            print(found.name, study(found))
    for path in sorted(RESULTS.glob("gymnasium-*.json")):
        print(path.name, beside_sb3(path))
    for path in sorted(RESULTS.glob("parity_*.json")):
        print(path.name, beside_peer(path))


def learning(path: Path) -> str:
    """Judge one preset's result again; return the word."""
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    found = [
        each
        for each in presets.all_presets()
        if (each.name, each.objective) == (record["preset"], record["objective"])
    ]
    record |= judged(record, found[0])
    write_json(path, record)
    store(found[0], record)
    return record["verdict"].split(" (")[0]


def suite(folder: Path, of: specs.Suite) -> dict[str, int]:
    """Judge a suite's results again; return how many cells have each word.

    Only the cells and numbers of seeds count that the stored summary was asked for.
    """
    before = json.loads((folder / "summary.json").read_text("utf-8"))
    asked = dict.fromkeys(before["lacking"])
    for each in before["cells"]:
        is_whole = "seeds missing" not in each["verdict"]
        asked[each["cell"]] = len(each["per_seed"]) if is_whole else None
    cells = (
        cell if asked[cell.name] is None else cell._replace(seeds=asked[cell.name])
        for cell in of.cells
        if cell.name in asked
    )
    of = of._replace(cells=tuple(cells))
    table = running.made_table(folder, of, [])
    table = table._replace(folder=folder.relative_to(Path.cwd()).as_posix())
    running.store_table(folder, table)
    return {
        **tables.word_counts(table),
        **{
            f"orders {k}": v
            for k, v in Counter(e.verdict.split(" ")[0] for e in table.judged).items()
        },
    }


def study(folder: Path) -> list[str]:
    """Judge a study again; return the words of its finalists."""
    scores = {}
    for name in ("choice", "final"):
        of = specs.load(str((folder / f"{name}.toml").relative_to(Path.cwd())))
        suite(folder / name, of)
        scores[name] = defaults.stored_scores(folder / name, of)
    path = folder / "summary.json"
    record = json.loads(path.read_text("utf-8"))
    record |= defaults.judged(scores["choice"], scores["final"])
    defaults.write(folder, record)
    return [found["all tasks, IQM"]["verdict"] for found in record["differences"].values()]


def beside_sb3(path: Path) -> list[str]:
    """Judge a result of `gymnasium_sb3.py` again; return the words."""
    record = json.loads(path.read_text("utf-8"))
    record |= gymnasium_sb3.compared(record["what"].partition(" ")[0], record["turns"])
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return [found["word"] for found in record["compared"].values()]


def beside_peer(path: Path) -> dict[str, str]:
    """Judge a result of `parity.py` again; return the word of each task."""
    record = json.loads(path.read_text("utf-8"))
    for env, each in record["tasks"].items():
        samples = (each["ours"]["per_seed"], each["theirs"]["per_seed"])
        each |= parity.judged(*samples, ranges.ranges()[env])
    write_json(path, record)
    return {env: each["word"] for env, each in record["tasks"].items()}


if __name__ == "__main__":
    main()
