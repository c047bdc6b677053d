"""Layouts of a peer's seeds on a machine that an experienced JAX user would try.

A peer is a jittable `train(key)`. One seed runs `plain`, with and without XLA's own threads in
matrix products. Several seeds run side by side (`vmap`, as in the peers' documents), over one
device per core side by side (`devices-vmap`), or one after the other (`devices-map`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cases import Case
from worker import device_per_core


def layouts(case: Case) -> tuple[str, ...]:
    if case.seeds == 1:
        return ("plain", "plain-eigen-off")
    return ("vmap", "devices-vmap", "devices-map")


def xla_flags(layout: str) -> tuple[str, ...]:
    if layout.startswith("devices"):
        return (device_per_core(),)
    return ("--xla_cpu_multi_thread_eigen=false",) if layout.endswith("eigen-off") else ()


def seed_keys(case: Case, seed: int) -> Any:
    import jax

    return jax.random.split(jax.random.PRNGKey(seed), case.seeds)


def _with_seed_axis(state: Any) -> Any:
    import jax

    # By a name that a jax of 2023 knows, too.
    return jax.tree_util.tree_map(lambda leaf: jax.numpy.asarray(leaf)[None], state)


def spread(train: Callable[[Any], Any], layout: str) -> Callable[[Any], Any]:
    """`train` of one key as a function of keys [S], laid out over the machine."""
    import jax
    import numpy
    from jax.sharding import Mesh, PartitionSpec

    if layout.startswith("plain"):
        return lambda keys: _with_seed_axis(train(keys[0]))
    if layout == "vmap":
        return jax.vmap(train)
    inner = jax.vmap(train) if layout == "devices-vmap" else lambda keys: jax.lax.map(train, keys)
    mesh = Mesh(numpy.array(jax.devices()), ("seed",))
    seeds = PartitionSpec("seed")
    return jax.shard_map(inner, mesh=mesh, in_specs=seeds, out_specs=seeds, check_vma=False)


def compiled(
    case: Case, train: Callable[[Any], Any], layout: str, mark: Callable[[str], None]
) -> Callable[[int], Any]:
    """Compile the run: a number to the trained states of all seeds, finished."""
    import jax

    program = jax.jit(spread(train, layout))
    example = seed_keys(case, 0)
    mark("trace_seconds")
    lowered = program.lower(example)
    mark("trace_seconds")
    ready = lowered.compile()
    mark("compile_seconds")
    return lambda seed: jax.block_until_ready(ready(seed_keys(case, seed)))
