"""SIGKILL at random moments: a resumed run ends with the same bits as an uninterrupted one."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cases import Case, bits, chosen, differing_bits, words_of
from processes import Process, finish

EARLY = 0.15  # share of kills before the training has begun


def kill_and_compare(
    case: Case, folder: Path, num_kills: int, chance: random.Random
) -> dict[str, Any]:
    """One run that is killed `num_kills` times, compared with one that is not."""
    whole, killed = folder / "whole", folder / "killed"
    for path in (whole, killed):
        shutil.rmtree(path, ignore_errors=True)
    reference = finish(words_of(case, whole))
    moments: list[str] = []
    lives = 0
    while len(moments) < num_kills and not (killed / "summary.json").exists():
        moments += [moment] if (moment := one_life(case, killed, chance)) else []
        lives += 1
    summary = finish(words_of(case, killed))
    (arrays, rows), (arrays_killed, rows_killed) = bits(whole), bits(killed)
    return {
        "case": case.name,
        "kills": len(moments),
        "killed_while": {moment: moments.count(moment) for moment in sorted(set(moments))},
        "differing_bits_in_arrays": differing_bits(arrays, arrays_killed),
        "differing_bits_in_metrics": differing_bits(rows, rows_killed),
        "same_final_return": summary["final_return"] == reference["final_return"],
    }


def one_life(case: Case, out: Path, chance: random.Random) -> str | None:
    """Start or resume, then SIGKILL; return the phase at that moment, or None after the end."""
    timing = out / "timing.jsonl"
    before = timing.stat().st_size if timing.exists() else 0
    process = Process(words_of(case, out))
    if chance.random() < EARLY:
        time.sleep(chance.uniform(0.0, 5.0))
    else:
        # Rows beyond the checkpoint are cut off on resuming, so any change shows that the run is
        # alive.
        while process.poll() is None and (
            (timing.stat().st_size if timing.exists() else 0) in (0, before)
        ):
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.4))
    is_over = process.poll() is not None
    process.signal(signal.SIGKILL)
    process.wait()
    if is_over:
        return None
    left = [path.name for path in (out / "checkpoints").glob(".step_*")]
    if any(".tmp-" in name for name in left):
        return "saving"
    if left or not (timing.exists() and timing.stat().st_size):
        return "thinning out" if left else "starting"
    return "training or logging"


def results(
    folder: Path, num_kills: int, until: float, seed: int, names: str
) -> Iterator[dict[str, Any]]:
    """Every case of these names, while time is left."""
    chance = random.Random(seed)
    for case in chosen(names):
        if time.monotonic() < until:
            yield kill_and_compare(case, folder, num_kills, chance)
