"""Cost of checkpoints: throughput with one every few seconds against none, alternating.

Within one process, `with, without, with, ...` for each size of run; a turn is measured from its
first logged row to its last, by the clock, so that it includes every delay by a save.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Size(NamedTuple):
    """A run, described by the parts of its state."""

    name: str
    config: dict[str, Any]
    seeds: int
    log_iterations: int  # logs about one row per second


SIZES = (
    Size("CartPole-v1, one seed x 8 envs", {"num_envs": 8, "rollout_length": 128}, 1, 200),
    Size("CartPole-v1, one seed x 2,048 envs", {"num_envs": 2048, "rollout_length": 32}, 1, 4),
    Size("CartPole-v1, 16 seeds x 2,048 envs", {"num_envs": 2048, "rollout_length": 32}, 16, 1),
    Size(
        "CartPole-v1, 16 seeds x 8 envs, networks of 512 x 512",
        {"num_envs": 8, "rollout_length": 32, "hidden_sizes": (512, 512)},
        16,
        1,
    ),
)


def results(folder: Path, seconds: float, turns: int, every_seconds: float) -> Iterator[dict]:
    """Size by size: the throughput of all turns, and the time of each save.

    Args:
        seconds: of training in each turn.
        turns: with checkpoints, and as many without.
        every_seconds: between checkpoints.
    """
    found = []
    for size in SIZES:
        rates: dict[str, list[float]] = {"with": [], "without": []}
        stalls: list[float] = []
        num_bytes = 0
        for turn in range(2 * turns):
            # A B B A: any drift affects both.
            name = ("with", "without", "without", "with")[turn % 4]
            minutes = every_seconds / 60 if name == "with" else 0.0
            taken, rate = one_turn(size, folder / "run", seconds, minutes)
            rates[name].append(rate)
            if name == "with":
                stalls += taken
                newest = sorted((folder / "run" / "checkpoints").glob("step_*"))[-1]
                num_bytes = sum(file.stat().st_size for file in newest.iterdir())
            shutil.rmtree(folder / "run")
        medians = {name: statistics.median(values) for name, values in rates.items()}
        found.append(
            {
                "run": size.name,
                "checkpoint_megabytes": round(num_bytes / 1e6, 3),
                "env_steps_per_second": {k: [round(x) for x in v] for k, v in rates.items()},
                "throughput_with_over_without": medians["with"] / medians["without"],
                "saves": len(stalls),
                "save_milliseconds_median": 1e3 * statistics.median(stalls),
                "save_milliseconds_max": 1e3 * max(stalls),
                "share_of_time_in_saves": statistics.median(stalls) / every_seconds,
                "load_average_after": os.getloadavg(),
            }
        )
        yield {"every_seconds": every_seconds, "seconds_of_a_turn": seconds, "sizes": found}


def one_turn(size: Size, out: Path, seconds: float, minutes: float) -> tuple[list[float], float]:
    """A run that is ended after the given seconds of training.

    Returns:
        the pause of training for each save within the turn, and environment steps of all seeds per
        second.
    """
    from ppo_jax.apps.run import saving
    from ppo_jax.apps.run.runner import run
    from ppo_jax.config.config import Config, Hyper

    config = Config(env="CartPole-v1", total_env_steps=10**10, **size.config)
    seen: list[tuple[float, int]] = []
    stalls: list[float] = []
    save = saving.save_run

    def timed(*given: Any) -> Any:
        begin = time.perf_counter()
        status = save(*given)
        if seen:  # the start is saved before the first row
            stalls.append(time.perf_counter() - begin)
        return status

    def clock(row: dict[str, Any]) -> bool:
        seen.append((time.perf_counter(), row["env_steps"]))
        return seen[-1][0] - seen[0][0] >= seconds

    saving.save_run = timed
    try:
        run(
            config,
            Hyper(),
            seeds=size.seeds,
            out=out,
            callbacks=[clock],
            eval_episodes=1,
            log_every=size.log_iterations * config.batch_size,
            checkpoint_minutes=minutes,
            quiet=True,
        )
    finally:
        saving.save_run = save
    (begin, first), (end, last) = seen[0], seen[-1]
    # The last save is the one at the end: the clock had stopped.
    return stalls[:-1], size.seeds * (last - first) / (end - begin)


def in_process(folder: Path, seconds: float, turns: int, every_seconds: float) -> Iterator[dict]:
    """`results` in a forked process: JAX must not have started in a process that forks again."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            with os.fdopen(writer, "w") as file:
                for found in results(folder, seconds, turns, every_seconds):
                    file.write(json.dumps(found) + "\n")
                    file.flush()
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as file:
        yield from map(json.loads, file)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RuntimeError(f"the measurement of what checkpoints cost ended with {code}")
