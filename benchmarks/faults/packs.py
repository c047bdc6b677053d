"""Kills and signals of sweeps of every sampler and of reproductions: the numbers stay the same."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cases import differing_bits
from processes import Process

_SIZE = (
    "--no-preset --num-envs 4 --rollout-length 16 --num-epochs 2 --num-minibatches 2 "
    "--hidden-sizes 8 --env.max_steps_in_episode 50 --eval-episodes 4"
)
# Four members side by side throughout, so that all samplers and winners share one program.
_SWEEP = f"sweep CartPole-v1 {_SIZE} --seeds 1 --fresh-seeds 4 --save-seconds 0.02"
_RATES = "learning_rate=1e-4..1e-2:log"
_SPEC = """
title = "Poles"
about = "Small cells to be killed."
[defaults]
seeds = 2
protocol = "PROTOCOL"
episodes = 4
total_env_steps = STEPS
[defaults.config]
num_envs = 4
rollout_length = 16
num_epochs = 2
num_minibatches = 2
hidden_sizes = [8]
[defaults.hyper.env]
max_steps_in_episode = 50
[[task]]
name = "CartPole-v1"
[[variant]]
name = "fast"
hyper = { learning_rate = 0.003 }
[[variant]]
name = "slow"
hyper = { learning_rate = 0.0003 }
"""

EARLY = 0.15  # share of the kills at any moment; the others wait until something is written
# Signal, exit code, and its share.
SIGNALS = ((signal.SIGKILL, -9, 10), (signal.SIGTERM, 75, 1), (signal.SIGINT, 130, 1))
_TIMES = ("seconds", "manifest", "fingerprint", "date", "sha256", "env_steps_per_second")


class Pack(NamedTuple):
    """A kind of command that trains packs."""

    name: str
    words: str  # without --total-env-steps and --out

    @property
    def is_sweep(self) -> bool:
        return self.name != "reproduce"


PACKS = (
    Pack("grid", f"{_SWEEP} learning_rate=0.001,0.01 gamma=0.9,0.99"),
    Pack("random", f"{_SWEEP} {_RATES} --sampler random --settings 4"),
    Pack("halving", f"{_SWEEP} {_RATES} --sampler halving --settings 9 --slots 4 --eta 2"),
    Pack("pbt", f"{_SWEEP} {_RATES} --sampler pbt --settings 4"),
    Pack("tpe", f"{_SWEEP} {_RATES} --sampler tpe --settings 8 --batch 4"),
    Pack("reproduce", "reproduce SPEC --save-seconds 0.02"),
)


def words_of(pack: Pack, out: Path, steps: int, protocol: str = "deterministic") -> list[str]:
    """The command that begins these packs, or goes on with them."""
    if not pack.is_sweep:
        spec = out.with_name("poles.toml")
        spec.write_text(_SPEC.replace("STEPS", str(steps)).replace("PROTOCOL", protocol), "utf-8")
        return [*pack.words.replace("SPEC", str(spec)).split(), "--out", str(out), "--json"]
    if (out / "sweep.json").is_file():
        return ["sweep", str(out), "--json"]
    budget = ("--total-env-steps", str(steps))
    return [*pack.words.split(), *budget, "--out", str(out), "--json"]


def numbers(out: Path) -> bytes:
    """All numbers at the end that do not depend on the clock."""
    if (out / "sweep.json").is_file():
        found = [(out / name).read_bytes() for name in ("table.csv", "scores.csv")]
        found += [path.read_bytes() for path in sorted(out.glob("packs/*/lineage.jsonl"))]
        summary = json.loads((out / "summary.json").read_text("utf-8"))
        return b"".join([*found, json.dumps(summary["best"]).encode()])
    return b"".join(
        json.dumps(timeless(json.loads(path.read_text("utf-8")))).encode()
        for path in sorted(out.glob("*__*.json"))
    )


def timeless(value: Any) -> Any:
    """A result without its durations and its machine."""
    if isinstance(value, dict):
        return {
            name: timeless(inner)
            for name, inner in value.items()
            if not any(word in name for word in _TIMES)
        }
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def written(out: Path) -> tuple[int, ...]:
    """Sizes of the logs and names of the checkpoints: any change shows that training goes on."""
    logs = [path.stat().st_size for path in sorted(out.glob("**/*.jsonl"))]
    steps = [int(path.name[5:]) for path in out.glob("**/checkpoints/step_*")]
    return (*logs, *sorted(steps))


def kill_and_compare(
    pack: Pack, folder: Path, num_kills: int, steps: int, chance: random.Random
) -> dict[str, Any]:
    """Packs that are killed `num_kills` times, compared with others that are not."""
    whole, killed = folder / "whole" / "a", folder / "killed" / "a"
    for path in (whole, killed):
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
    begin = time.monotonic()
    first = Process(words_of(pack, whole, steps))
    code, life = first.wait(), time.monotonic() - begin
    assert code == 0, first.output()
    found = {"kills": 0, "signals": 0, "right_exit_code": 0, "errors": 0, "compared": 1}
    different = 0
    while found["kills"] + found["signals"] < num_kills:
        name, code, moment = one_life(pack, killed, steps, life, chance)
        if moment == "over":
            different += differing_bits(numbers(whole), numbers(killed))
            shutil.rmtree(killed)
            found["compared"] += 1
            continue
        found["kills" if name == signal.SIGKILL else "signals"] += 1
        expected = next(wanted for number, wanted, _ in SIGNALS if number == name)
        found["right_exit_code"] += code == expected
        found["errors"] += code not in (expected, 0)
    last = Process(words_of(pack, killed, steps))
    found["errors"] += last.wait() != 0
    different += differing_bits(numbers(whole), numbers(killed))
    return {"case": pack.name, **found, "differing_bits": different}


def one_life(
    pack: Pack, out: Path, steps: int, life: float, chance: random.Random
) -> tuple[signal.Signals, int, str]:
    """Begin or go on, then signal; return the signal, the exit code and the phase."""
    before = written(out)
    (name,) = chance.choices([each[0] for each in SIGNALS], [each[2] for each in SIGNALS])
    process = Process(words_of(pack, out, steps))
    if chance.random() < EARLY:
        time.sleep(chance.uniform(0.0, life))
    else:
        while process.poll() is None and written(out) == before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.6))
    if process.poll() is not None:
        return name, process.wait(), "over"
    process.signal(name)
    return name, process.wait(), "killed"


def chosen(names: str) -> tuple[Pack, ...]:
    """The kinds of packs with these names, with commas between; all if empty."""
    return tuple(pack for pack in PACKS if not names or pack.name in names.split(","))


def results(
    folder: Path, num_kills: int, steps: int, until: float, seed: int, names: str
) -> Iterator[dict]:
    """Every kind of pack, while time is left."""
    chance = random.Random(seed)
    for pack in chosen(names):
        if time.monotonic() < until:
            yield kill_and_compare(pack, folder, num_kills, steps, chance)
