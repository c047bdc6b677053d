"""The runs that are killed, stopped and damaged: objectives, memories, alone and in populations."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """One kind of run."""

    name: str
    words: str  # arguments of `ppo-jax train`


_SMALL = (
    "--no-preset --num-envs 4 --rollout-length 16 --num-epochs 2 --num-minibatches 2 "
    "--hidden-sizes 8 --total-env-steps 3840 --log-every 448 --checkpoint-every 128 "
    "--eval-every 1344 --eval-episodes 4 --env.max_steps_in_episode 50"
)
_CART = f"CartPole-v1 {_SMALL} --learning-rate 3e-3:0"
_PENDULUM = f"Pendulum-v1 {_SMALL} --normalize-observations --normalize-rewards"
_HIDDEN = "memory/Pendulum-NoVelocity-v1 " + _PENDULUM.removeprefix("Pendulum-v1 ")
_LARGE = (
    "CartPole-v1 --no-preset --rollout-length 32 --num-epochs 1 --num-minibatches 2 "
    "--hidden-sizes 8 --eval-episodes 4 --env.max_steps_in_episode 50"
)

CASES = (
    Case("clip", _CART),
    Case("pg", f"{_CART} --objective pg"),
    Case("is", f"{_CART} --objective is"),
    Case("kl, adaptive", f"{_CART} --objective kl --kl-target 0.01"),
    Case("dpo", f"{_CART} --objective dpo"),
    Case("spo", f"{_CART} --objective spo"),
    Case("trpo", f"{_CART} --objective trpo"),
    Case("npg", f"{_CART} --objective npg"),
    Case("clip, gSDE, normalised", f"{_PENDULUM} --policy gsde --gsde-resample-steps 4"),
    Case("clip, 3 seeds side by side", f"{_CART} --seeds 3"),
    Case("kl, 4 seeds, normalised", f"{_PENDULUM} --objective kl --seeds 4 --kl-lr-target 0.01"),
    Case(
        "clip, 2 seeds one after the other",
        f"{_LARGE} --num-envs 32 --seeds 2 --total-env-steps 30720 --log-every 7168 "
        "--checkpoint-every 2048",
    ),
    Case(
        "clip, one seed over the devices",
        f"{_LARGE} --num-envs 128 --total-env-steps 122880 --log-every 28672 "
        "--checkpoint-every 8192",
    ),
    Case("clip, GRU", f"{_HIDDEN} --memory gru --memory-size 8 --previous-inputs action+reward"),
    Case(
        "trpo, LRU of two layers, learned start, 3 seeds",
        f"{_HIDDEN} --objective trpo --memory lru --memory-size 4 --memory-layers 2 "
        "--memory-start learned --seeds 3",
    ),
    Case("kl, attention", f"{_HIDDEN} --objective kl --memory attention --memory-size 8"),
)


def chosen(names: str) -> tuple[Case, ...]:
    """The cases with these names, with semicolons between; all if empty."""
    return tuple(case for case in CASES if not names or case.name in names.split("; "))


def words_of(case: Case, out: Path, *more: str) -> list[str]:
    """`train --resume auto` of a case."""
    return [
        *("train", *case.words.split(), "--resume", "auto", "--quiet", "--json"),
        *("--out", str(out), *more),
    ]


def bits(folder: Path) -> tuple[bytes, bytes]:
    """Data that must be equal: all arrays of the last checkpoint, and every logged row."""
    newest = sorted((folder / "checkpoints").glob("step_*"))[-1]
    return (newest / "arrays.safetensors").read_bytes(), (folder / "metrics.jsonl").read_bytes()


def differing_bits(one: bytes, other: bytes) -> int:
    """Number of bits in which two files differ; missing bytes count whole."""
    both = zip(one, other, strict=False)
    return sum((a ^ b).bit_count() for a, b in both) + 8 * abs(len(one) - len(other))
