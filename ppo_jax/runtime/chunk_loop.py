"""The one loop over compiled chunks: it times each chunk and adapts the length of the next.

A chunk is one call of the compiled training program for some iterations. Longer chunks cost fewer
synchronisations of host and device, shorter ones let the host look more often. The length of a
chunk changes no bit of the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.config.config import Hyper
from ppo_jax.distributed import door, programs
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime.signals import StopRequest
from ppo_jax.runtime.windows import Rows

CHUNK_SECONDS = 0.5  # how long a chunk should take, unless a caller has a time of its own

# (state, iterations) -> (state, rows on the host); the given state is donated.
Advance = Callable[[TrainState, int], tuple[TrainState, Rows]]
# (iterations done, iterations wanted) -> iterations of the next chunk, 0 at the end.
NextLength = Callable[[int, int], int]


class Chunk(NamedTuple):
    """One chunk that has been trained."""

    state: TrainState  # after it; the next chunk takes its memory
    rows: Rows  # name -> [members, length]
    length: int  # iterations
    seconds: float  # until the rows were on the (first) host
    clock: float = 0.0  # seconds on the first host since the loop began


def chunks(
    advance: Advance,
    state: TrainState,
    next_length: NextLength,
    *,
    start: int = 0,
    first: int = 1,
    seconds: float | None = None,
    stop: Any = False,
) -> Iterator[Chunk]:
    """Train chunk by chunk until `next_length` is 0 or `stop` is true; yield each chunk.

    The length at most doubles from one chunk to the next, and shrinks after a chunk that took
    longer than `seconds`. `next_length` bounds it, so that chunks end where the caller must look.

    Args:
        advance: trains for a number of iterations, see `advance_by`.
        state: before the first chunk; it is donated, as is that of each chunk yielded.
        start: iterations done before.
        first: iterations wanted of the first chunk.
        seconds: how long a chunk should take; None for CHUNK_SECONDS.
        stop: looked at before each chunk, as a truth value. After each chunk all hosts agree on it
            and on the time.
    """
    done, wanted, begun = start, first, time.perf_counter()
    target = CHUNK_SECONDS if seconds is None else seconds
    agree = stop.agree if isinstance(stop, StopRequest) else lambda *numbers: numbers
    agree()
    while (length := next_length(done, wanted)) > 0 and not stop:
        chunk = run_chunk(advance, state, length)
        state, done = chunk.state, done + length
        took, clock = agree(chunk.seconds, time.perf_counter() - begun)
        chunk = chunk._replace(seconds=took, clock=clock)
        wanted = max(1, int(length * min(2.0, target / max(chunk.seconds, 1e-3))))
        yield chunk


def run_chunk(advance: Advance, state: TrainState, length: int) -> Chunk:
    """Train for `length` iterations and wait for the rows; `state` is donated."""
    begin = time.perf_counter()
    state, rows = advance(state, length)
    return Chunk(state, rows, length, time.perf_counter() - begin)


def advance_by(program: Callable[..., Any], hyper: Hyper, num_members: int) -> Advance:
    """The `Advance` of a compiled `programs.make_chunk`, with rows of the first members only."""

    def advance(state: TrainState, length: int) -> tuple[TrainState, Rows]:
        state, rows = program(hyper, state, np.int32(length))
        rows = door.fetch_rows(rows, length)
        return state, {name: value[:num_members, :length] for name, value in rows.items()}

    return advance


def until(last: int) -> NextLength:
    """Chunks of any length up to iteration `last`."""
    return lambda done, wanted: min(wanted, programs.MAX_CHUNK, last - done)
