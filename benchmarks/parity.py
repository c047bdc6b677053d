"""Learning beside other trainers at equal settings: same task, budget, network, start and loss.

    python benchmarks/parity.py [TASK ...] [--peer rejax] [--python PATH] [--seeds 20] [--quick]
        [--add] [--first 0] [--date DATE] [--source PATH] [--out benchmarks/results]

`--python` is the interpreter of an environment that has the peer: parity_peers/requirements.txt
for Rejax and PureJaxRL, speed/requirements_sb3.txt for Stable-Baselines3. PureJaxRL is no package,
so `--source` names a clone of its repository. Beside Stable-Baselines3 we train on Gymnasium's own
environments, and need gymnasium here as well. Each task leaves one entry of
parity_PEER_DATE.json: the return of every seed of both, IQM, mean, share of failed seeds,
difference with its interval, and the verdict. `--add` trains the seeds that follow the stored ones
and judges all of them together. `--first` trains other seeds, for a verdict that no earlier look
at a result has chosen; `--date` names the file to add tasks to, if it is not of today.

We take the peer's own choices, since they differ from peer to peer (`PEERS`): start of the weights,
Adam's epsilon, clip of values and gradients, end of an episode at a time limit. A seed has failed
if its return is nearer to random play than a tenth of the range.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.analysis import ranges, stats, verdicts
from ppo_jax.config.config import Config, Hyper
from ppo_jax.storage.files import write_json
from ppo_jax.storage.manifest import hardware

SUMMARY = "Train tasks here and by another trainer at equal settings, and compare the returns."
FOLDER = Path(__file__).parent
EPISODES = 128
FAILED = 0.1  # share of the range from random to best below which a seed has failed


@dataclasses.dataclass(frozen=True)
class Task:
    """Settings that have the same meaning for every trainer."""

    env: str
    total_env_steps: int
    num_envs: int = 4
    rollout_length: int = 128
    num_epochs: int = 4
    num_minibatches: int = 4
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_epsilon: float = 0.2
    entropy_coef: float = 0.01
    value_coef: float = 0.5
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    episode_length: int = 0  # the time limit, if it is not the environment's own


MINATAR = {"num_envs": 64, "num_minibatches": 8, "learning_rate": 5e-3, "activation": "relu"}
# A tenth of the budgets of Brax' notebook (pendulums) and rejax (reacher); Brax' own test (fast).
BRAX = {"num_envs": 32, "rollout_length": 64, "num_epochs": 8, "num_minibatches": 16, "gamma": 0.95}
CRAFTAX = "craftax/Craftax-Classic-Symbolic-v1"
TASKS = {
    task.env: task
    for task in (
        Task("CartPole-v1", 98_304),
        Task("Acrobot-v1", 98_304),
        Task("MountainCarContinuous-v0", 98_304, num_envs=16, entropy_coef=0.0),
        Task("Pendulum-v1", 196_608, num_envs=8, learning_rate=1e-3, gamma=0.9, entropy_coef=0.0),
        Task("Catch-bsuite", 98_304, num_envs=8),
        Task("Breakout-MinAtar", 999_424, **MINATAR),
        Task("SpaceInvaders-MinAtar", 999_424, **MINATAR),
        Task("brax/inverted_pendulum", 200_704, episode_length=1000, **BRAX),
        Task("brax/inverted_double_pendulum", 200_704, episode_length=1000, **BRAX),
        Task("brax/reacher", 104_448, episode_length=50, **BRAX),
        Task("brax/fast", 32_768, episode_length=128, **BRAX),
        Task(CRAFTAX, 999_424, 64, 64, 4, 8, 5e-4, gae_lambda=0.8, hidden_sizes=(64, 64, 64)),
    )
}
BRAX_TASKS = tuple(name for name in TASKS if name.startswith("brax/"))
SUITES = (*BRAX_TASKS, CRAFTAX)
CLASSIC = ("CartPole-v1", "Acrobot-v1", "MountainCarContinuous-v0", "Pendulum-v1")
DISCRETE = tuple(name for name in TASKS if name not in (*CLASSIC[2:], *SUITES))


@dataclasses.dataclass(frozen=True)
class Peer:
    """A trainer's own choices, in our settings."""

    tasks: tuple[str, ...]
    policy_mode: str  # how its policy is evaluated
    config: dict[str, Any]
    hyper: dict[str, Any]
    differs: str  # what stays unlike
    suite: str = ""  # what our names of its environments begin with


PEERS = {
    "rejax": Peer(
        tuple(name for name in TASKS if name not in SUITES),
        "sampled",
        {"orthogonal_init": False, "time_limits": "termination"},
        {"value_clip_epsilon": 0.2, "max_grad_norm": np.inf, "adam_epsilon": 1e-8},
        "an environment is reset at every step; two optimisers, which is the same without a bound "
        "on the gradient",
    ),
    "purejaxrl": Peer(
        DISCRETE,
        "sampled",
        {"time_limits": "termination"},
        {"value_clip_epsilon": 0.2, "max_grad_norm": 0.5},
        "its ppo.py, which has discrete actions and 64-64 only; an environment is reset at every "
        "step",
    ),
    "sb3": Peer(
        CLASSIC,
        "deterministic",
        {},
        {"max_grad_norm": 0.5},
        "its value loss has no factor 1/2, so its vf_coef is half ours; advantages are divided by "
        "the deviation of the sample (n - 1), ours by that of the population",
        "gymnasium/",
    ),
    "brax": Peer(
        BRAX_TASKS,
        "deterministic",
        {"orthogonal_init": False, "normalize_observations": True, "policy": "tanh-gaussian"},
        {"max_grad_norm": np.inf, "adam_epsilon": 1e-8},
        "a reset returns to the environment's first state; its standard deviation depends on the "
        "state; advantages and targets are computed again for each minibatch, of whole windows",
    ),
    "craftax": Peer(
        (CRAFTAX,),
        "sampled",
        {"time_limits": "termination"},
        {"value_clip_epsilon": 0.2, "max_grad_norm": 1.0},
        "start states are drawn for a sixteenth of the environments at a time, and shared",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=SUMMARY)
    parser.add_argument("task", nargs="*", choices=[*TASKS, []])
    parser.add_argument("--peer", choices=PEERS, default="rejax")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peer")
    parser.add_argument("--source", type=Path, help="clone of PureJaxRL's repository")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--add", action="store_true", help="as many seeds more than are stored")
    parser.add_argument("--first", type=int, default=0, help="first seed; not with --add")
    parser.add_argument("--date", default=today(), help="of the file of results")
    parser.add_argument("--quick", action="store_true", help="a tiny budget, to try the script")
    parser.add_argument("--out", type=Path, default=FOLDER / "results")
    given = parser.parse_args()
    peer, path = PEERS[given.peer], given.out / f"parity_{given.peer}_{given.date}.json"
    for name in given.task or peer.tasks:
        if name not in peer.tasks:
            parser.error(f"{given.peer} cannot train {name}")
        task = TASKS[name]
        if given.quick:
            batch = task.num_envs * task.rollout_length
            task = dataclasses.replace(task, total_env_steps=2 * batch)
        record = json.loads(path.read_text("utf-8")) if path.exists() else header(given)
        before = record["tasks"].get(name) if given.add else None
        found = record["tasks"][name] = entry(given, task, before)
        write_json(path, record)
        print(name, found["verdict"], found["difference"], found["ci95"], flush=True)


def header(given: argparse.Namespace) -> dict[str, Any]:
    peer = PEERS[given.peer]
    return {
        "peer": given.peer,
        "date": today(),
        "differs": peer.differs,
        "policy_mode": peer.policy_mode,
        "machine": hardware(),
        "tasks": {},
    }


def entry(
    given: argparse.Namespace, task: Task, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train both and compare: one task's result, with the seeds of the entry before."""
    setting, first, stored = dataclasses.asdict(task), given.first, []
    if before is not None:
        least = dataclasses.asdict(Task(task.env, task.total_env_steps))
        if {**least, **before["setting"]} != json.loads(json.dumps(setting)):
            raise SystemExit(f"{task.env} is stored with another setting: leave --add out.")
        stored = before["seeds"]
        first = stored[-1] + 1
    seeds = list(range(first, first + given.seeds))
    sides = {"theirs": by_peer(given, task, seeds), "ours": ours(PEERS[given.peer], task, seeds)}
    known, samples = ranges.ranges()[task.env], {}
    for name, side in sides.items():
        samples[name] = sample_of(side.pop("returns"), known)
        if before is not None:
            samples[name] = before[name]["per_seed"] + samples[name]
            side["train_seconds"] += before[name]["train_seconds"]
    return {
        "setting": setting,
        "seeds": stored + seeds,
        **{name: {**summary(samples[name], known), **sides[name]} for name in ("ours", "theirs")},
        **judged(samples["ours"], samples["theirs"], known),
    }


def judged(mine: list[float], theirs: list[float], known: ranges.Range) -> dict[str, Any]:
    """The difference of the returns of all seeds, its interval and the verdict.

    An IQM leaves out up to a quarter of failed seeds. So means are compared if a seed failed.
    """
    margin = verdicts.margin_of(known.random, known.best)
    has_failed = bool((share_of(np.array([*mine, *theirs]), known) < FAILED).any())
    found = verdicts.between([mine], [theirs], margin, np.mean if has_failed else stats.iqm)
    return {
        **found._asdict(),
        "verdict": verdicts.described(found),
        "probability_of_improvement": stats.probability_of_improvement(mine, theirs),
    }


def sample_of(returns: list[float | None], known: ranges.Range) -> list[float]:
    """Returns of all seeds: one that turned non-finite counts as random play."""
    return verdicts.completed(returns, known.random)


def share_of(scores: np.ndarray, known: ranges.Range) -> np.ndarray:
    """Scores as shares of the range from random play to the best known return."""
    return (scores - known.random) / (known.best - known.random)


def summary(returns: list[float | None], known: ranges.Range) -> dict[str, Any]:
    """IQM, mean, interval and share of failed seeds."""
    scores = np.array(sample_of(returns, known))
    share_failed = float(np.mean(share_of(scores, known) < FAILED))
    return {**stats.summarise(scores), "share_failed": share_failed}


def ours(peer: Peer, task: Task, seeds: list[int]) -> dict[str, Any]:
    """Train here; whole episodes after training, by the peer's policy mode."""
    import tempfile

    import ppo_jax

    config, hyper = setting(peer, task)
    with tempfile.TemporaryDirectory() as folder:
        result = ppo_jax.run(
            config,
            hyper,
            seeds=len(seeds),
            seed=seeds[0],
            out=f"{folder}/run",
            policy_mode=peer.policy_mode,
            eval_episodes=EPISODES,
            quiet=True,
        )
        manifest = json.loads((result.folder / "manifest.json").read_text("utf-8"))
    return {
        "returns": result.summary["final_return"]["per_seed"],
        "train_seconds": result.summary["train_seconds"],
        "versions": {"python": manifest["python"], **manifest["versions"]},
    }


def setting(peer: Peer, task: Task) -> tuple[Config, Hyper]:
    """Our setting of a task, with the peer's own choices."""
    fields = {**dataclasses.asdict(task), "env": peer.suite + task.env}
    limit = fields.pop("episode_length")
    numbers = {field.name for field in dataclasses.fields(Hyper)} - {"env"}
    config = {name: value for name, value in fields.items() if name not in numbers}
    hyper = {name: value for name, value in fields.items() if name in numbers}
    env = {"max_steps_in_episode": limit} if limit else {}
    return Config(**config, torso="mlp", **peer.config), Hyper(**hyper, **peer.hyper, env=env)


def by_peer(given: argparse.Namespace, task: Task, seeds: list[int]) -> dict[str, Any]:
    """Train by the peer, in a process of its own interpreter."""
    wanted = {
        "task": dataclasses.asdict(task),
        "seeds": seeds,
        "episodes": EPISODES,
        "source": None if given.source is None else str(given.source.absolute()),
    }
    script = FOLDER / "parity_peers" / f"{given.peer}_peer.py"
    done = subprocess.run(
        [given.python, str(script)],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{given.peer} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


if __name__ == "__main__":
    main()
