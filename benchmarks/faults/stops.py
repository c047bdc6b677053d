"""Signals at random phases, and concurrent starts on one folder."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from cases import Case, bits, differing_bits, words_of
from processes import Process, finish

from ppo_jax.storage import checkpoint_list

NAMES = ("SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2")
EXIT_CODES = {signal.SIGINT: 130, **{getattr(signal, name): 75 for name in NAMES}}


def signals(case: Case, folder: Path, number: int, until: float, seed: int) -> dict[str, Any]:
    """Runs with repeated signals at random moments, compared with one without."""
    chance = random.Random(seed)
    whole, stopped = folder / "never_stopped", folder / "stopped"
    shutil.rmtree(whole, ignore_errors=True)
    begin = time.monotonic()
    finish(words_of(case, whole))
    life = time.monotonic() - begin
    found = {
        **{"signals": 0, "right_exit_code": 0, "resumable": 0, "runs": 0},
        **{"during": {}, "differing_bits": 0, "slowest_seconds": 0.0},
    }
    shutil.rmtree(stopped, ignore_errors=True)
    while found["signals"] < number and time.monotonic() < until:
        name = chance.choice(list(EXIT_CODES))
        process = Process(words_of(case, stopped))
        moment = chance.uniform(0.05, life)
        at = time.monotonic() + moment
        while process.poll() is None and time.monotonic() < at:
            time.sleep(0.005)
        if process.poll() is None:
            sent = time.monotonic()
            process.signal(name)
            code = process.wait()
            out, _ = process.output()
            found["signals"] += 1
            found["right_exit_code"] += code == EXIT_CODES[name]
            found["slowest_seconds"] = max(found["slowest_seconds"], time.monotonic() - sent)
            # A signal at the very start arrives before there is a state to save.
            is_saved = checkpoint_list.latest(stopped)[0] is not None or not stopped.exists()
            found["resumable"] += is_saved
            steps = json.loads(out)["env_steps"] if out.startswith('{"env"') else 0
            phase = "before training" if steps == 0 else "while training"
            phase = "at the end" if (stopped / "learning_curve.svg").exists() else phase
            found["during"][phase] = found["during"].get(phase, 0) + 1
        if process.poll() == 0 or (stopped / "learning_curve.svg").exists():
            finish(words_of(case, stopped))
            found["differing_bits"] += sum(
                differing_bits(a, b) for a, b in zip(bits(whole), bits(stopped), strict=True)
            )
            found["runs"] += 1
            shutil.rmtree(stopped)
    if stopped.exists():
        finish(words_of(case, stopped))
        found["runs"] += 1
        found["differing_bits"] += sum(
            differing_bits(a, b) for a, b in zip(bits(whole), bits(stopped), strict=True)
        )
    return found


def races(case: Case, folder: Path, number: int) -> dict[str, Any]:
    """Simultaneous starts on one folder: one trains, the others report its process."""
    out = folder / "raced"
    shutil.rmtree(out, ignore_errors=True)
    words = [word for word in words_of(case, out) if word not in ("--resume", "auto")]
    processes = [Process(words) for _ in range(number)]
    codes = [process.wait(600.0) for process in processes]
    told = [process.output() for process in processes]
    sentences = [
        json.loads(stdout)["error"]
        for (stdout, _), code in zip(told, codes, strict=True)
        if code == 2
    ]
    winners = codes.count(0)
    return {
        "starts": number,
        "winners": winners,
        "refused_in_a_sentence": len(sentences),
        "naming_the_holder": sum("is being written by process" in text for text in sentences),
        "tracebacks": sum("Traceback" in stderr for _, stderr in told),
        "rows_of_one_run": len((out / "metrics.jsonl").read_text("utf-8").splitlines()),
    }
