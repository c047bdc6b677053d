"""The start of a run: its first state is compiled while its loop is traced.

Every step hears requests to stop: nothing has to be saved yet, so the step is left behind.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed import door, population, programs
from ppo_jax.distributed.layout import Layout
from ppo_jax.distributed.memory import Use, forecast
from ppo_jax.envs import leaves
from ppo_jax.envs.interface import action_mask
from ppo_jax.models.agent import assemble
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import devices, signals
from ppo_jax.runtime.background import Aside, called, compiled

_TRAINING = Use()


class Beginning(NamedTuple):
    """A population and its programs before the first iteration."""

    state: TrainState  # the population, on its devices
    chunk: Any  # `programs.make_chunk`, lowered; compiling it takes longest
    start: Callable[[Hyper, Array], TrainState]  # `population.make_init`, compiled


def begin(
    config: Config, hyper: Hyper, seed: int | Sequence[int], layout: Layout, use: Use = _TRAINING
) -> Beginning:
    """The population as `population.init_population` makes it, and its lowered loop.

    Python traces the loop while XLA, which needs no Python, compiles the start on another core.

    Args:
        use: of memory, beside the training.

    Raises:
        InputError: the machine has too little memory, and then nothing is compiled; or an episode
            starts without a legal action.
        Stopped: a stop was requested.
    """
    keys = population.member_keys(seed, layout)
    with _nothing_collected(), signals.free():
        lowered = population.make_init(config).lower(hyper, keys)
        needed = forecast(config, layout, lowered.out_info, use)
        devices.require_memory(needed.at_least(), layout.own_device)
        signals.check()
        compiling = Aside(lowered.compile)
        shapes = population.in_place(lowered.out_info, layout)
        chunk = programs.make_chunk(config, layout).lower(hyper, shapes, np.int32(1))
        start = compiling.result()
    state = called(start, hyper, keys)
    mask, environment = action_mask(state.carry.observation), assemble(config).environment
    if mask is not None and environment.host is None:  # else the host's first reset shows it
        leaves.require_legal(environment, door.fetch(mask))
    return Beginning(population.place(state, layout), chunk, start)


def compile_chunk(
    config: Config, layout: Layout, state: TrainState, traced: Any, use: Use
) -> Callable[..., Any]:
    """Compile the loop of a population whose state is there; its memory is known exactly then.

    Raises:
        InputError: the machine has too little memory to train.
        Stopped: a stop was requested.
    """
    program = compiled(traced)
    needed = forecast(config, layout, state, use).with_program(program)
    devices.require_memory(needed, layout.own_device, held=needed.state)
    return program


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
