"""Why a member of a run was frozen: its last update once more, operation by operation."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax import blame, evaluating, host, improve, parallel, run_folder, schedules, trainer
from ppo_jax.config import Config, Hyper, InputError
from ppo_jax.options import RunOptions
from ppo_jax.types import Batch, PyTree, TrainState


def debug(
    run: Path | str,
    *,
    member: int = 0,
    out: Path | str | None = None,
    env: Any = None,
    network: Any = None,
) -> dict[str, Any]:
    """Find the first operation that made a member's update non-finite, and save what it was fed.

    The state of a frozen member is the one before the update that froze it, so the newest
    checkpoint holds all that is needed to make that update again.

    Args:
        member: which of the run's seeds, counted from 0.
        out: a new folder for batch.npz (the iteration's samples), minibatch.npz (where it went
            wrong in one) and report.json; None for `debug-MEMBER` in the run's folder.
        env, network: where the run was trained with Python objects, the same ones again.

    Returns:
        what `ppo-jax debug --json` prints.

    Raises:
        InputError: no such run or member, or one whose last update was applied.
    """
    run = Path(run)
    wanted = run_folder.read(run, env, network).options.platform
    host.prepare_jax(RunOptions(platform=wanted))
    config, hyper, options, saved, metadata = evaluating.load_state(run, env, network)
    evaluating.check_member(member, options.seeds)
    failures = np.asarray(saved.failures)
    if failures[member] == 0:
        failed = ", ".join(map(str, np.flatnonzero(failures)))
        there = f"those that failed: {failed}" if failed else "no member of this run did"
        raise InputError(
            f"member={member}: its last update was finite and applied, so there is nothing to "
            f"explain ({there})."
        )
    folder = run / f"debug-{member}" if out is None else Path(out)
    if folder.exists():
        raise InputError(f"out={str(folder)!r} exists already: name a new folder.")
    arrays = schedules.as_arrays(config, hyper)
    state = offending(jax.tree.map(lambda leaf: leaf[member], saved))
    recorded = metadata.get("fingerprint", {})
    shares = recorded.get("devices", 1) if recorded.get("layout") == "envs" else 1
    plain = parallel.program(config)
    fault = blame.first_fault(partial(update, plain, shares), hyper=arrays, state=state)
    batch = jax.device_get(jax.jit(partial(batch_of, plain, shares))(arrays, state))
    report = {
        "run": str(run),
        "member": member,
        "seed": options.seed + member,
        "alive": bool(saved.alive[member]),
        "failures": int(failures[member]),
        "iteration": int(state.iteration) + 1,
        "env_steps": (int(state.iteration) + 1) * config.batch_size,
        "fault": None if fault is None else fault._asdict(),
    }
    folder.mkdir(parents=True)
    save_batch(folder / "batch.npz", batch)
    report["batch"] = str(folder / "batch.npz")
    place = minibatch_place(config, fault) if shares == 1 else None
    if place is not None:
        epoch, number = place
        rows = np.asarray(minibatch_rows(plain, state, epoch)[number])
        save_batch(folder / "minibatch.npz", jax.tree.map(lambda leaf: leaf[rows], batch))
        report |= {
            "minibatch": str(folder / "minibatch.npz"),
            "epoch": epoch + 1,
            "minibatch_number": number + 1,
        }
    run_folder.write_json(folder / "report.json", report)
    return report


def offending(state: TrainState) -> TrainState:
    """The state that went into a member's last failed update.

    A failed update leaves nothing behind but its number, and a frozen member not even that.
    """
    return state._replace(iteration=state.iteration - jnp.where(state.alive, 1, 0))


def on_shares(shares: int, function: Any, state: TrainState) -> PyTree:
    """`function(state, axis_name)`, with the environments spread as over so many devices."""
    if shares == 1:
        return function(state, None)
    split = jax.tree.map(
        lambda leaf: leaf.reshape(shares, -1, *leaf.shape[1:]),
        (state.carry, state.discounted_return),
    )

    def one(carry: Any, discounted_return: Any) -> PyTree:
        share = state._replace(carry=carry, discounted_return=discounted_return)
        return function(share, "devices")

    return jax.vmap(one, axis_name="devices")(*split)


def update(config: Config, shares: int, hyper: Hyper, state: TrainState) -> PyTree:
    """All that must be finite for the update to be applied."""

    def one(state: TrainState, axis_name: str | None) -> PyTree:
        experience = trainer.collect(config, hyper, state, axis_name)
        return trainer.must_be_finite(
            *trainer.proposed(config, hyper, state, experience, axis_name)
        )

    return on_shares(shares, one, state)


def batch_of(config: Config, shares: int, hyper: Hyper, state: TrainState) -> Batch:
    """The iteration's samples [N, ...]; of several devices one after the other."""
    batch = on_shares(
        shares, lambda share, axis: trainer.collect(config, hyper, share, axis).batch, state
    )
    if shares == 1:
        return batch
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def save_batch(file: Path, batch: Batch) -> None:
    """One array a field; those of the old distribution by its parameters' names."""
    named = jax.tree_util.tree_flatten_with_path(batch)[0]
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in named
    }
    np.savez_compressed(file, allow_pickle=False, **arrays)


def minibatch_place(config: Config, fault: blame.Fault | None) -> tuple[int, int] | None:
    """Epoch and minibatch, from 0, where the fault lies within the loops over both."""
    loops = [step for step in (fault.path if fault else ()) if step[0] == "scan"]
    wanted = (config.num_epochs, config.num_minibatches)
    for outer, inner in pairwise(loops):
        if (outer[2], inner[2]) == wanted:
            return outer[1], inner[1]
    return None


def minibatch_rows(config: Config, state: TrainState, epoch: int) -> jax.Array:
    """The rows of the batch that make up each minibatch of an epoch, [M, N / M]."""
    _, key = trainer.iteration_keys(state, None)
    key = jax.random.split(key, config.num_epochs)[epoch]
    num_envs = state.discounted_return.shape[0]
    return improve.minibatch_rows(config, key, config.batch_size, num_envs)
