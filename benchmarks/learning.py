"""How well the presets learn: trains each at its stored budget and keeps the result as data.

    python benchmarks/learning.py [ENV ...] [--seeds 10] [--out FOLDER] [--keep-presets]

Per environment: ENV.json (scores, setting, versions, hardware), ENV.csv (learning curve) and
ENV.svg; over all of the folder: README.md with the table. The score also goes into the preset's
[clip.result]. The score is acted as its source acted, deterministically or by samples; the other
is stored beside it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

import ppo_jax
from ppo_jax import host, plots, presets, run_folder, stats
from ppo_jax.log import read_jsonl
from ppo_jax.options import RunOptions

MODES = ("deterministic", "sampled")
CURVE_POINTS = 60
RESULTS = Path(__file__).parent / "results"
SUMMARY = "Train presets, compare with published numbers, store the results."
OBJECTIVE = "clip"
EPISODES = 128
# Where luck moves an episode's return more than learning does.
EPISODES_OF = {"FrozenLake-misc": 8192, "UmbrellaChain-bsuite": 8192}


def main() -> None:
    host.prepare_jax(RunOptions())
    folder = RESULTS / f"learning_{jax.default_backend()}_{today()}"
    parser = argparse.ArgumentParser(description=SUMMARY)
    parser.add_argument("env", nargs="*", help="presets to run (default: all)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=folder)
    parser.add_argument(
        "--keep-presets", action="store_true", help="leave the presets' files alone"
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    names = given.env or [
        each.name for each in presets.all_presets() if each.objective == OBJECTIVE
    ]
    for name in names:
        preset = presets.find(name, OBJECTIVE)
        record = measure(preset, given.seeds, given.out)
        if not given.keep_presets:
            store(preset, record)
        write_table(given.out)
        print(line(record), flush=True)


def measure(preset: presets.Preset, seeds: int, out: Path) -> dict[str, Any]:
    """Train, evaluate in both ways and leave the environment's three files in `out`."""
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
        "objective": preset.objective,
        "num_seeds": seeds,
        "first_seed": 0,
        "num_failed": result.summary["num_failed"],
        "env_steps": result.summary["env_steps"],
        "episodes_per_seed": result.summary["episodes_per_seed"],
        "episodes_cut": result.summary["episodes_cut"],
        "policy_mode": mode,
        "returns": {each: rounded(returns[each]) for each in MODES},
        "published": preset.reference,
        "verdict": verdict(returns[mode], preset.reference),
        "source": preset.source,
        "setting": {"config": vars(config), "hyper": vars(hyper)},
        "train_seconds": result.summary["train_seconds"],
        "compile_seconds": result.summary["compile_seconds"],
        "env_steps_per_second": result.summary["env_steps_per_second"],
        "hardware": hardware(),
        "versions": {"python": manifest["python"], **manifest["versions"]},
        "git": manifest["git"],
        "date": today(),
        "command": f"python benchmarks/learning.py {preset.name} --seeds {seeds}",
    }
    run_folder.write_json(out / f"{preset.name}.json", record)
    write_curve(out / f"{preset.name}.csv", rows)
    draw(out, record, rows)
    return record


def mode_of(preset: presets.Preset) -> str:
    """How the published policy acted; deterministically where nothing is known."""
    mode = (preset.reference or {}).get("policy_mode", MODES[0])
    return mode if mode in MODES else MODES[0]


def verdict(scores: dict[str, Any], reference: dict[str, Any] | None) -> str:
    """Our IQM against the published score, the interval of the IQM being the benefit of doubt."""
    if reference is None:
        return "nothing published"
    if scores["iqm"] is None:
        return "below"
    tolerance = 1e-4 * max(1.0, abs(reference["score"]))  # what float32 loses in a sum of rewards
    if scores["iqm"] >= reference["score"] - tolerance:
        return "reached"
    highest = scores["iqm"] if scores["ci95"] is None else scores["ci95"][1]
    return "within interval" if highest >= reference["score"] - tolerance else "below"


def rounded(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores with as many digits as they are worth."""

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
        out / f"{record['env']}.svg",
        title=f"{record['env']}, PPO",
        subtitle=f"return while training, {record['num_seeds']} seeds",
        reference=None if published is None else (published["score"], label(published)),
    )


def label(reference: dict[str, Any]) -> str:
    """The words at the line of a picture."""
    kind = reference.get("kind", "published")
    steps = f" at {plots.si(reference['env_steps'])} steps" if kind == "published" else ""
    return f"{kind} {reference['score']:g}{steps}"


def store(preset: presets.Preset, record: dict[str, Any]) -> None:
    """Put the score into the preset's file, in place of an earlier one."""
    path = presets.FOLDER / f"{preset.name}.toml"
    scores = record["returns"][record["policy_mode"]]
    block = [
        f"[{OBJECTIVE}.result]",
        f"score = {scores['iqm']}",
        f"interval = {json.dumps(scores['ci95'])}",
        f"seeds = {record['num_seeds']}",
        f"env_steps = {record['env_steps']}",
        f'policy_mode = "{record["policy_mode"]}"',
        f'date = "{record["date"]}"',
        f"hardware = {json.dumps(describe(record['hardware']))}",
        f"train_seconds = {record['train_seconds']}",
    ]
    text = path.read_text("utf-8")
    text = re.sub(rf"\[{OBJECTIVE}\.result\]\n(?:[^\[\n][^\n]*\n|\n)*", "", text).rstrip()
    head, mark, tail = text.partition(f"[{OBJECTIVE}.reference]")
    parts = [head.rstrip(), "\n".join(block), *([mark + tail] if mark else [])]
    temporary = path.with_suffix(".toml.tmp")
    temporary.write_text("\n\n".join(parts) + "\n", "utf-8")
    os.replace(temporary, path)


def write_table(out: Path) -> None:
    """README.md of the results: published, measured, verdict."""
    records = [json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*.json"))]
    lines = [
        "# How well the presets learn",
        "",
        "IQM over seeds with its 95% bootstrap interval (the seed is the unit), 128 whole episodes "
        "a seed after training (8192 where luck moves a return more than learning does), acted as "
        "the source of the published number acted. Written by `python benchmarks/learning.py`; "
        "ENV.json has the scores of every seed, setting, versions and hardware, ENV.csv the "
        "learning curve.",
        "",
        "| environment | compared with | measured | acts | acting the other way | seeds x steps | "
        "seconds | verdict |",
        "|---|---|---|---|---|---|---|---|",
        *(line(record) for record in records),
        "",
        "Seconds: training of all seeds together, without compilation. Verdict: reached, IQM >= "
        "published; within interval, the interval's upper end is; below, it is not.",
        "",
        "## Where the numbers to compare with come from",
        "",
        *(
            f"- {record['env']}: {cell(each)}, {each['policy_mode']}: {each['source']}"
            for record in records
            for each in references(record["published"])
        ),
        "",
        "## Hardware",
        "",
        *sorted({f"- {describe(record['hardware'])}, {record['date']}" for record in records}),
    ]
    (out / "README.md").write_text("\n".join(lines) + "\n", "utf-8")


def references(published: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The number compared with, and the others that are known."""
    return [] if published is None else [published, *published.get("others", [])]


def line(record: dict[str, Any]) -> str:
    """One row of the table."""
    scores, published = record["returns"][record["policy_mode"]], record["published"]
    other = next(each for each in MODES if each != record["policy_mode"])
    cells = (
        f"[{record['env']}]({record['env']}.svg)",
        "–" if published is None else cell(published),
        measured(scores),
        record["policy_mode"],
        measured(record["returns"][other]),
        f"{record['num_seeds']} x {plots.si(record['env_steps'])}",
        f"{record['train_seconds']:.0f}",
        record["verdict"],
    )
    return f"| {' | '.join(cells)} |"


def measured(scores: dict[str, Any]) -> str:
    """IQM and its interval."""
    if scores["ci95"] is None:
        return number(scores["iqm"])
    low, high = scores["ci95"]
    return f"**{number(scores['iqm'])}** [{number(low)}, {number(high)}]"


def cell(reference: dict[str, Any]) -> str:
    kind = reference.get("kind", "published")
    if kind != "published":  # an optimum or a bound holds at any number of steps
        return f"{number(reference['score'])} ({kind})"
    return f"{number(reference['score'])} at {plots.si(reference['env_steps'])}"


def number(value: float | None) -> str:
    return "failed" if value is None else f"{value:.5g}" if abs(value) < 10 else f"{value:.1f}"


def hardware() -> dict[str, Any]:
    """What the run was computed on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "devices": sorted({f"{d.platform}:{d.device_kind}" for d in jax.local_devices()}),
    }


def processor() -> str:
    """The model of the CPU, as its maker calls it where that can be found out."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def describe(machine: dict[str, Any]) -> str:
    """One line of hardware."""
    others = [device for device in machine["devices"] if not device.startswith("cpu")]
    return ", ".join([f"{machine['processor']}, {machine['cores']} cores", *others])


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


if __name__ == "__main__":
    main()
