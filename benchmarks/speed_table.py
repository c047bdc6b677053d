"""Table of the trainers' speed beside others for docs/results.md: `readme.py` writes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from stored import RESULTS, ROOT, link, newest

from ppo_jax.storage.manifest import cores_in_words

sys.path.append(str(ROOT / "benchmarks" / "speed"))
from cases import CASES

DATE = len("2026-11-22")
# Name in the results -> package.
PEERS = {"rejax": "rejax", "ajax": "ajax-rl", "sb3": "stable-baselines3"}


def speed() -> str | None:
    """Medians and ratios of the newest comparison."""
    path = newest("speed_*.json")
    if path is None:
        return None
    record = json.loads(path.read_text("utf-8"))
    machine, cases = record["machine"], record["cases"]
    peers = list(dict.fromkeys(name for case in cases.values() for name in case["against"]))
    versions = {
        name: told
        for case in cases.values()
        for trainer in case["trainers"].values()
        for name, told in trainer["versions"].items()
    }
    lines = [
        "## How fast it is",
        "",
        "The table shows environment steps per second, and in brackets the seconds to trace and "
        "compile. Each trainer has its best layout, and all take turns in one run. Below each "
        "peer's speed, a bold number shows how many times as fast we are, with the range of the "
        "pairs of runs.",
        "",
        "| case | ours | of the ceiling | "
        + " | ".join(f"{PEERS[n]} {versions[PEERS[n]]}" for n in peers)
        + " |",
        "|---|---|---|" + "---|" * len(peers),
        *(row(name, case, peers, ceiling(cases)) for name, case in cases.items()),
        "",
        "The ceiling is what float32 matrix products reach on this machine, measured in the same "
        f"run ({ceiling(cases) / 1e9:,.0f} GFLOP/s); its share counts the products of the "
        "networks alone, in the time of the whole iteration.",
        "",
        *elsewhere(path),
        f"Machine: {machine['cpu']}, {cores_in_words(machine['cores'])}, {record['date'][:10]}. "
        f"Numbers are medians of {record['repeats']} runs with jax {versions['jax']}. "
        "All trainers have 64-64 actor and critic, and 4 epochs × 4 minibatches of the same sizes. "
        "The head of each "
        "`benchmarks/speed/worker_*.py` lists what its peer does otherwise by design. "
        "[lab-notebook.md](lab-notebook.md) has the known reasons if a ratio is below 1 or our "
        "compile time is the longer one. All numbers: "
        f"[{path.name}]({link(path)}). Again: `python benchmarks/speed/compare.py`."
        + "".join(f" {note}" for note in record.get("notes", [])),
    ]
    return "\n".join(lines)


def row(name: str, case: dict[str, Any], peers: list[str], most: float) -> str:
    ours = case["trainers"]["ppo_jax"]
    share = ours["env_steps_per_second"] * CASES[name].flops_per_env_step / most
    cells = [
        f"{ours['env_steps_per_second']:,.0f} ({ours['compile_seconds']:.1f} s)",
        f"{share:.0%}",
    ]
    for name in peers:
        if name not in case["against"]:
            cells.append("")
            continue
        theirs, pairs = case["trainers"][name], case["against"][name]["speed_ratio_pairs"]
        cells.append(
            f"{theirs['env_steps_per_second']:,.0f} ({theirs['compile_seconds']:.1f} s)<br>"
            f"**{case['against'][name]['speed_ratio']:.2f}** ({min(pairs):.2f} to {max(pairs):.2f})"
        )
    return f"| {case['settings']['title'].replace(' x ', ' × ')} | {' | '.join(cells)} |"


def cases_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    return list(record["cases"].values())


def ceiling(cases: dict[str, Any]) -> float:
    """Rate of matrix products on the machine of these cases, in operations per second."""
    return next(case["ceiling"]["flops_per_second"] for case in cases.values() if "ceiling" in case)


def elsewhere(shown: Path) -> list[str]:
    """Ratios to the faster peer on other machines: one sentence each."""
    paths = {path.stem[:-DATE]: path for path in sorted(RESULTS.glob("speed_*.json"))}
    lines = []
    for path in paths.values():
        if path.stem[:-DATE] == shown.stem[:-DATE]:
            continue
        record = json.loads(path.read_text("utf-8"))
        most = ceiling(record["cases"])
        titles = [case["settings"]["title"].replace(" x ", " × ") for case in cases_of(record)]
        ratios = [f"**{case['speed_ratio']:.2f}**" for case in cases_of(record)]
        share = record["cases"]["c"]["ceiling"]["share"]["ppo_jax"]
        lines += [
            f"On another machine, {record['machine']['cpu']} with "
            f"{cores_in_words(record['machine']['cores'])}, we are so many times as fast as the "
            "faster of the compiled peers:",
            "",
            f"| {' | '.join(titles)} |",
            "|---" * len(titles) + "|",
            f"| {' | '.join(ratios)} |",
            "",
            f"With 2,048 environments we reach {share:.0%} of its ceiling of "
            f"{most / 1e9:,.0f} GFLOP/s. {record['date'][:10]}, [{path.name}]({link(path)}).",
            "",
        ]
    return lines
