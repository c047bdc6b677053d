"""Quarantine of frozen members: the state before the update that froze one, and its samples.

Both are written as soon as a member freezes, whatever becomes of the run. `debug` repeats the
update and names the operation that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config.config import TRUST_REGION, Config, Hyper
from ppo_jax.distributed import population
from ppo_jax.distributed.layout import Layout
from ppo_jax.envs import registration as environments
from ppo_jax.kernels.collectives import ALONE, Across
from ppo_jax.rl.types import Batch, PyTree, TrainState
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
    if not wanted:
        return {}
    shares = len(layout.devices) if layout.kind == "envs" else 1
    find = sampler(config, shares)
    for member in wanted:
        one = offending(alone(state, member))
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

    return jax.tree.map(moved, state)


def sampler(
    config: Config, shares: int
) -> Callable[[Hyper, TrainState], tuple[Batch, np.ndarray | None]]:
    """A compiled program for the samples of a state's next iteration.

    It returns the batch [N, ...] and the rows of its minibatches [E, M, N / M]; None for a trust
    region, which has no minibatches. If environments were spread over devices, the samples are
    those of one device after the other, and a minibatch joins the shares of all devices.
    """
    plain = population.without_budget(config)
    collect = jax.jit(partial(batch_of, plain, shares))

    def find(hyper: Hyper, state: TrainState) -> tuple[Batch, np.ndarray | None]:
        batch = jax.device_get(collect(hyper, state))
        if config.objective in TRUST_REGION:
            return batch, None
        return batch, np.asarray(minibatch_rows(plain, shares, state))

    return find


def offending(state: TrainState) -> TrainState:
    """The state that went into a member's last failed update.

    A failed update changes only the iteration counter, and that of a frozen member stays, too.
    """
    return state._replace(iteration=state.iteration - jnp.where(state.alive, 1, 0))


def on_shares(shares: int, function: Any, state: TrainState) -> PyTree:
    """Call `function(state, across)` with the environments spread over so many shares."""
    if shares == 1:
        return function(state, ALONE)
    split = jax.tree.map(
        lambda leaf: leaf.reshape(shares, -1, *leaf.shape[1:]),
        (state.carry, state.discounted_return),
    )

    def one(carry: Any, discounted_return: Any) -> PyTree:
        share = state._replace(carry=carry, discounted_return=discounted_return)
        return function(share, Across(("envs",)))

    return jax.vmap(one, axis_name="envs")(*split)


def batch_of(config: Config, shares: int, hyper: Hyper, state: TrainState) -> Batch:
    """The iteration's samples [N, ...]; of several devices one after the other."""

    def one(share: TrainState, across: Across) -> Batch:
        return trainer.sample(config, hyper, share, across)[1].batch

    batch = on_shares(shares, one, state)
    if shares == 1:
        return batch
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


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


def minibatch_rows(config: Config, shares: int, state: TrainState) -> jax.Array:
    """The rows of the batch that make up each minibatch, [E, M, N / M]."""
    size = config.batch_size // shares

    def one(share: TrainState, across: Across) -> jax.Array:
        key = trainer.iteration_keys(share, across)[-1]
        num_envs = share.discounted_return.shape[0]
        has_memory = bool(jax.tree.leaves(share.carry.memory))
        return update.minibatch_order(config, key, size, num_envs, has_memory)

    rows = on_shares(shares, one, state)
    if shares == 1:
        return rows
    rows = rows + size * jnp.arange(shares)[:, None, None, None]
    return jnp.moveaxis(rows, 0, 2).reshape(*rows.shape[1:3], -1)
