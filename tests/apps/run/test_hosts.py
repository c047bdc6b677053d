"""Several hosts: real processes on this machine, joined by jax over the loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joined import reproduced, spread, sweep_of
from tiny import BATCH

from ppo_jax.apps.run import runner
from ppo_jax.apps.run.evaluate import evaluate
from ppo_jax.apps.sweep.driver import UNHEARD, carry_out
from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed.hosts import HEARTBEAT
from ppo_jax.storage import checkpoint, checkpoint_list

pytestmark = pytest.mark.slow

# Both devices of the tests' own process are one host's; a host of these runs has one.
FLAGS = re.sub(r"device_count=\d+", "device_count=1", os.environ["XLA_FLAGS"])
HELPERS = Path(__file__).resolve().parents[2] / "helpers"
ROOT = HELPERS.parent.parent
SETTINGS = {
    "num_envs": 16,
    "rollout_length": 8,
    "num_epochs": 2,
    "num_minibatches": 2,
    "hidden_sizes": (8,),
    "normalize_observations": True,
}
WORDS = ["--num-envs=16", "--rollout-length=8", "--num-epochs=2", "--num-minibatches=2"]
WORDS += ["--hidden-sizes=8", "--normalize-observations", "--eval-episodes=2"]
SUITE = """
title = "Walks"
about = "For tests."
[defaults]
seeds = 3
protocol = "training"
episodes = 2
total_env_steps = 96
quick_env_steps = 96
[defaults.config]
num_envs = 4
rollout_length = 8
num_epochs = 2
num_minibatches = 2
hidden_sizes = [8]
[[task]]
name = "tiny:Walk"
random = -8.0
best = -1.0
[[variant]]
name = "fast"
hyper = { learning_rate = 0.02 }
[[variant]]
name = "never"
hyper = { learning_rate = 0.0 }
"""
GONE = "Stopped by the end of another host"


class Hosts:
    """The processes of one command on several hosts."""

    def __init__(self, words: list[str], own: dict[int, list[str]], count: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "ppo_jax", *words]
        command += [f"--coordinator=127.0.0.1:{port}", f"--num-hosts={count}"]
        path = os.pathsep.join([str(ROOT), str(HELPERS)])
        environment = {**os.environ, "XLA_FLAGS": FLAGS, "PYTHONPATH": path}
        self.processes = [
            subprocess.Popen(
                [*command, f"--host-index={i}", *own.get(i, [])],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for i in range(count)
        ]

    def end(self, within: float = 600) -> tuple[list[int], list[str]]:
        """Exit codes and outputs of all hosts, each of which ends within so many seconds."""
        outputs = [process.communicate(timeout=within)[0] for process in self.processes]
        return [process.returncode for process in self.processes], outputs


@contextmanager
def hosts(
    words: list[str], count: int = 2, own: dict[int, list[str]] | None = None
) -> Iterator[Hosts]:
    started = Hosts([*words, "--platform=cpu"], own or {}, count)
    try:
        yield started
    finally:
        for process in started.processes:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that")


def steps_of(run: Path) -> list[int]:
    """Environment steps of the checkpoints."""
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step_*"))


def state_of(run: Path) -> dict[str, np.ndarray]:
    newest, _ = checkpoint_list.latest(run)
    assert newest is not None
    return checkpoint.load_raw(newest)[0]


def one_process(folder: Path, seeds: int, total: int, **options: Any) -> dict[str, np.ndarray]:
    """The same run in this process, on as many devices."""
    config = Config(env="tiny:Walk", total_env_steps=total, **SETTINGS)
    options = {"seeds": seeds, "quiet": True, "eval_episodes": 2, **options}
    runner.run(config, Hyper(learning_rate=1e-4), out=str(folder), **options)
    return state_of(folder)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int], list[str]]:
    """A run of four seeds on two hosts, of which the second was asked to stop by a SIGTERM."""
    run = tmp_path_factory.mktemp("hosts") / "run"
    words = ["train", "tiny:Walk", *WORDS, "--seeds=4", "--learning-rate=1e-4", f"--out={run}"]
    timing = run / "timing.jsonl"
    with hosts([*words, "--total-env-steps=1e9", "--resume=auto"]) as both:
        wait_for(lambda: timing.exists() and timing.stat().st_size > 0)
        both.processes[1].send_signal(signal.SIGTERM)
        return run, *both.end()


def test_a_signal_to_one_host_stops_all_at_one_chunk_with_one_checkpoint(stopped: Any) -> None:
    run, codes, outputs = stopped
    assert codes == [75, 75]
    assert len(steps_of(run)) == 2  # the start, and the stop
    assert steps_of(run)[1] > 0
    assert "4 seeds" in outputs[0]
    assert "devices: 2 cpu" in outputs[0]
    assert "next" in outputs[0]
    assert "seeds" not in outputs[1]  # the first host prints


def test_seeds_on_two_hosts_equal_those_of_one_process_bit_for_bit(
    stopped: Any, tmp_path: Path
) -> None:
    run = stopped[0]
    found, expected = state_of(run), one_process(tmp_path / "one", 4, steps_of(run)[1])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def kill_one(run: Path, count: int, victim: int) -> list[str]:
    """Resume on so many hosts, kill one of them amid the training, and return the outputs."""
    before, timing = steps_of(run), run / "timing.jsonl"
    size = timing.stat().st_size
    with hosts(["resume", str(run)], count=count) as some:
        wait_for(lambda: timing.stat().st_size > size)
        some.processes[victim].kill()
        codes, outputs = some.end(HEARTBEAT)
    assert codes == [-signal.SIGKILL if host == victim else 75 for host in range(count)]
    for host in set(range(count)) - {victim}:
        assert GONE in outputs[host]
    assert steps_of(run) == before
    return outputs


def test_a_killed_host_ends_the_others_and_two_hosts_four_or_one_go_on(stopped: Any) -> None:
    run = stopped[0]
    before = steps_of(run)[-1]
    kill_one(run, 2, 0)  # the host that coordinates and writes
    assert "devices is 4 and was 2" in kill_one(run, 4, 2)[0]
    result = runner.resume(run, max_seconds=0.01, quiet=True)
    assert result.exit_code == 75
    assert steps_of(run)[-1] > before
    assert result.summary["env_steps"] % (4 * BATCH) == 0
    evaluated = evaluate(run, episodes=2)
    assert len(evaluated["final_return"]["per_seed"]) == 4


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The folder of two hosts that did one thing after the other, and what each of them found."""
    folder = tmp_path_factory.mktemp("joined")
    (folder / "walks.toml").write_text(SUITE, "utf-8")
    path = os.pathsep.join([str(ROOT), str(HELPERS)])
    done = subprocess.run(
        [sys.executable, "-m", "joined", str(folder)],
        env={**os.environ, "XLA_FLAGS": FLAGS, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [json.loads((folder / f"host-{i}.json").read_text()) for i in range(2)]


def test_environments_of_a_seed_on_two_hosts_are_those_of_one_process(
    joined: Any, tmp_path: Path
) -> None:
    spread(tmp_path / "one", {})
    found, expected = state_of(joined[0] / "spread"), state_of(tmp_path / "one")
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6, err_msg=name)
    assert expected["iteration"].tolist() == [5]


def test_a_callback_sees_the_state_of_all_hosts_and_they_go_on_after_it(joined: Any) -> None:
    folder, found = joined
    assert found[1]["heard"] == [[], 4 * BATCH]  # the first host calls
    seen, env_steps = found[0]["heard"]
    assert (len(seen), env_steps) == (2, 4 * BATCH)
    saved = state_of(folder / "ended")["params/body/policy_head/bias"]
    assert saved.shape == (3, 2)
    np.testing.assert_array_equal(np.float32(seen[1]), saved)
    for each in found:
        assert each["resumed"] == [0, 7 * BATCH]
    assert steps_of(folder / "heard")[-1] == 7 * BATCH


def test_two_hosts_stop_a_sweep_at_one_chunk_and_its_table_is_that_of_one_process(
    joined: Any, tmp_path: Path
) -> None:
    folder, found = joined
    for each in found:
        assert each["stopped"] == [75, 3]
        assert each["swept"] == found[0]["swept"]
        assert each["refused"] == found[0]["refused"]
    assert "is not empty" in found[0]["refused"]
    table = carry_out(sweep_of(tmp_path / "sweep", {}), UNHEARD, None)
    assert found[0]["swept"] == [0, table.summary["best"]]
    for name in ("table.csv", "scores.csv", "best.toml", "packs/000-001/metrics.jsonl"):
        assert (folder / "sweep" / name).read_text() == (tmp_path / "sweep" / name).read_text()
    assert not list((folder / "sweep").rglob("*.lock"))


def test_two_hosts_reproduce_a_suite_as_one_process_does(joined: Any, tmp_path: Path) -> None:
    folder, found = joined
    code = reproduced(tmp_path / "suite", folder / "walks.toml", {})
    for each in found:
        assert each["reproduced"] == code
    files = sorted((tmp_path / "suite").glob("tiny*.json"))
    assert len(files) == 2
    for file in files:
        there = json.loads((folder / "suite" / file.name).read_text())
        assert json.loads(file.read_text())["seeds"] == there["seeds"]


def test_a_host_with_another_setting_is_refused_by_name(tmp_path: Path) -> None:
    words = ["train", "tiny:Walk", *WORDS, "--seeds=2", f"--out={tmp_path / 'run'}"]
    with hosts(words, own={1: ["--gamma=0.5"]}) as both:
        codes, outputs = both.end()
    assert codes == [2, 2]
    for output in outputs:
        assert "Host 1 has gamma=0.5 and host 0 has 0.99: start every host" in output
    assert not (tmp_path / "run").exists()
