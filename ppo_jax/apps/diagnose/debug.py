"""Reason for a frozen member of a run: its last update again, operation by operation."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppo_jax.apps.diagnose import nan_trace
from ppo_jax.apps.run import quarantine
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.reading import as_path
from ppo_jax.config.trust import Trust
from ppo_jax.distributed import population
from ppo_jax.kernels.collectives import Across
from ppo_jax.rl.types import PyTree, TrainState
from ppo_jax.runtime import saved_run
from ppo_jax.storage.files import write_json
from ppo_jax.storage.fingerprint import recorded_blocks
from ppo_jax.training import schedules, trainer


def debug(
    run: Path | str,
    *,
    member: int = 0,
    out: Path | str | None = None,
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
) -> dict[str, Any]:
    """Find the first operation that made a member's update non-finite, and save its input.

    The state of a frozen member is the one before the update that froze it, so the newest
    checkpoint holds all data to repeat that update.

    Args:
        member: index of one of the run's seeds, counted from 0.
        out: a new folder for batch.npz (the iteration's samples), minibatch.npz (if it went wrong
            in one) and report.json. None for `debug-MEMBER` in the run directory.
        env, network: the same Python objects again, if the run was trained with objects.
        trust: True to load the programs that the run names, or a list of them; a run of this user
            on this machine needs none.

    Returns:
        the content that `ppo-jax debug --json` prints.

    Raises:
        InputError: no such run or member, or one whose last update was applied.
    """
    run = as_path("run", run)
    config, hyper, options, saved, metadata = saved_run.load_where_trained(
        run, member, env, network, trust
    )
    failures = np.asarray(saved.failures)
    if failures[member] == 0:
        failed = ", ".join(map(str, np.flatnonzero(failures)))
        there = f"those that failed: {failed}" if failed else "no member of this run did"
        raise InputError(
            f"member={member}: its last update was finite and applied, so there is nothing to "
            f"explain ({there})."
        )
    folder = run / f"debug-{member}" if out is None else as_path("out", out)
    if folder.exists():
        raise InputError(f"out={str(folder)!r} exists already: name a new folder.")
    arrays = schedules.as_arrays(config, hyper)
    state = quarantine.offending(jax.tree.map(lambda leaf: leaf[member], saved))
    recorded = metadata.get("fingerprint", {})
    blocks = recorded_blocks(recorded)
    plain = population.without_budget(config)
    fault = nan_trace.first_fault(partial(update, plain, blocks), hyper=arrays, state=state)
    batch, rows = quarantine.sampler(config, blocks)(arrays, state)
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
    quarantine.save_batch(folder / "batch.npz", batch, rows)
    report["batch"] = str(folder / "batch.npz")
    place = minibatch_place(config, fault)
    if place is not None and rows is not None:
        epoch, number = place
        few = rows[epoch, number]
        quarantine.save_batch(folder / "minibatch.npz", jax.tree.map(lambda leaf: leaf[few], batch))
        report |= {
            "minibatch": str(folder / "minibatch.npz"),
            "epoch": epoch + 1,
            "minibatch_number": number + 1,
        }
    write_json(folder / "report.json", report)
    return report


def update(config: Config, blocks: int, hyper: Hyper, state: TrainState) -> PyTree:
    """Numbers that must be finite for the update to be applied."""
    learnt, metrics, _ = trainer.propose(config, hyper, state, Across(blocks=blocks))
    observed = trainer.real_numbers(config, learnt.carry.observation)
    return *trainer.must_be_finite(learnt, metrics), observed


def minibatch_place(config: Config, fault: nan_trace.Fault | None) -> tuple[int, int] | None:
    """Epoch and minibatch, from 0, of a fault within the loops over both."""
    loops = [step for step in (fault.path if fault else ()) if step[0] == "scan"]
    wanted = (config.num_epochs, config.num_minibatches)
    for outer, inner in pairwise(loops):
        if (outer[2], inner[2]) == wanted:
            return outer[1], inner[1]
    return None
