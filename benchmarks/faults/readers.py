"""SIGKILL of commands that read a run: the run stays as it is, the output is whole or absent."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cases import CASES, words_of
from packs import timeless
from processes import Process, finish

from ppo_jax.storage.files import is_temporary

LIVES_TO_THE_END = 5  # one life of these is not killed: its output is compared
ANY_MOMENT = 0.4  # share of the kills at any moment; the others wait for the output


class Reader(NamedTuple):
    """A command that reads a run and writes one file or folder into the run's folder."""

    name: str
    words: str
    output: str


READERS = (
    Reader("eval", "eval RUN --episodes 4 --video RUN/clip.gif --json", "clip.gif"),
    Reader("export", "export RUN --json", "policy-0"),
    Reader("report", "report RUN --no-animation --json", "report.html"),
    Reader("report of a suite", "report SUITE --out RUN/suite.html --json", "suite.html"),
)
SUITE = "minatar"  # its results are stored in this repository


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, or of a file."""
    files = [each for each in (path, *path.rglob("*")) if each.is_file()]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def others(run: Path, output: Path) -> dict[str, str]:
    """Digests of the run's files: all but the output and what a killed writer leaves."""
    return {
        name: digest
        for name, digest in digests(run).items()
        if not Path(name).is_relative_to(output)
        and not any(is_temporary(part) for part in Path(name).relative_to(run).parts)
    }


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def kill_and_compare(
    reader: Reader, run: Path, num_kills: int, chance: random.Random
) -> dict[str, Any]:
    """A command that is killed `num_kills` times, its output, and the run that it reads."""
    output = run / reader.output
    words = reader.words.replace("RUN", str(run)).replace("SUITE", SUITE).split()
    finish(words)  # compiles and fills caches, so the next one shows how long a later one lasts
    whole = digests(output)
    remove(output)
    begin = time.monotonic()
    answer = timeless(finish(words))
    life = time.monotonic() - begin
    found = {"kills": 0, "output_whole": 0, "output_absent": 0, "left_a_temporary": 0}
    wrong = {"output_cut": 0, "other_output": int(digests(output) != whole), "run_changed": 0}
    before, compared = others(run, output), 1
    while found["kills"] < num_kills or compared < 2:
        remove(output)
        left = temporaries(run)
        process = Process(words)
        if found["kills"] < num_kills and chance.random() > 1 / LIVES_TO_THE_END:
            wait(process, run, life, chance)
            process.signal(signal.SIGKILL)
        code = process.wait()
        now = digests(output)
        if code == 0:
            compared += 1
            is_same = timeless(json.loads(process.output()[0])) == answer
            wrong["other_output"] += now != whole or not is_same
        elif code == -signal.SIGKILL:
            found["kills"] += 1
            found["output_absent" if not now else "output_whole"] += now in ({}, whole)
            found["left_a_temporary"] += temporaries(run) > left
            wrong["output_cut"] += now not in ({}, whole)
        else:
            raise RuntimeError(f"{reader.name} ended with {code}: {process.output()}")
        wrong["run_changed"] += others(run, output) != before
    remove(output)
    return {"case": reader.name, **found, "compared": compared, **wrong}


def temporaries(run: Path) -> int:
    return sum(is_temporary(path.name) for path in run.iterdir())


def wait(process: Process, run: Path, life: float, chance: random.Random) -> None:
    """Until a random moment, or until the output is being written or has just been."""
    if chance.random() < ANY_MOMENT:
        until = time.monotonic() + chance.uniform(0.0, life)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        return
    entries = sorted(path.name for path in run.iterdir())
    while process.poll() is None and sorted(path.name for path in run.iterdir()) == entries:
        time.sleep(0.0002)
    time.sleep(chance.choice((0.0, 0.0, 0.002, 0.02)))


def results(folder: Path, num_kills: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """Every command, while time is left."""
    chance = random.Random(seed)
    run = folder / "read"
    finish(words_of(CASES[0], run))
    for reader in READERS:
        if time.monotonic() < until:
            yield kill_and_compare(reader, run, num_kills, chance)
