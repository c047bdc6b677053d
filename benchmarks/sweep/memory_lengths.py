"""bsuite's memory_len in one compilation: `python benchmarks/sweep/memory_lengths.py`.

The 23 lengths of MemoryChain are one `ppo-jax sweep`, with a linear recurrent unit and without a
memory. Recorded are each length's returns of whole episodes after training, and the share of wrong
answers over all training episodes. bsuite counts a length as solved if fewer than 0.375 answers an
episode are wrong over 10,000 training episodes; ours are fewer episodes, so learning weighs more.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import record

LENGTHS = (*range(1, 11), 12, 14, 17, 20, 25, *range(30, 101, 10))  # bsuite's memory_len/sweep.py
WRONG = 0.375  # answers an episode, 0.75 of a random agent's (bsuite's memory_len/analysis.py)
LIMITS = (-1.0, 1.0)
MEMORIES = {"lru": ("--memory", "lru", "--memory-size", "32"), "none": ("--memory", "none")}
SETTING = (
    *("--num-envs", "32", "--rollout-length", "256", "--num-epochs", "4"),
    *("--num-minibatches", "4", "--hidden-sizes", "32", "--learning-rate", "3e-3:0"),
    *("--gamma", "0.9", "--gae-lambda", "0.9", "--entropy-coef", "0.01"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--memories", nargs="+", choices=list(MEMORIES), default=list(MEMORIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--env-steps", type=int, default=163_840, help="of one seed of a length")
    parser.add_argument("--out", type=Path, default=record.default_out("memory-lengths"))
    arguments = parser.parse_args()
    result = record.opening("return against memory length, all lengths in one compilation")
    result |= {"setting": list(SETTING), "env_steps": arguments.env_steps, "memories": {}}
    for memory in arguments.memories:
        found = swept(memory, arguments)
        result["memories"][memory] = found
        result["load_average_after"] = os.getloadavg()
        record.write(result, arguments.out)
        print(
            f"{memory}: {found['num_solved']} of {len(arguments.lengths)} lengths solved by "
            f"bsuite's rule, {found['num_optimal']} with every answer right after training; "
            f"IQM {found['all_lengths']['iqm']:.3f} {found['all_lengths']['ci95']}; "
            f"{found['compilations']} compilation, {found['cpu_seconds']} CPU seconds"
        )
    picture = arguments.out.with_suffix(".png")
    draw(result, picture)
    print(f"{arguments.out}\n{picture}")


def swept(memory: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train all lengths as one sweep, and read its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sweep"
        lengths = "env.memory_length=" + ",".join(map(str, arguments.lengths))
        command = [
            *(sys.executable, "-m", "ppo_jax", "sweep", "MemoryChain-bsuite", lengths),
            *("--no-preset", *SETTING, *MEMORIES[memory], "--seed", "10"),
            *("--seeds", str(arguments.seeds), "--total-env-steps", str(arguments.env_steps)),
            *("--policy-mode", "deterministic", "--fresh-seeds", "0", "--json"),
            *("--out", str(folder)),
        ]
        environment = {**os.environ, "PYTHONPATH": str(record.ROOT)}
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=name)
        assert child.stdout is not None
        answer = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"the sweep ended with exit code {child.returncode}")
        summary = json.loads(answer)
        rows = list(csv.DictReader((folder / "table.csv").open()))
        packs = [json.loads(path.read_text()) for path in folder.glob("packs/*/result.json")]
    finals = {tuple(m): r for p in packs for m, r in zip(p["members"], p["final_return"])}
    per_length = lengths_of(arguments.lengths, rows, finals)
    return {
        "flags": list(MEMORIES[memory]),
        "compilations": sum(summary["compilations"]),
        "compile_seconds": summary["compile_seconds"],
        "train_seconds": summary["train_seconds"],
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "env_steps_in_all": summary["env_steps_in_all"],
        "num_solved": sum(row["is_solved"] for row in per_length),
        "num_optimal": sum(min(row["return"]["per_seed"]) == 1.0 for row in per_length),
        "all_lengths": over_all([row["return"]["per_seed"] for row in per_length]),
        "lengths": per_length,
    }


def lengths_of(
    lengths: list[int], rows: list[dict[str, str]], finals: dict[tuple[int, int], float]
) -> list[dict[str, Any]]:
    """Every length's returns after training, and its wrong answers over the training."""
    from ppo_jax.analysis.stats import summarise

    wrong: dict[tuple[int, int], float] = defaultdict(float)
    episodes: dict[tuple[int, int], float] = defaultdict(float)
    for row in rows:
        if count := float(row["num_episodes"]):
            member = int(row["env.memory_length"]), int(row["seed"])
            episodes[member] += count
            wrong[member] += count * (1.0 - float(row["episode_return"])) / 2.0
    found = []
    for index, length in enumerate(lengths):
        members = sorted(member for member in episodes if member[0] == length)
        share = [round(wrong[member] / episodes[member], 4) for member in members]
        scores = [score for (setting, _), score in sorted(finals.items()) if setting == index]
        found.append(
            {
                "memory_length": length,
                "return": summarise(scores, limits=LIMITS),
                "wrong_in_training": share,
                "training_episodes": [int(episodes[member]) for member in members],
                "is_solved": sum(share) / len(share) < WRONG,
            }
        )
    return found


def over_all(scores: list[list[float]]) -> dict[str, Any]:
    """IQM over lengths and seeds, with the interval of a bootstrap stratified by length."""
    import numpy as np

    from ppo_jax.analysis.stats import iqm, stratified_interval

    interval = stratified_interval(scores, generator=np.random.default_rng(0))
    return {
        "iqm": float(iqm(np.ravel(scores))),
        "mean": float(np.mean(scores)),
        "ci95": None if interval is None else np.clip(interval, *LIMITS).tolist(),
    }


def draw(result: dict[str, Any], out: Path) -> None:
    """Return against memory length; a line is the mean of the seeds, a point is a seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.2))
    looks = {"lru": ("#1b6ca8", "LRU of 32 numbers"), "none": ("#c8553d", "no memory")}
    for memory, found in result["memories"].items():
        color, label = looks[memory]
        lengths = [row["memory_length"] for row in found["lengths"]]
        axes.plot(lengths, [row["return"]["mean"] for row in found["lengths"]], color=color, lw=1.5)
        for length, row in zip(lengths, found["lengths"], strict=True):
            scores = row["return"]["per_seed"]
            axes.plot([length] * len(scores), scores, "o", color=color, ms=3, alpha=0.5)
        solved = f"{found['num_solved']} of {len(lengths)} lengths solved"
        axes.plot([], [], "o-", color=color, ms=3, label=f"{label}: {solved}")
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100], labels=["1", "2", "5", "10", "20", "50", "100"])
    axes.set_ylim(-0.5, 1.08)
    axes.set_xlabel("memory length", fontsize=8)
    axes.set_ylabel("return after training\n(guessing 0, best 1)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center", bbox_to_anchor=(0.55, 0.72))
    axes.set_title(
        f"MemoryChain-bsuite, {result['env_steps']:,} environment steps a seed", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(out, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
