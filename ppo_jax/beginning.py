"""A run's first seconds: its start is compiled while its loop is traced."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from ppo_jax import layouts, parallel
from ppo_jax.config import Config, Hyper
from ppo_jax.types import TrainState


class Beginning(NamedTuple):
    """What there is before the first iteration."""

    state: TrainState  # of the population, in its place
    chunk: Any  # `parallel.make_chunk`, lowered: its `compile` is the longest part
    start: Callable[[Hyper, Array], TrainState]  # `parallel.make_init`, compiled


def begin(config: Config, hyper: Hyper, seed: int, layout: layouts.Layout) -> Beginning:
    """The population of seeds from `seed` on, as `parallel.init_population` makes it, and its loop.

    Tracing is Python's work and compiling XLA's, which needs no Python: each has a core.
    """
    keys = parallel.member_keys(seed, layout)
    lowered = parallel.make_init(config).lower(hyper, keys)
    with ThreadPoolExecutor(1) as pool:
        compiling = pool.submit(lowered.compile)
        shapes = parallel.in_place(lowered.out_info, layout)
        chunk = parallel.make_chunk(config, layout).lower(hyper, shapes, np.int32(1))
        start = compiling.result()
    return Beginning(parallel.place(start(hyper, keys), layout), chunk, start)
