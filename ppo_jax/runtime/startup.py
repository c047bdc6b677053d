"""A run's first seconds: its start is compiled while its loop is traced."""

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
    """What there is before the first iteration."""

    state: TrainState  # of the population, in its place
    chunk: Any  # `parallel.make_chunk`, lowered: to compile it is the longest part
    start: Callable[[Hyper, Array], TrainState]  # `parallel.make_init`, compiled


def begin(config: Config, hyper: Hyper, seed: int | Sequence[int], layout: Layout) -> Beginning:
    """The population that `parallel.init_population` makes of the same arguments, and its loop.

    Tracing is Python's work and compiling XLA's, which needs no Python: each has a core.
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
    """No search for cyclic garbage: tracing makes a million objects, nearly all of them kept.

    A quarter of the time to trace a loop is else spent on looking through them, and through all
    that jax has loaded, again and again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
