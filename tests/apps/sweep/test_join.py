"""Packs that several processes share: none is lost, none is trained twice, the table is the same.

The workers are forks of one process, which pay for imports once. Each has its own compiled programs
and its own devices.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")

pytestmark = pytest.mark.slow

# Fork workers on one grid of 4 packs, kill one in its pack, let another one join.
CREW = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
import flax.linen, jax, optax, optuna
from jax._src import xla_bridge
assert not xla_bridge._backends  # a fork of a started backend would hang

def note(**facts):
    with (folder / "notes.jsonl").open("a") as file:
        file.write(json.dumps(facts) + "\\n")

def start(name, out, hangs=False, **changes):
    if child := os.fork():
        return child
    from tiny import CONFIG, HYPER
    from ppo_jax.apps.sweep import driver, pack
    from ppo_jax.apps.sweep.axes import from_mapping
    from ppo_jax.apps.sweep.options import SweepOptions
    from ppo_jax.apps.sweep.results import pictures
    from ppo_jax.runtime import chunk_loop
    chunk_loop.CHUNK_SECONDS = 1e-9  # one iteration a chunk
    pictures.draw_all = lambda *given: []  # tested elsewhere
    finish, restore = pack.finish_pack, pack.restore_state
    def finished(job, *rest):
        if job.folder.name != "winner":
            note(finished=job.folder.name, by=name)
        finish(job, *rest)
    def restored(*given):
        found = restore(*given)
        if found is not None:
            note(restored=given[1].folder.name, iteration=found.iteration, by=name)
        return found
    pack.finish_pack, pack.restore_state = finished, restored
    def show(share, words):
        if hangs and share > 0.4:
            (folder / "hanging").touch()
            time.sleep(600)
    axes = {"learning_rate": [0.01, 0.1], "env.speed": [0.5, 0.25]}
    options = dict(seeds=2, eval_episodes=4, layout="map", log_every=64, fresh_seeds=1, devices=1)
    options |= dict(packs=4, save_seconds=1e-9, out=str(folder / out)) | changes
    sweep = driver.Sweep(CONFIG, HYPER, from_mapping(axes), [{}], SweepOptions(**options))
    code = 1
    try:
        table = driver.carry_out(sweep, pack.Listener(lambda text: None, show), None)
        note(rows=len(table), best=table.summary["best"]["values"], by=name)
        code = 0
    finally:
        if code:
            import traceback
            traceback.print_exc()
        os._exit(code)

def wait(*children):
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(codes), codes

wait(start("alone", "alone"))
shared = dict(join=True, grace_seconds=2.0)
victim = start("victim", "shared", hangs=True, **shared)
while not (folder / "hanging").exists():
    time.sleep(0.05)
others = [start(name, "shared", **shared) for name in ("b", "c")]
os.kill(victim, signal.SIGKILL)
os.waitpid(victim, 0)
wait(*others, start("d", "shared", **shared))
"""


def crew(folder: Path) -> list[dict[str, Any]]:
    """Notes of the workers."""
    here = Path(__file__).resolve().parents[2] / "helpers"
    paths = os.pathsep.join([str(here), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", CREW, str(folder)],
        env={**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in (folder / "notes.jsonl").read_text().splitlines()]


def test_of_three_workers_one_is_killed_a_fourth_joins_and_the_table_is_that_of_one(
    tmp_path: Path,
) -> None:
    notes = crew(tmp_path)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert len(list(alone.glob("packs/*"))) == 4
    for name in ("table.csv", "scores.csv", "best.toml", "packs/000-002/metrics.jsonl"):
        assert (shared / name).read_text() == (alone / name).read_text()
    packs = Counter(
        note["finished"] for note in notes if note.get("by") != "alone" if "finished" in note
    )
    assert packs == dict.fromkeys(("000-000", "000-001", "000-002", "000-003"), 1)
    taken = [note for note in notes if "restored" in note and note["by"] != "victim"]
    assert [note["restored"] for note in taken] == ["000-000"]
    assert taken[0]["iteration"] >= 3  # of 7: the victim's checkpoint, not its start
    assert {note["by"] for note in notes if "rows" in note} == {"alone", "b", "c", "d"}
    assert len({note["rows"] for note in notes if "rows" in note}) == 1
