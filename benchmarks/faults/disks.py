"""Full disks of 20 sizes, a read-only folder, a folder removed during the run."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from cases import Case, words_of
from processes import Process

from ppo_jax.storage import checkpoint_list


def full(case: Case, folder: Path, sizes: list[int]) -> dict[str, Any]:
    """Run on a file system of this many KiB: the error is reported, and the run resumable."""
    counts = {"sizes": 0, "fitted": 0, "told": 0, "tracebacks": 0, "latest_lost": 0}
    disk = folder / "disk"
    for size in sizes:
        disk.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return {"skipped": "mounting a small file system is not permitted here"}
        try:
            process = Process(words_of(case, disk / "run"))
            code = process.wait()
            out, err = process.output()
            counts["sizes"] += 1
            counts["fitted"] += code == 0
            counts["told"] += code in (1, 2) and "No space left" in out and out.count("\n") == 1
            counts["tracebacks"] += "Traceback" in err
            run = disk / "run"
            had_one = any((run / "checkpoints").glob("step_*"))
            counts["latest_lost"] += had_one and checkpoint_list.latest(run)[0] is None
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return counts


def read_only(case: Case, folder: Path, run: Path) -> dict[str, Any]:
    """A start, and a resume of a copy of `run`, on a read-only file system."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return {"skipped": "mounting a small file system is not permitted here"}
    try:
        shutil.copytree(run, disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        found = {}
        for name, words in (
            ("train", words_of(case, disk / "new")),
            ("resume", ["resume", str(disk / "run"), "--json"]),
        ):
            process = Process(words)
            code = process.wait()
            out, err = process.output()
            is_told = out.count("\n") == 1 and "error" in out and "Traceback" not in err
            found[name] = {"exit_code": code, "told_in_a_sentence": is_told}
        return found
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def removed(case: Case, folder: Path) -> dict[str, Any]:
    """The run directory is removed while it trains."""
    out = folder / "removed"
    shutil.rmtree(out, ignore_errors=True)
    process = Process(words_of(case, out))
    removed_at = [0.0]

    def remove() -> None:
        while process.poll() is None and not (out / "timing.jsonl").exists():
            time.sleep(0.005)
        time.sleep(0.1)
        removed_at[0] = time.monotonic()
        out.rename(out.with_name("removed_to"))

    remover = threading.Thread(target=remove)
    remover.start()
    code = process.wait()
    remover.join()
    told = process.output()[0]
    shutil.rmtree(out.with_name("removed_to"), ignore_errors=True)
    return {
        "exit_code": code,
        "told_after_seconds": round(time.monotonic() - removed_at[0], 2),
        "sentence": told.count("\n") == 1 and "was removed or replaced" in told,
        "folder_made_again": out.exists(),
    }
