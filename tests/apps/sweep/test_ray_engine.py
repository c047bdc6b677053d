"""Packs as tasks of Ray on a cluster of two nodes, of which one dies while it trains."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tiny import CONFIG, HYPER

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from ppo_jax.apps.sweep import driver, pack_files  # noqa: E402
from ppo_jax.config.errors import InputError  # noqa: E402
from ppo_jax.storage import lock  # noqa: E402

pytestmark = pytest.mark.slow

AXES = {"learning_rate": [0.01, 0.1], "env.speed": [0.5, 0.25]}
OPTIONS: dict[str, Any] = {
    **{"seeds": 2, "eval_episodes": 4, "layout": "map", "fresh_seeds": 1, "devices": 1},
    **{"packs": 4, "save_seconds": 1e-9},
}
LONG = replace(CONFIG, total_env_steps=400_000)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    helpers = Path(__file__).resolve().parents[2] / "helpers"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(helpers), os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield made
    finally:
        made.shutdown()


def in_training(folder: Path) -> dict[int, Path]:
    """Packs that have a checkpoint after their start and no result, by the process's parent."""
    found: dict[int, Path] = {}
    for path in folder.glob("packs/*"):
        holder = lock.holder(path)
        if holder and pack_files.saved_since(path, 0.0) and not pack_files.is_finished(path):
            with suppress(OSError):  # it has just ended
                status = Path(f"/proc/{holder['pid']}/stat").read_text()
                found[int(status.rpartition(")")[2].split()[1])] = path
    return found


def test_of_two_nodes_one_dies_and_the_table_is_that_of_one_process(
    cluster: Any, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
    told: list[str] = []
    killed: list[Path] = []

    def kill() -> None:
        """Kill the first node that trains."""
        while not (busy := in_training(tmp_path / "ray")):
            time.sleep(0.02)
        parent, pack = next(iter(busy.items()))
        cluster.remove_node(raylets[parent], allow_graceful=False)
        killed.append(pack)

    killer = Thread(target=kill, daemon=True)
    killer.start()
    own = {"engine": "ray", "ray_address": cluster.address, "out": str(tmp_path / "ray")}
    found = driver.sweep(LONG, AXES, HYPER, tell=told.append, **{**OPTIONS, **own})
    killer.join(timeout=10.0)
    assert len(killed) == 1
    alone = driver.sweep(LONG, AXES, HYPER, out=str(tmp_path / "alone"), **OPTIONS)
    for name in ("table.csv", "scores.csv", f"packs/{killed[0].name}/metrics.jsonl"):
        assert (tmp_path / "ray" / name).read_text() == (tmp_path / "alone" / name).read_text()
    assert found.settings == alone.settings
    assert found.summary["finished"] == "4 of 4 packs"
    assert not [line for line in told if "begins anew" in line]
    assert any("4 settings x 2 seeds = 8 members" in line for line in told)


def test_an_address_without_a_cluster_is_refused(tmp_path: Path) -> None:
    own = {"engine": "ray", "ray_address": "127.0.0.1:1", "out": str(tmp_path / "none")}
    with pytest.raises(InputError, match=r"ray_address='127.0.0.1:1' cannot be used"):
        driver.sweep(CONFIG, AXES, HYPER, **{**OPTIONS, **own})
    assert not (tmp_path / "none").exists()
