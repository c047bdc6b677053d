"""A sweep as one program, by hand in Rejax, and as one process per point: `.../sweep/speed.py`.

32 settings x 4 seeds on CartPole-v1 with equal budgets, batches and networks. Three ways, in turn
(A B C A B C ...), each from the start of its process to its end:

* `ppo_jax`: one population, compiled once (jax's persistent cache is off: compiling counts);
* `rejax`: Rejax's PPO vmapped over settings and seeds by hand, in its own environment, compiled
  once, over all cores of the CPU by shard_map (the best of the layouts of ../speed);
* `process`: `ppo-jax train` for each setting, one after the other on all cores, with a compile
  cache that the first process fills, as a launcher of processes would do.

Only the swept fields differ between members; there is no evaluation. Ratios are of medians of wall
time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WAYS = ("ppo_jax", "rejax", "process")
RATES = [10 ** (-4.0 + 2.0 * i / 7) for i in range(8)]
CLIPS = [0.1, 0.2]
ENTROPIES = [0.0, 0.01]
SETTINGS = [(lr, clip, ent) for lr in RATES for clip in CLIPS for ent in ENTROPIES]
NUM_ENVS, LENGTH, EPOCHS, MINIBATCHES = 8, 128, 4, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=51_200, help="environment steps of a member")
    parser.add_argument("--settings", type=int, default=len(SETTINGS))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rejax-python", default="~/.cache/ppo_jax_bench/rejax-venv/bin/python")
    parser.add_argument("--worker", choices=("ppo_jax", "rejax"), help="used by this file itself")
    arguments = parser.parse_args()
    if arguments.worker:
        work = {"ppo_jax": ours, "rejax": rejax}[arguments.worker]
        print(json.dumps(work(arguments)))
        return
    import record  # not in a worker: Rejax's environment has other packages

    opening = record.opening("wall seconds of a whole sweep, from start to end, with compilation")
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in arguments.ways}
    for _ in range(arguments.repeats):
        for way in arguments.ways:
            runs[way].append(timed(way, arguments))
            print(way, runs[way][-1], flush=True)
    medians = {way: statistics.median(run["wall_seconds"] for run in runs[way]) for way in runs}
    steps = {way: runs[way][-1]["env_steps"] for way in runs}
    result = {
        **opening,
        "settings": arguments.settings,
        "seeds": arguments.seeds,
        "env_steps_per_member": arguments.steps,
        "runs": runs,
        "median_wall_seconds": medians,
        "env_steps_per_second_overall": {way: steps[way] / medians[way] for way in runs},
        "times_faster_than": {
            way: medians[way] / medians["ppo_jax"] for way in runs if "ppo_jax" in runs
        },
    }
    record.write(result, arguments.out or record.default_out("speed"))
    print(json.dumps(result["times_faster_than"]))


def timed(way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One whole sweep; wall seconds from start to end of its process or processes."""
    own = [f"--steps={arguments.steps}", f"--settings={arguments.settings}"]
    own += [f"--seeds={arguments.seeds}"]
    environment = {**os.environ, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
    python = sys.executable
    if way == "rejax":
        python = str(Path(arguments.rejax_python).expanduser())
        cores = len(os.sched_getaffinity(0))
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={cores}"
    begin = time.perf_counter()
    if way == "process":
        answer = process_per_point(arguments, environment)
    else:
        with tempfile.TemporaryDirectory() as cache:
            environment["JAX_COMPILATION_CACHE_DIR"] = cache
            command = [python, __file__, "--worker", way, *own]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        answer = json.loads(done.stdout.splitlines()[-1])
    return {"wall_seconds": time.perf_counter() - begin, **answer}


def process_per_point(arguments: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    total, training = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        environment = {**environment, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        for i, (rate, clip, entropy) in enumerate(SETTINGS[: arguments.settings]):
            command = [
                *(sys.executable, "-m", "ppo_jax", "train", "CartPole-v1", "--no-preset", "--json"),
                *("--quiet", "--out", f"{folder}/{i}", "--seeds", str(arguments.seeds)),
                *("--total-env-steps", str(arguments.steps), "--num-envs", str(NUM_ENVS)),
                *("--rollout-length", str(LENGTH), "--num-epochs", str(EPOCHS)),
                *("--num-minibatches", str(MINIBATCHES), "--learning-rate", str(rate)),
                *("--clip-epsilon", str(clip), "--entropy-coef", str(entropy)),
                *("--eval-episodes", "1"),
            ]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, cwd=ROOT
            )
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr[-3000:])
            summary = json.loads(done.stdout)
            total += summary["env_steps"] * arguments.seeds
            training += summary["train_seconds"]
    return {"env_steps": total, "train_seconds": training}


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """The population alone: the program and training of `ppo-jax sweep`, without its reports."""
    sys.path.insert(0, str(ROOT))
    import jax

    from ppo_jax.apps.sweep import engine
    from ppo_jax.apps.sweep.groups import Member
    from ppo_jax.apps.sweep.options import SweepOptions
    from ppo_jax.config.config import Config, Hyper
    from ppo_jax.runtime import devices

    options = SweepOptions(seeds=arguments.seeds, eval_episodes=1)
    devices.prepare_jax(options.run_options())
    config = Config(
        env="CartPole-v1", total_env_steps=arguments.steps, num_envs=NUM_ENVS,
        rollout_length=LENGTH, num_epochs=EPOCHS, num_minibatches=MINIBATCHES,
    )  # fmt: skip
    settings = {
        i: {"learning_rate": rate, "clip_epsilon": clip, "entropy_coef": entropy}
        for i, (rate, clip, entropy) in enumerate(SETTINGS[: arguments.settings])
    }
    members = [Member(i, seed) for i in settings for seed in range(arguments.seeds)]
    built = engine.build(config, Hyper(), len(members), options, "the sweep")
    begin = time.perf_counter()  # making the first states compiles a program, too
    hypers = engine.hypers_of(config, Hyper(), settings, members)
    hyper = engine.stacked(config, hypers, built.layout)
    state = engine.start(built, hyper, [member.seed for member in members])
    state = jax.block_until_ready(state)
    start_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    left = config.num_iterations
    while left:
        length = min(left, 256)
        state, _ = engine.advance(built, hyper, state, [length] * len(members))
        left -= length
    return {
        "env_steps": config.trained_env_steps * len(members),
        "compile_seconds": built.compile_seconds,
        "start_seconds": start_seconds,
        "train_seconds": time.perf_counter() - begin,
        "layout": built.layout.kind,
        "packs": -(-len(members) // built.width),
    }


def rejax(arguments: argparse.Namespace) -> dict[str, Any]:
    """Rejax's own numbers on the vmap axis: its algorithm is a pytree of them."""
    sys.path.insert(0, str(HERE.parent / "speed"))
    import jax
    import numpy
    from cases import Case
    from jax.sharding import Mesh, PartitionSpec
    from worker_rejax import create

    iterations = -(-arguments.steps // (NUM_ENVS * LENGTH))
    case = Case("sweep", "", env_steps=iterations * NUM_ENVS * LENGTH, num_envs=NUM_ENVS)
    algorithm = create(case)
    points = [(s, seed) for s in SETTINGS[: arguments.settings] for seed in range(arguments.seeds)]
    numbers = numpy.array([s for s, _ in points], numpy.float32)
    keys = jax.numpy.stack([jax.random.PRNGKey(seed) for _, seed in points])

    def train(number: Any, key: Any) -> Any:
        one = algorithm.replace(learning_rate=number[0], clip_eps=number[1], ent_coef=number[2])
        return one.train(key)[0]  # the whole state: XLA drops unused results

    mesh = Mesh(numpy.array(jax.devices()), ("member",))
    members = PartitionSpec("member")
    program = jax.jit(
        jax.shard_map(
            jax.vmap(train), mesh=mesh, in_specs=members, out_specs=members, check_vma=False
        )
    )
    begin = time.perf_counter()
    compiled = program.lower(numbers, keys).compile()
    compile_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    steps = int(jax.block_until_ready(compiled(numbers, keys)).global_step.sum())
    return {
        "env_steps": steps,
        "compile_seconds": compile_seconds,
        "train_seconds": time.perf_counter() - begin,
        "layout": "vmap",
    }


if __name__ == "__main__":
    main()
