"""Times ppo_jax and its peers side by side: `python benchmarks/speed/compare.py`.

Each trainer runs in its own process and virtual environment and keeps its compiled program; the
timed runs alternate (A B A B ...), so that whatever else the machine does hits both. Compilation
is timed apart and alternates too. Where a trainer can be laid out over the machine in several
ways, each is tried and its fastest is compared.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import sys
from pathlib import Path

from cases import CASES, scaled
from peers import OURS, PEERS, ROOT, Process, ensure_venv, layouts

TRIAL_RUNS = 3


def main() -> None:
    arguments = parse()
    os.environ.setdefault("JAX_PLATFORMS", arguments.platform)
    names = [OURS, *arguments.peers]
    pythons = {
        name: Path(arguments.own_python)
        if name == OURS
        else ensure_venv(PEERS[name], Path(arguments.venvs).expanduser(), arguments.peer_python)
        for name in names
    }
    machine = describe_machine(arguments.hardware)
    record = {
        "what": "environment steps per second and compile time, interleaved in one run",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/speed/compare.py", *sys.argv[1:]]),
        "machine": machine,
        "load_average_before": os.getloadavg(),
        "repeats": arguments.repeats,
        "cases": {},
    }
    out = Path(arguments.out) if arguments.out else default_out(machine["hardware"])
    out.parent.mkdir(parents=True, exist_ok=True)
    for case in arguments.cases:
        record["cases"][case] = compare(case, names, pythons, arguments)
        record["load_average_after"] = os.getloadavg()
        out.write_text(json.dumps(record, indent=1) + "\n")  # after each case: nothing is lost
        print(table_row(case, record["cases"][case]), flush=True)
    print(out)


def parse() -> argparse.Namespace:
    own = ROOT / ".venv" / "bin" / "python"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    peers = sorted(set(PEERS) - {OURS})
    parser.add_argument("--peers", nargs="+", choices=peers, default=peers)
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each trainer")
    parser.add_argument("--compiles", type=int, default=3, help="timed compilations of each")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every budget")
    parser.add_argument("--platform", default="cpu", help="JAX_PLATFORMS, where it is not set")
    parser.add_argument("--hardware", help="name of this machine in the result")
    parser.add_argument("--out", help="result file (default: benchmarks/results/speed_...json)")
    parser.add_argument("--venvs", default="~/.cache/ppo_jax_bench", help="peers' environments")
    parser.add_argument("--peer-python", default=sys.executable, help="makes the peers' venvs")
    parser.add_argument("--own-python", default=str(own) if own.exists() else sys.executable)
    parser.add_argument(
        "--own-layouts", nargs="+", help="layouts of ppo_jax to choose from (default: its default)"
    )
    return parser.parse_args()


def compare(
    case: str, names: list[str], pythons: dict[str, Path], arguments: argparse.Namespace
) -> dict:
    """One case: choose each trainer's layout, then compile and run all of them in turns."""
    result: dict = {"settings": vars(scaled(CASES[case], arguments.scale)), "trainers": {}}
    processes = []
    try:
        for name in names:
            wanted = arguments.own_layouts if name == OURS else None
            process, tried = fastest_layout(name, case, pythons[name], arguments.scale, wanted)
            processes.append(process)
            result["trainers"][name] = {
                **process.info,
                "layouts_tried_seconds": tried,
                "compiles": [],
                "runs": [],
            }
        for _ in range(arguments.compiles):
            for process in processes:
                result["trainers"][process.peer.name]["compiles"].append(process.ask("compile"))
        for _ in range(arguments.repeats):
            for process in processes:
                result["trainers"][process.peer.name]["runs"].append(process.ask("run"))
        for process in processes:
            result["trainers"][process.peer.name] |= process.ask("evaluate")
    finally:
        for process in processes:
            process.close()
    for trainer in result["trainers"].values():
        trainer |= summarise(trainer)
    ours = result["trainers"][OURS]
    result["against"] = {
        name: against(ours, result["trainers"][name]) for name in names if name != OURS
    }
    return result


def fastest_layout(
    name: str, case: str, python: Path, scale: float, wanted: list[str] | None
) -> tuple[Process, dict[str, list[float]]]:
    """The trainer in the layout with the shortest run, and what each layout took."""
    peer = PEERS[name]
    names = wanted or layouts(peer, python, case, scale)
    processes = [Process(peer, python, case, layout, scale) for layout in names]
    try:
        for process in processes:
            process.ask("compile")
        tried: dict[str, list[float]] = {process.layout: [] for process in processes}
        for _ in range(TRIAL_RUNS if len(processes) > 1 else 0):
            for process in processes:
                tried[process.layout].append(process.ask("run")["wall_seconds"])
    except BaseException:
        for process in processes:
            process.close()
        raise
    best = processes[0]
    if len(processes) > 1:
        best = min(processes, key=lambda process: min(tried[process.layout]))
    for process in processes:
        if process is not best:
            process.close()
    return best, tried


def summarise(trainer: dict) -> dict:
    """Medians over the runs; speeds count environment steps that were really taken."""
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
    """Ratios above 1: we are faster, or compile in less time."""
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


def describe_machine(hardware: str | None) -> dict:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = found.group(1) if found else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "hardware": hardware or f"{model}, {cores} cores",
        "cpu": model,
        "cores": cores,
        "system": platform.system(),
    }


def default_out(hardware: str) -> Path:
    words = re.findall(r"[a-z0-9]+", re.sub(r"\([^)]*\)", "", hardware.lower()))
    today = datetime.datetime.now(datetime.UTC).date()
    return ROOT / "benchmarks" / "results" / f"speed_{'-'.join(words)}_{today}.json"


def table_row(case: str, result: dict) -> str:
    """One case as lines of a plain table."""
    lines = [f"({case}) {CASES[case].title}"]
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
    return "\n".join(lines)


if __name__ == "__main__":
    main()
