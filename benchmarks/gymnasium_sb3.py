"""Gymnasium beside Stable-Baselines3 at equal settings: what is learnt, and how fast.

    python benchmarks/gymnasium_sb3.py --peer PYTHON [--task CartPole-v1] [--seeds 5]

PYTHON is an interpreter with stable-baselines3 and gymnasium[mujoco]; this one has ppo_jax and its
extra `gymnasium`. Each seed is trained by either side in turn, in a process of its own, so that a
machine that slows down slows both. Both are given the same networks, batches, optimiser, advantages
and normalisers, and the same number of environments. SB3 steps them in its own process
(`DummyVecEnv`, its default), with one thread for torch. Returns are means of deterministic episodes
after training; beside them stand those of the last training episodes, whose actions are sampled.
Seconds are those of training alone; compilation and evaluation are apart.
`environment_seconds` is the time of as many bare steps with random actions. The sides
differ by design: SB3 moves the normaliser of observations at every step, where ours stands still
within an iteration and sees raw observations in the first one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks" / "speed"))

EPISODES = 20
LAST = 8  # training episodes at the end of training
COMMON = {
    "num_envs": 8,
    "rollout_length": 128,
    "num_minibatches": 4,
    "num_epochs": 10,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_epsilon": 0.2,
    "entropy_coef": 0.0,
    "value_coef": 0.5,
    "max_grad_norm": 0.5,
    "normalize": False,
}
# range: of returns from random play to the best, for the margin of equality: PPO at 1M steps in the
# PPO paper's figure 3 for MuJoCo's tasks.
TASKS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {**COMMON, "total": 20_480, "range": (22.53, 500.0)},
    "HalfCheetah-v5": {
        **COMMON,
        "total": 51_200,
        "rollout_length": 256,
        "num_minibatches": 32,
        "normalize": True,
        "range": (-280.0, 1_670.0),
    },
    "Hopper-v5": {
        **COMMON,
        "total": 51_200,
        "rollout_length": 256,
        "num_minibatches": 32,
        "normalize": True,
        "range": (18.0, 2_320.0),
    },
}


def ours(task: str, seed: int) -> dict[str, Any]:
    """Train and evaluate with ppo_jax."""
    import ppo_jax

    case = TASKS[task]
    config = ppo_jax.Config(
        env=f"gymnasium/{task}",
        total_env_steps=case["total"],
        **{n: case[n] for n in ("num_envs", "rollout_length", "num_minibatches", "num_epochs")},
        hidden_sizes=(64, 64),
        activation="tanh",
        normalize_observations=case["normalize"],
        normalize_rewards=case["normalize"],
    )
    names = ("learning_rate", "gamma", "gae_lambda", "clip_epsilon", "entropy_coef")
    hyper = ppo_jax.Hyper(
        **{n: case[n] for n in (*names, "max_grad_norm")},
        value_coef=2.0 * case["value_coef"],  # of half the squared error, which SB3 takes whole
        value_clip_epsilon=float("inf"),
        adam_epsilon=1e-5,
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        found = ppo_jax.run(
            config, hyper, seed=seed, eval_episodes=EPISODES, quiet=True, out=out
        ).summary
        rows = [json.loads(line) for line in (out / "metrics.jsonl").open(encoding="utf-8")]
    return {
        "return": found["final_return"]["per_seed"][0],
        "training_return": last_return(rows),
        "seconds": found["train_seconds"],
        "compile_seconds": found["compile_seconds"],
        "whole_seconds": time.perf_counter() - began,
        "environment_seconds": environment_seconds(task, found["env_steps"]),
        "env_steps": found["env_steps"],
    }


def last_return(rows: list[dict[str, Any]]) -> float | None:
    """Mean return of the last training episodes, at least `LAST` of them."""
    count, total = 0, 0.0
    for row in reversed(rows):
        if row["num_episodes"][0]:
            count += row["num_episodes"][0]
            total += row["num_episodes"][0] * row["episode_return"][0]
        if count >= LAST:
            break
    return total / count if count else None


def theirs(task: str, seed: int) -> dict[str, Any]:
    """Train and evaluate with Stable-Baselines3."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize
    from torch import set_num_threads
    from torch.nn import Tanh

    set_num_threads(1)  # threads that wait for each other are slower for networks of this size
    case = TASKS[task]
    envs: Any = make_vec_env(task, n_envs=case["num_envs"], seed=seed)
    if case["normalize"]:
        envs = VecNormalize(envs, gamma=case["gamma"])
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=case["rollout_length"],
        batch_size=case["num_envs"] * case["rollout_length"] // case["num_minibatches"],
        n_epochs=case["num_epochs"],
        learning_rate=case["learning_rate"],
        gamma=case["gamma"],
        gae_lambda=case["gae_lambda"],
        clip_range=case["clip_epsilon"],
        ent_coef=case["entropy_coef"],
        vf_coef=case["value_coef"],
        max_grad_norm=case["max_grad_norm"],
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": Tanh},
        seed=seed,
        device="cpu",
    )
    began = time.perf_counter()
    model.learn(case["total"])
    seconds = time.perf_counter() - began
    if case["normalize"]:
        envs.training, envs.norm_reward = False, False
    score, _ = evaluate_policy(model, envs, n_eval_episodes=EPISODES)
    last = [episode["r"] for episode in list(model.ep_info_buffer or ())[-LAST:]]
    return {
        "return": float(score),
        "training_return": statistics.mean(last) if last else None,
        "seconds": seconds,
        "environment_seconds": environment_seconds(task, model.num_timesteps),
        "env_steps": model.num_timesteps,
    }


def environment_seconds(task: str, env_steps: int, timed: int = 4096) -> float:
    """The time of so many steps of the environment alone, by that of a few with random actions."""
    import gymnasium

    env = gymnasium.make(task)
    env.action_space.seed(0)
    env.reset(seed=0)
    began = time.perf_counter()
    for _ in range(timed):
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return (time.perf_counter() - began) / timed * env_steps


def turn(python: str, side: str, task: str, seed: int) -> dict[str, Any]:
    """One training in a process of its own."""
    words = [python, __file__, "--side", side, "--task", task, "--seed", str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compared(task: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns of either side, their IQM, mean and interval, and the verdict on the difference."""
    from ppo_jax.analysis import stats, verdicts

    low, high = TASKS[task]["range"]
    margin, found = verdicts.margin_of(low, high), {}
    for name in ("return", "training_return"):
        sides = {side: [each[side][name] for each in turns] for side in ("ours", "theirs")}
        living = stats.known([*sides["ours"], *sides["theirs"]])
        if len(turns) < 2 or not living:
            continue
        between = verdicts.between_seeds(*sides.values(), margin, min(low, *living))
        found[name] = {
            **{side: stats.summarise(returns) for side, returns in sides.items()},
            **between._asdict(),
            "verdict": verdicts.described(between),
        }
    return {"compared": found}


def versions(python: str, names: Sequence[str]) -> dict[str, str]:
    code = (
        "import json,sys; from importlib.metadata import version;"
        "print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
    )
    done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", help="interpreter with stable-baselines3")
    parser.add_argument("--task", choices=TASKS, default="CartPole-v1")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--hardware", help="name of the machine")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps({"ours": ours, "theirs": theirs}[given.side](given.task, given.seed)))
        return
    import machine

    record = machine.begin(
        f"{given.task} beside Stable-Baselines3 at equal settings, interleaved",
        f"python benchmarks/gymnasium_sb3.py --task {given.task} --seeds {given.seeds} "
        f"--first-seed {given.first_seed}",
        given.hardware,
    )
    hardware = record["machine"]["hardware"]
    out = given.out or machine.default_out(hardware, f"gymnasium-{given.task.lower()}")
    record["setting"], record["first_seed"] = TASKS[given.task], given.first_seed
    record["versions"] = {
        "ppo_jax": versions(sys.executable, ("jax", "gymnasium", "numpy")),
        "stable-baselines3": versions(
            given.peer, ("stable-baselines3", "torch", "gymnasium", "numpy")
        ),
    }
    record["turns"] = turns = []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        pair = {
            "ours": turn(sys.executable, "ours", given.task, seed),
            "theirs": turn(given.peer, "theirs", given.task, seed),
        }
        pair["ratio"] = round(pair["theirs"]["seconds"] / pair["ours"]["seconds"], 3)
        turns.append(pair)
        record["median_ratio"] = statistics.median(each["ratio"] for each in turns)
        record |= compared(given.task, turns)
        machine.store(record, out)
        print(json.dumps(pair), flush=True)


if __name__ == "__main__":
    main()
