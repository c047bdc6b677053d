"""Quarantine of frozen members: the state before the update that froze one, and its samples.

Both are written as soon as a member freezes, whatever becomes of the run. `debug` repeats the
update and names the operation that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config.config import TRUST_REGION, Config, Hyper
from ppo_jax.distributed import door, hosts, population
from ppo_jax.distributed.layout import Layout
from ppo_jax.envs import registration as environments
from ppo_jax.kernels.collectives import Across
from ppo_jax.rl.types import Batch, TrainState
from ppo_jax.storage import checkpoint, files
from ppo_jax.training import trainer, update

LARGEST_NUMBER = 8  # members kept in a run; `debug` works for the others, too
STATE, BATCH, ROWS = "state", "batch.npz", "minibatch_rows"


def folder_of(run: Path, member: int) -> Path:
    """The folder of a frozen member in a run's folder."""
    return run / f"frozen-{member}"


def keep_frozen(
    run: Path,
    config: Config,
    hyper: Hyper,
    layout: Layout,
    state: TrainState,
    members: Iterable[int],
) -> dict[int, Path]:
    """Save the last good states of frozen members, and the samples of their failed update.

    `frozen-K/state` is a checkpoint of member K alone, `frozen-K/batch.npz` the samples [N, ...]
    of the iteration, with the rows of each minibatch of each epoch [E, M, N / M]. They cannot be
    had of an environment that is stepped outside jax.

    Args:
        state: of all members [S, ...]; that of a frozen one no longer changes.

    Returns:
        the folders that were not there before.

    Raises:
        OSError: the run's folder cannot be written.
    """
    wanted = [member for member in members if not (folder_of(run, member) / STATE).exists()]
    wanted = wanted[: max(0, LARGEST_NUMBER - sum(1 for _ in run.glob(f"frozen-*/{STATE}")))]
    wanted = hosts.from_first(wanted)
    if not wanted:
        return {}
    find = sampler(config, layout.num_blocks)
    for member in wanted:
        one = offending(alone(state, member))
        if not hosts.is_first():
            continue
        files.refuse_links(folder_of(run, member))
        folder_of(run, member).mkdir(exist_ok=True)
        if environments.find(config.env).host is None:  # else its samples cannot be drawn again
            batch, rows = find(hyper, one)
            save_batch(folder_of(run, member) / BATCH, batch, rows)
        metadata = {"member": member, "failures": int(one.failures)}
        checkpoint.save(folder_of(run, member) / STATE, one, metadata)
    return {member: folder_of(run, member) for member in wanted}


def alone(state: TrainState, member: int) -> TrainState:
    """One member of a population, moved to the default device without its sharding."""

    def moved(leaf: jax.Array) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            kind = jax.random.key_impl(leaf)
            return jax.random.wrap_key_data(moved(jax.random.key_data(leaf)), impl=kind)
        return jnp.asarray(np.array(leaf)[member])

    return jax.tree.map(moved, door.home(state))


def sampler(
    config: Config, blocks: int
) -> Callable[[Hyper, TrainState], tuple[Batch, np.ndarray | None]]:
    """A compiled program for the samples of a state's next iteration.

    It returns the batch [N, ...] and the rows of its minibatches [E, M, N / M]; None for a trust
    region, which has no minibatches. One device draws what several did, block by block.
    """
    plain = population.without_budget(config)
    collect = jax.jit(partial(batch_of, plain, blocks))

    def find(hyper: Hyper, state: TrainState) -> tuple[Batch, np.ndarray | None]:
        batch = door.fetch(collect(hyper, state))
        if config.objective in TRUST_REGION:
            return batch, None
        return batch, np.asarray(minibatch_rows(plain, blocks, state))

    return find


def offending(state: TrainState) -> TrainState:
    """The state that went into a member's last failed update.

    A failed update changes only the iteration counter, and that of a frozen member stays, too.
    """
    return state._replace(iteration=state.iteration - jnp.where(state.alive, 1, 0))


def batch_of(config: Config, blocks: int, hyper: Hyper, state: TrainState) -> Batch:
    """The iteration's samples [N, ...]."""
    return trainer.sample(config, hyper, state, Across(blocks=blocks))[1].batch


def save_batch(file: Path, batch: Batch, rows: np.ndarray | None = None) -> None:
    """Write one array a field; those of the old distribution by the names of its parameters."""
    named = jax.tree_util.tree_flatten_with_path(batch)[0]
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator=".").removeprefix("window."): leaf
        for path, leaf in named
    }
    if rows is not None:
        arrays[ROWS] = rows
    with files.replacing(file) as new:
        np.savez_compressed(new, allow_pickle=False, **arrays)


def minibatch_rows(config: Config, blocks: int, state: TrainState) -> jax.Array:
    """The rows of the batch that make up each minibatch, [E, M, N / M]."""
    key = trainer.iteration_keys(state, Across(blocks=blocks))[..., -1]
    has_memory = bool(jax.tree.leaves(state.carry.memory))
    return update.minibatch_order(config, key, config.batch_size, config.num_envs, has_memory)
