"""Damages to checkpoint files: every one is detected, and the previous checkpoint is used."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ppo_jax.storage import checkpoint_list
from ppo_jax.storage.checkpoint import ARRAYS, MANIFEST

FILES = (ARRAYS, MANIFEST)


def flip(newest: Path, older: Path, other: Path, chance: random.Random) -> None:
    path = newest / chance.choice(FILES)
    data = bytearray(path.read_bytes())
    position = chance.randrange(8 * len(data))
    data[position // 8] ^= 1 << position % 8
    path.write_bytes(data)


def truncate(newest: Path, older: Path, other: Path, chance: random.Random) -> None:
    path = newest / chance.choice(FILES)
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def lengthen(newest: Path, older: Path, other: Path, chance: random.Random) -> None:
    with (newest / chance.choice(FILES)).open("ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 5000)))


def zero_a_block(newest: Path, older: Path, other: Path, chance: random.Random) -> None:
    path = newest / chance.choice(FILES)
    data = bytearray(path.read_bytes())
    start = chance.randrange(len(data))
    length = min(chance.randrange(1, 4097), len(data) - start)
    if not any(data[start : start + length]):
        data[start] ^= 255  # zeros in place of zeros would be no damage
    else:
        data[start : start + length] = bytes(length)
    path.write_bytes(data)


def delete(newest: Path, older: Path, other: Path, chance: random.Random) -> None:
    (newest / chance.choice(FILES)).unlink()


def take_file_of_older(newest: Path, older: Path, other: Path, chance: random.Random) -> None:
    name = chance.choice(FILES)
    shutil.copy(older / name, newest / name)


def take_file_of_other_run(newest: Path, older: Path, other: Path, chance: random.Random) -> None:
    name = chance.choice(FILES)
    shutil.copy(other / name, newest / name)


def take_older_whole(newest: Path, older: Path, other: Path, chance: random.Random) -> None:
    for name in FILES:
        shutil.copy(older / name, newest / name)


def take_other_run_whole(newest: Path, older: Path, other: Path, chance: random.Random) -> None:
    for name in FILES:
        shutil.copy(other / name, newest / name)


def exchange_names(newest: Path, older: Path, other: Path, chance: random.Random) -> None:
    (newest / ARRAYS).rename(newest / "x")
    (newest / MANIFEST).rename(newest / ARRAYS)
    (newest / "x").rename(newest / MANIFEST)


COMMON: tuple[Callable[..., None], ...] = (flip, truncate, lengthen, zero_a_block)
OTHERS: tuple[Callable[..., None], ...] = (
    *(delete, take_file_of_older, take_file_of_other_run),
    *(take_older_whole, take_other_run_whole, exchange_names),
)


def results(run: Path, other_run: Path, number: int, folder: Path, seed: int) -> dict[str, Any]:
    """`number` damages to the newest checkpoint of a finished run with at least two of them.

    Args:
        run, other_run: of equal settings and different seeds, finished at the same step.
    """
    chance = random.Random(seed)
    counts: dict[str, dict[str, int]] = {}
    for i in range(number):
        kind = chance.choice(OTHERS if i % 5 == 0 else COMMON)
        copy = folder / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run / "checkpoints", copy / "checkpoints")
        shutil.copy(run / "config.json", copy)
        older, newest = sorted((copy / "checkpoints").iterdir())[-2:]
        other = sorted((other_run / "checkpoints").iterdir())[-1]
        kind(newest, older, other, chance)
        found, warnings = checkpoint_list.latest(copy)
        count = counts.setdefault(kind.__name__, {"damages": 0, "seen": 0, "fell_back": 0})
        count["damages"] += 1
        count["seen"] += found != newest
        count["fell_back"] += found == older and len(warnings) == 1
    totals = {name: sum(each[name] for each in counts.values()) for name in ("damages", "seen")}
    return {**totals, "by_kind": json.loads(json.dumps(counts, sort_keys=True))}
