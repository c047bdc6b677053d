"""The start of a run: its first state is compiled while its loop is traced."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed import population, programs
from ppo_jax.distributed.layout import Layout
from ppo_jax.kernels.compiler import compiled
from ppo_jax.rl.types import TrainState


class Beginning(NamedTuple):
    """A population and its programs before the first iteration."""

    state: TrainState  # the population, on its devices
    chunk: Any  # `programs.make_chunk`, lowered; compiling it takes longest
    start: Callable[[Hyper, Array], TrainState]  # `population.make_init`, compiled


def begin(config: Config, hyper: Hyper, seed: int | Sequence[int], layout: Layout) -> Beginning:
    """The population as `population.init_population` makes it, and its lowered loop.

    Python traces the loop while XLA, which needs no Python, compiles the start on another core.
    """
    keys = population.member_keys(seed, layout)
    with _nothing_collected(), ThreadPoolExecutor(1) as pool:
        lowered = population.make_init(config).lower(hyper, keys)
        compiling = pool.submit(compiled, lowered)
        shapes = population.in_place(lowered.out_info, layout)
        chunk = programs.make_chunk(config, layout).lower(hyper, shapes, np.int32(1))
        start = compiling.result()
    return Beginning(population.place(start(hyper, keys), layout), chunk, start)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Switch the garbage collector off: tracing makes a million objects and keeps nearly all.

    Else a quarter of the tracing time is spent on searching them for cycles, again and again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
