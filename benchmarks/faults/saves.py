"""Process deaths and I/O errors at every write, fsync and rename: the latest checkpoint is whole.

A child process is forked for each of them; the parent reads the files that it leaves.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.storage import checkpoint, checkpoint_list

CALLS = ("open", "write", "fsync", "rename", "mkdir", "close")
LENGTH = 300_000  # of an array that takes more than one write
KINDS = ("killed before", "killed after", "killed half way", "disk full", "input/output error")


def tree(value: int) -> dict[str, np.ndarray]:
    """Arrays filled with one value."""
    return {"x": np.full(LENGTH, value, np.int32), "y": np.full(7, value, np.uint8)}


def faulty(kind: str, number: int, counter: Iterator[int], function: Callable) -> Callable:
    """`function` with an error in its `number`-th call, counted over all that share the counter."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if next(counter) != number:
            return function(*args, **kwargs)
        if kind == "killed before":
            os._exit(9)
        if kind == "killed after":
            function(*args, **kwargs)
            os._exit(9)
        if kind == "killed half way":
            if function.__name__ == "write":
                function(args[0], bytes(args[1])[: len(args[1]) // 2])
            os._exit(9)
        code = errno.ENOSPC if kind == "disk full" else errno.EIO
        raise OSError(code, os.strerror(code))

    return wrapper


def save_with_fault(run: Path, kind: str, number: int, replaces: bool) -> int:
    """Save step 3 (or step 2 again) in a child; its exit code: 9 killed, 3 error reported, 0 no
    such call."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    counter = itertools.count(1)
    for name in CALLS:
        setattr(os, name, faulty(kind, number, counter, getattr(os, name)))
    code = 0
    try:
        step = 2 if replaces else 3
        checkpoint.save(checkpoint.checkpoint_folder(run, step), tree(3), {"env_steps": step})
        code = 0 if next(counter) <= number else 4
        checkpoint_list.prune(run, keep=2)
        code = 5 if code == 4 and next(counter) > number else code
    except OSError as error:
        code = 3 if "earlier ones are untouched" in str(error) else 6
    finally:
        os._exit(code)


def results(folder: Path) -> dict[str, Any]:
    """Every fault at every call, for a new step and for one that replaces the newest."""
    run = folder / "saves"
    counts = {"faults": 0, "latest_not_whole": 0, "all_lost": 0, "silent": 0, "next_failed": 0}
    for kind, replaces in itertools.product(KINDS, (False, True)):
        for number in itertools.count(1):
            shutil.rmtree(run, ignore_errors=True)
            run.mkdir(parents=True)
            for step in (1, 2):
                checkpoint.save(
                    checkpoint.checkpoint_folder(run, step), tree(step), {"env_steps": step}
                )
            code = save_with_fault(run, kind, number, replaces)
            if code == 0:
                break  # the save made fewer calls
            counts["faults"] += 1
            counts["silent"] += code == 4 and kind in ("disk full", "input/output error")
            newest, _ = checkpoint_list.latest(run)
            values = set() if newest is None else set(checkpoint.load_raw(newest)[0]["x"].tolist())
            counts["latest_not_whole"] += len(values) != 1
            counts["all_lost"] += newest is None
            checkpoint.save(checkpoint.checkpoint_folder(run, 4), tree(4), {"env_steps": 4})
            checkpoint_list.prune(run, keep=1)
            left = sorted(path.name for path in (run / "checkpoints").iterdir())
            counts["next_failed"] += left != ["step_000000000004"]
    return counts
