"""Time ppo_jax and its peers side by side: `python benchmarks/speed/compare.py`.

Each trainer runs in its own process and virtual environment, all with one version of Python and
JAX, and keeps its compiled program. The timed runs alternate (A B A B ...), so that other load on
the machine affects all. Compilation is timed separately and alternates too. If a trainer has
several layouts on the machine, each is tried and its fastest is compared. Case (c) also measures
the rate of matrix products on this machine, in the same turns.

All trainers need Python 3.12 or newer, because ajax-rl does. If none is found, the running Python
is used and the result lists the trainers that were left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from cases import ALL_CASES, CASES, SUITE_CASES, scaled
from machine import begin, default_out, describe_machine, store
from peers import (
    CEILING,
    ENVIRONMENT,
    OURS,
    PEERS,
    Process,
    WorkerEnded,
    find_python,
    interpreters,
    layouts,
    version_of,
)

__all__ = ["default_out", "describe_machine"]  # objectives.py takes them from here

TRIAL_RUNS = 3
ALONE = (CEILING, ENVIRONMENT)  # no trainers: they are not compared


def main() -> None:
    arguments = parse()
    os.environ.setdefault("JAX_PLATFORMS", arguments.platform)
    if arguments.source:
        folders = [str(Path(each).resolve()) for each in arguments.source]
        os.environ["SOURCES"] = os.pathsep.join(folders)
    arguments.python = arguments.python or find_python()
    version = version_of(arguments.peer_python or arguments.python)
    if version is None:
        raise SystemExit(f"{arguments.python} is no interpreter that can make environments")
    wanted = [OURS, *arguments.peers, ENVIRONMENT, CEILING]
    names = [name for name in wanted if PEERS[name].python <= version]
    folder = Path(arguments.venvs).expanduser() / ".".join(map(str, version))
    used = [name for name in names if set(PEERS[name].cases) & set(arguments.cases)]
    pythons = interpreters(used, arguments.cases, folder, arguments)
    record = begin(
        "environment steps per second and compile time, interleaved in one run",
        " ".join(["python", "benchmarks/speed/compare.py", *map(without_folder, sys.argv[1:])]),
        arguments.hardware,
    )
    record |= {
        "python": ".".join(map(str, version)),
        "left_out": {
            name: f"needs Python {'.'.join(map(str, PEERS[name].python))}; none was found"
            for name in wanted
            if name not in names
        },
        "repeats": arguments.repeats,
        "cases": {},
    }
    found = default_out(record["machine"]["hardware"], kind(arguments.cases))
    out = Path(arguments.out) if arguments.out else found
    if arguments.add and out.exists():
        record["cases"] = json.loads(out.read_text("utf-8"))["cases"]
    for case in arguments.cases:
        present = [name for name in used if case in PEERS[name].cases]
        record["cases"][case] = compare(case, present, pythons, arguments)
        store(record, out)
        print(table_row(case, record["cases"][case]), flush=True)
    print(out)


def without_folder(word: str) -> str:
    """A word of the command line; a path of this machine loses its folder."""
    return Path(word).name if Path(word).is_absolute() else word


def kind(cases: list[str]) -> str:
    """The first word of the result's name."""
    if set(cases) <= set(CASES):
        return "speed"
    return "speed-suites" if set(cases) <= set(SUITE_CASES) else "speed-memory"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=sorted(ALL_CASES), default=sorted(CASES))
    peers = [name for name in PEERS if name not in (OURS, *ALONE)]
    parser.add_argument("--peers", nargs="+", choices=peers, default=peers)
    parser.add_argument("--source", nargs="+", help="clones of the peers that are no packages")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each trainer")
    parser.add_argument("--compiles", type=int, default=3, help="timed compilations, 1 at least")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every budget")
    parser.add_argument("--platform", default="cpu", help="JAX_PLATFORMS, where it is not set")
    parser.add_argument("--hardware", help="name of this machine in the result")
    parser.add_argument("--out", help="result file (default: benchmarks/results/speed_...json)")
    parser.add_argument("--add", action="store_true", help="keep that file's other cases")
    parser.add_argument("--venvs", default="~/.cache/ppo_jax_bench", help="all the environments")
    parser.add_argument("--python", help="makes the environments (default: a 3.12 or 3.13)")
    parser.add_argument("--own-python", help="runs ppo_jax (default: an environment as the peers')")
    parser.add_argument("--peer-python", help="runs every peer (default: an environment each)")
    parser.add_argument(
        "--own-layouts", nargs="+", help="layouts of ppo_jax to choose from (default: its default)"
    )
    parser.add_argument("--peer-layouts", nargs="+", help="layouts of the peers (default: all)")
    return parser.parse_args()


def compare(
    case: str, names: list[str], pythons: dict[str, Path], arguments: argparse.Namespace
) -> dict:
    """One case: choose each trainer's layout, then compile and run all of them in turns."""
    result: dict = {"settings": vars(scaled(ALL_CASES[case], arguments.scale)), "trainers": {}}
    processes = []
    try:
        for name in names:
            wanted = arguments.own_layouts if name == OURS else arguments.peer_layouts
            process, trial, first = fastest_layout(
                name, case, pythons[name], arguments.scale, wanted
            )
            processes.append(process)
            result["trainers"][name] = {
                **process.info,
                **trial,
                "compiles": [] if name in ALONE else [first],
                "runs": [],
            }
        for _ in range(arguments.compiles - 1):
            for process in processes:
                if process.peer.name not in ALONE:
                    compiled = process.ask("compile")
                    result["trainers"][process.peer.name]["compiles"].append(compiled)
        for _ in range(arguments.repeats):
            for process in processes:
                result["trainers"][process.peer.name]["runs"].append(process.ask("run"))
        for process in processes if ALL_CASES[case].memory == "none" else ():
            result["trainers"][process.peer.name] |= process.ask("evaluate")
    finally:
        for process in processes:
            process.close()
    ceiling, alone = (result["trainers"].pop(name, None) for name in (CEILING, ENVIRONMENT))
    trainers = result["trainers"]
    for trainer in trainers.values():
        trainer |= summarise(trainer)
    peers = [name for name in trainers if name != OURS]
    result["against"] = {name: against(trainers[OURS], trainers[name]) for name in peers}
    compiled_peers = [name for name in peers if PEERS[name].is_compiled]
    if compiled_peers:
        fastest = max(compiled_peers, key=lambda name: trainers[name]["env_steps_per_second"])
        result["fastest_peer"] = fastest
        result["speed_ratio"] = result["against"][fastest]["speed_ratio"]
    if ceiling is not None:
        result["ceiling"] = shares(ALL_CASES[case].flops_per_env_step, ceiling, trainers)
    if alone is not None:
        result["environment"] = environment_shares(alone, trainers)
    return result


def fastest_layout(
    name: str, case: str, python: Path, scale: float, wanted: list[str] | None
) -> tuple[Process, dict[str, Any], dict]:
    """Find the trainer's fastest layout, the trial of all layouts, and its first compilation.

    A layout whose worker process ends is left out, and the record says so.
    """
    peer = PEERS[name]
    names = wanted or layouts(peer, python, case, scale)
    processes = [Process(peer, python, case, layout, scale) for layout in names]
    compiled: dict[str, dict] = {}
    tried: dict[str, list[float]] = {layout: [] for layout in names}
    ended: dict[str, str] = {}
    try:
        for process in processes:
            try:
                compiled[process.layout] = process.ask("compile")
                if len(processes) > 1:
                    process.ask("run")
            except WorkerEnded as error:  # XLA of jax 0.11.2 can crash on empty arrays over devices
                if len(ended) == len(names) - 1:
                    raise
                ended[process.layout] = str(error)
                print(f"{error}: layout {process.layout} is left out", file=sys.stderr, flush=True)
        alive = [process for process in processes if process.layout not in ended]
        for _ in range(TRIAL_RUNS if len(alive) > 1 else 0):
            for process in alive:
                ran = process.ask("run")
                tried[process.layout].append(ran["env_steps"] / ran["wall_seconds"])
    except BaseException:
        for process in processes:
            process.close()
        raise
    best = alive[0]
    if len(alive) > 1:
        best = max(alive, key=lambda process: max(tried[process.layout]))
    for process in processes:
        if process is not best:
            process.close()
    return best, {"layouts_tried": tried, "layouts_ended": ended}, compiled[best.layout]


def summarise(trainer: dict) -> dict:
    """Medians over the runs; speeds count environment steps that were actually taken."""
    runs, compiles = trainer["runs"], trainer["compiles"]
    speeds = [run["env_steps"] / run["wall_seconds"] for run in runs]
    cpu_speeds = [run["env_steps"] / run["cpu_seconds"] for run in runs]
    compile_seconds = [item["trace_seconds"] + item["compile_seconds"] for item in compiles]
    return {
        "env_steps_per_second": statistics.median(speeds),
        "env_steps_per_second_range": [min(speeds), max(speeds)],
        "env_steps_per_cpu_second": statistics.median(cpu_speeds),
        "compile_seconds_each": compile_seconds,
        "compile_seconds": statistics.median(compile_seconds),
        "compile_cpu_seconds": statistics.median(i["compile_cpu_seconds"] for i in compiles),
    }


def against(ours: dict, theirs: dict) -> dict:
    """Ratios to each peer; above 1 we are faster, or compile in less time."""
    pairs = [
        (run["env_steps"] / run["wall_seconds"]) / (other["env_steps"] / other["wall_seconds"])
        for run, other in zip(ours["runs"], theirs["runs"], strict=True)
    ]
    return {
        "speed_ratio": ours["env_steps_per_second"] / theirs["env_steps_per_second"],
        "speed_ratio_pairs": pairs,
        "speed_ratio_pairs_median": statistics.median(pairs),
        "cpu_speed_ratio": ours["env_steps_per_cpu_second"] / theirs["env_steps_per_cpu_second"],
        "compile_ratio": theirs["compile_seconds"] / ours["compile_seconds"],
        "compile_cpu_ratio": theirs["compile_cpu_seconds"] / ours["compile_cpu_seconds"],
        "same_jax": ours["versions"]["jax"] == theirs["versions"]["jax"],
    }


def shares(flops_per_env_step: int, ceiling: dict, trainers: dict[str, dict]) -> dict:
    """Share of this machine's matrix-product rate that each trainer's whole iteration reaches."""
    rates = [run["env_steps"] / run["wall_seconds"] for run in ceiling["runs"]]  # FLOP/s
    best = statistics.median(rates)
    return {
        "flops_per_second": best,
        "flops_per_second_each": rates,
        "by": ceiling["layout"],
        "layouts_tried": ceiling["layouts_tried"],
        "versions": ceiling["versions"],
        "flops_per_env_step": flops_per_env_step,
        "share": {
            name: trainer["env_steps_per_second"] * flops_per_env_step / best
            for name, trainer in trainers.items()
        },
    }


def environment_shares(alone: dict, trainers: dict[str, dict]) -> dict:
    """Share of each trainer's time that the environment's own steps take, run alone."""
    runs = alone["runs"]
    wall = statistics.median(run["env_steps"] / run["wall_seconds"] for run in runs)
    cpu = statistics.median(run["env_steps"] / run["cpu_seconds"] for run in runs)
    return {
        "env_steps_per_second": wall,
        "env_steps_per_cpu_second": cpu,
        "by": alone["layout"],
        "layouts_tried": alone["layouts_tried"],
        "share": {
            name: trainer["env_steps_per_second"] / wall for name, trainer in trainers.items()
        },
        "cpu_share": {
            name: trainer["env_steps_per_cpu_second"] / cpu for name, trainer in trainers.items()
        },
    }


def table_row(case: str, result: dict) -> str:
    """One case as lines of a plain table."""
    lines = [f"({case}) {ALL_CASES[case].title}"]
    for name, trainer in result["trainers"].items():
        line = (
            f"  {name:<8} {trainer['env_steps_per_second']:>10,.0f} steps/s"
            f" {trainer['env_steps_per_cpu_second']:>10,.0f} steps/CPU s"
            f"   compile {trainer['compile_seconds']:5.2f} s   {trainer['layout']}"
        )
        if name in result["against"]:
            ratio = result["against"][name]
            line += (
                f"   we are {ratio['speed_ratio']:.2f}x as fast (pairs "
                f"{min(ratio['speed_ratio_pairs']):.2f} to {max(ratio['speed_ratio_pairs']):.2f}),"
                f" {ratio['cpu_speed_ratio']:.2f}x per CPU second,"
                f" compile in 1/{ratio['compile_ratio']:.2f} of the time"
            )
        lines.append(line)
    if "speed_ratio" in result:
        lines.append(f"  {result['speed_ratio']:.2f}x the faster peer, {result['fastest_peer']}")
    if "environment" in result:
        alone = result["environment"]
        lines.append(
            f"  environment alone {alone['env_steps_per_second']:,.0f} steps/s ({alone['by']}); "
            "share of time: " + ", ".join(f"{n} {share:.0%}" for n, share in alone["share"].items())
        )
    if "ceiling" in result:
        ceiling = result["ceiling"]
        lines.append(
            f"  sgemm {ceiling['flops_per_second'] / 1e9:,.0f} GFLOP/s ({ceiling['by']}); share: "
            + ", ".join(f"{name} {share:.1%}" for name, share in ceiling["share"].items())
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
