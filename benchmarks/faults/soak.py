"""A small, long run with all features on: memory, files and threads must not grow."""

from __future__ import annotations

import json
import os
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from processes import Process

KEEP = 3
WORDS = (
    "train CartPole-v1 --no-preset --seeds 2 --num-envs 64 --rollout-length 32 --num-epochs 2 "
    "--num-minibatches 4 --hidden-sizes 16,16 --total-env-steps 100000000000 --log-every 65536 "
    f"--eval-every 262144 --eval-episodes 16 --checkpoint-minutes 0.05 --keep {KEEP} --quiet --json"
)
SAMPLE_SECONDS = 1.0
WARM_UP = 0.25  # share of samples that are left out: compilation, opened files and pools come first
MEGABYTES_ALLOWED = 16.0  # growth between the first tenth after the warm-up and the last one


class Sample(NamedTuple):
    """Measurements of the process and its folder from outside."""

    seconds: float
    resident_bytes: int
    open_files: int
    threads: int
    checkpoints: int  # number of whole checkpoints
    checkpoint_bytes: int  # all files in their folder
    log_bytes: int
    rows: int


def results(folder: Path, minutes: float) -> dict[str, Any]:
    """Train for the given time, and report growth.

    Returns:
        with `grown`: a sentence for each quantity that grew and must not; empty if there is none.
    """
    out = folder / "soak"
    words = [*WORDS.split(), "--out", str(out), "--max-seconds", str(60 * minutes)]
    if find_spec("tensorboardX") is not None:
        words.append("--tensorboard")
    begin = time.monotonic()
    process = Process(words)
    samples = []
    while process.poll() is None:
        time.sleep(SAMPLE_SECONDS)
        if time.monotonic() - begin > 60 * minutes - 2 * SAMPLE_SECONDS:
            continue  # an ending process frees everything, which would look like shrinking
        sample = look(process.pid, out, time.monotonic() - begin)
        samples += [sample] if sample is not None and sample.rows else []
    if process.exit_code != 75:
        raise RuntimeError(f"the soak ended with {process.exit_code}: {process.output()[1]}")
    summary = json.loads(process.output()[0])
    return {"minutes": minutes, "env_steps": summary["env_steps"], **judged(samples)}


def look(pid: int, out: Path, seconds: float) -> Sample | None:
    """One sample, None if the process has just ended or a file was just removed."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        kept = [entry for entry in (out / "checkpoints").iterdir() if entry.name[0] != "."]
        files = [file for file in (out / "checkpoints").rglob("*") if file.is_file()]
        with (out / "metrics.jsonl").open("rb") as file:
            rows = sum(1 for _ in file)
        return Sample(
            seconds=seconds,
            resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
            open_files=len(os.listdir(f"/proc/{pid}/fd")),
            threads=len(os.listdir(f"/proc/{pid}/task")),
            checkpoints=len(kept),
            checkpoint_bytes=sum(file.stat().st_size for file in files),
            log_bytes=(out / "metrics.jsonl").stat().st_size,
            rows=rows,
        )
    except (FileNotFoundError, ProcessLookupError):
        return None


def judged(samples: list[Sample]) -> dict[str, Any]:
    """Evaluate the samples after the warm-up."""
    after = samples[int(WARM_UP * len(samples)) :]
    if len(after) < 10:
        raise RuntimeError(f"{len(after)} samples after the warm-up are too few: soak for longer")
    tenth = max(1, len(after) // 10)
    first, last = after[:tenth], after[-tenth:]

    def median(part: list[Sample], name: str) -> float:
        return statistics.median(getattr(sample, name) for sample in part)

    megabytes = (median(last, "resident_bytes") - median(first, "resident_bytes")) / 1e6
    row_bytes = [(part[-1].log_bytes / part[-1].rows) for part in (first, last)]
    most = max(sample.checkpoints for sample in after)
    one = max(sample.checkpoint_bytes / sample.checkpoints for sample in first)
    grown = []
    if megabytes > MEGABYTES_ALLOWED:
        grown.append(f"memory grew by {megabytes:.1f} MB")
    for name in ("open_files", "threads"):
        if median(last, name) > median(first, name):
            grown.append(f"{name}: {median(first, name):g}, at the end {median(last, name):g}")
    if most > KEEP + 2:  # the best one, and the new one before an old one is removed
        grown.append(f"{most} checkpoints existed at once")
    if max(sample.checkpoint_bytes for sample in after) > (KEEP + 4) * one:
        grown.append("the checkpoints' folder grew beyond the kept checkpoints")
    if row_bytes[1] > 1.1 * row_bytes[0]:
        grown.append(f"a row has {row_bytes[1]:.0f} bytes and had {row_bytes[0]:.0f}")
    return {
        "samples": len(samples),
        "seconds_observed": round(samples[-1].seconds),
        "rows": samples[-1].rows,
        "resident_megabytes_after_warm_up": round(median(first, "resident_bytes") / 1e6, 1),
        "resident_megabytes_at_the_end": round(median(last, "resident_bytes") / 1e6, 1),
        "open_files": [median(first, "open_files"), median(last, "open_files")],
        "threads": [median(first, "threads"), median(last, "threads")],
        "most_checkpoints": most,
        "bytes_of_a_row": [round(each, 1) for each in row_bytes],
        "resident_megabytes_by_minute": by_minute(samples),
        "grown": grown,
    }


def by_minute(samples: list[Sample]) -> list[float]:
    """Median memory of each minute."""
    minutes: dict[int, list[int]] = {}
    for sample in samples:
        minutes.setdefault(int(sample.seconds // 60), []).append(sample.resident_bytes)
    return [round(statistics.median(minutes[i]) / 1e6, 1) for i in sorted(minutes)]
