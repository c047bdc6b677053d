"""Learning of the presets: train each at its stored budget and store the result as data.

    python benchmarks/learning.py [PRESET ...] [--objective NAME] [--seeds 10] [--out FOLDER]
        [--keep-presets]

Per preset: ENV.json (scores, setting, versions, hardware), ENV.csv (learning curve) and ENV.svg,
ENV-trpo.json and so on for objectives other than clip; over all of the folder: README.md with the
table. The score also goes into the preset's [OBJECTIVE.result]. The score uses the policy mode of
its source, deterministic or sampled; the other mode is stored too.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
from learning_table import (
    MODES,
    algorithm,
    compared,
    describe,
    hardest,
    label,
    line,
    share_reached,
    stem,
    stem_of,
    verdict,
    write_table,
)

import ppo_jax
from ppo_jax.analysis import plots, ranges, stats
from ppo_jax.config import presets
from ppo_jax.config.options import RunOptions
from ppo_jax.runtime import devices
from ppo_jax.storage.files import write_atomic, write_json
from ppo_jax.storage.jsonl import read_jsonl
from ppo_jax.storage.manifest import core_count, processor

CURVE_POINTS = 60
RESULTS = Path(__file__).parent / "results"
SUMMARY = "Train presets, compare with published numbers, store the results."
EPISODES = 128
# Environments whose returns vary more by luck than by learning.
EPISODES_OF = {
    "BernoulliBandit-misc": 8192,
    "FrozenLake-misc": 8192,
    "UmbrellaChain-bsuite": 8192,
}


def main() -> None:
    devices.prepare_jax(RunOptions())
    folder = RESULTS / f"learning_{jax.default_backend()}_{today()}"
    parser = argparse.ArgumentParser(description=SUMMARY)
    parser.add_argument("preset", nargs="*", help="presets to run (default: all)")
    parser.add_argument("--objective", help="only presets of this objective (default: all)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=folder)
    parser.add_argument(
        "--keep-presets", action="store_true", help="leave the presets' files alone"
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for preset in chosen(given.preset, given.objective):
        record = measure(preset, given.seeds, given.out)
        if not given.keep_presets:
            store(preset, record)
        write_table(given.out)
        print(line(record), flush=True)


def chosen(names: list[str], objective: str | None) -> list[presets.Preset]:
    """The presets of these names (all, if there is none) and of this objective (all, if None)."""
    for name in names:
        presets.find(name, objective)  # refuses unknown names
    return [
        each
        for each in presets.all_presets()
        if (not names or each.name in names) and objective in (None, each.objective)
    ]


def measure(preset: presets.Preset, seeds: int, out: Path) -> dict[str, Any]:
    """Train, evaluate in both modes and write the preset's three files to `out`."""
    config, hyper = presets.apply(preset)
    mode = mode_of(preset)
    episodes = EPISODES_OF.get(preset.env, EPISODES)
    with tempfile.TemporaryDirectory() as folder:
        result = ppo_jax.run(
            config,
            hyper,
            seeds=seeds,
            out=f"{folder}/run",
            policy_mode=mode,
            eval_episodes=episodes,
            quiet=True,
        )
        if result.exit_code > 1:  # stopped by a signal: no result, and no further preset
            raise SystemExit(result.exit_code)
        other = next(each for each in MODES if each != mode)
        returns = {
            mode: result.summary["final_return"],
            other: ppo_jax.evaluate(f"{folder}/run", policy_mode=other, episodes=episodes)[
                "final_return"
            ],
        }
        rows = read_jsonl(result.folder / "metrics.jsonl")
        manifest = json.loads((result.folder / "manifest.json").read_text("utf-8"))
    record = {
        "env": preset.env,
        "preset": preset.name,
        "objective": preset.objective,
        "num_seeds": seeds,
        "first_seed": 0,
        "num_failed": result.summary["num_failed"],
        "env_steps": result.summary["env_steps"],
        "episodes_per_seed": result.summary["episodes_per_seed"],
        "episodes_cut": result.summary["episodes_cut"],
        "policy_mode": mode,
        "returns": {each: rounded(returns[each]) for each in MODES},
        "source": preset.source,
        "setting": {"config": vars(config), "hyper": vars(hyper)},
        "train_seconds": result.summary["train_seconds"],
        "compile_seconds": result.summary["compile_seconds"],
        "env_steps_per_second": result.summary["env_steps_per_second"],
        "hardware": hardware(),
        "versions": {"python": manifest["python"], **manifest["versions"]},
        "git": manifest["git"],
        "date": today(),
        "command": f"python benchmarks/learning.py {preset.name} --objective {preset.objective} "
        f"--seeds {seeds}",
    }
    record |= judged(record, preset)
    name = stem(preset.env, preset.name, preset.objective)
    write_json(out / f"{name}.json", record)
    write_curve(out / f"{name}.csv", rows)
    draw(out, record, rows)
    return record


def mode_of(preset: presets.Preset) -> str:
    """Mode of the published policy; deterministic if unknown."""
    mode = (preset.reference or {}).get("policy_mode", MODES[0])
    return mode if mode in MODES else MODES[0]


def judged(record: dict[str, Any], preset: presets.Preset) -> dict[str, Any]:
    """The part of a record that follows from its scores and the published ones."""
    reference = preset.reference and hardest(preset.reference, record["env_steps"])
    limits = ranges.limits(record["env"])
    found = {
        "returns": {
            mode: rounded(stats.summarise(record["returns"][mode]["per_seed"], limits=limits))
            for mode in MODES
        },
        "published": reference,
    }
    whole = {**record, **found}
    scores = found["returns"][record["policy_mode"]]["per_seed"]
    difference = compared(whole)
    return {
        **found,
        "compared": None if difference is None else difference._asdict(),
        "verdict": verdict(whole),
        "share_reached": share_reached(scores, reference),
    }


def rounded(scores: dict[str, Any]) -> dict[str, Any]:
    """Round scores to their significant digits."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(item) for item in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return {name: short(value) for name, value in scores.items()}


def write_curve(path: Path, rows: list[dict[str, Any]]) -> None:
    """Mean return of the episodes that ended, per seed, at about CURVE_POINTS points."""
    group = max(1, -(-len(rows) // CURVE_POINTS))
    num_seeds = len(rows[0]["episode_return"]) if rows else 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["env_steps", "iqm", *(f"seed_{seed}" for seed in range(num_seeds))])
        for first in range(0, len(rows), group):
            block = rows[first : first + group]
            means = [
                mean([row["episode_return"][seed] for row in block]) for seed in range(num_seeds)
            ]
            known = [value for value in means if value is not None]
            middle = float(stats.iqm(known)) if known else None
            digits = ["" if value is None else f"{value:.5g}" for value in (middle, *means)]
            writer.writerow([block[-1]["env_steps"], *digits])


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def draw(out: Path, record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    published = record["published"]
    plots.learning_curve(
        rows,
        out / f"{stem_of(record)}.svg",
        title=f"{record['env']}, {algorithm(record)}",
        subtitle=f"return while training, {record['num_seeds']} seeds",
        reference=None if published is None else (published["score"], label(published)),
    )


def store(preset: presets.Preset, record: dict[str, Any]) -> None:
    """Put the score into the preset's file, in place of an earlier one."""
    path = presets.file_of(preset.name)
    scores, objective = record["returns"][record["policy_mode"]], preset.objective
    block = [
        f"[{objective}.result]",
        f"score = {scores['iqm']}",
        f"interval = {json.dumps(scores['ci95'])}",
        f"seeds = {record['num_seeds']}",
        f"env_steps = {record['env_steps']}",
        f'policy_mode = "{record["policy_mode"]}"',
        f'date = "{record["date"]}"',
        f"hardware = {json.dumps(describe(record['hardware']))}",
        # One or the other: a suite trains all seeds of a cell at once
        f'cell = "{record["cell"]}"'
        if "cell" in record
        else f"train_seconds = {record['train_seconds']}",
    ]
    text = path.read_text("utf-8")
    text = re.sub(rf"\[{objective}\.result\]\n(?:[^\[\n][^\n]*\n|\n)*", "", text).rstrip()
    head, mark, tail = text.partition(f"[{objective}.reference]")
    parts = [head.rstrip(), "\n".join(block), *([mark + tail] if mark else [])]
    write_atomic(path, "\n\n".join(parts) + "\n")


def hardware() -> dict[str, Any]:
    """Hardware of the run."""
    return {
        "processor": processor(),
        "cores": core_count(),
        "devices": sorted({f"{d.platform}:{d.device_kind}" for d in jax.local_devices()}),
    }


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


if __name__ == "__main__":
    main()
