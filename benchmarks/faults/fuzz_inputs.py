"""Valid files of every kind, which `fuzz.py` then damages."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from ppo_jax.apps.export import numpy_policy
from ppo_jax.apps.reproduce import store
from ppo_jax.apps.sweep import axes
from ppo_jax.apps.sweep import folder as sweeps
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.options import RunOptions
from ppo_jax.storage import checkpoint, jsonl, run_folder
from ppo_jax.storage.files import write_json
from ppo_jax.storage.sealed import write_sealed

ARRAYS = {"x": np.zeros(2, np.float32)}  # in the checkpoint, which is that of no run
SUITE = (
    'title = "Made up"\nabout = "A text."\n[defaults]\nseeds = 2\nepisodes = 4\n'
    '[[task]]\nname = "CartPole-v1"\nenv = "CartPole-v1"\nrandom = 9.0\nbest = 500.0\n'
    'total_env_steps = 2048\n[[variant]]\nname = "clip"\nobjective = "clip"\n'
    '[variant.config]\nnum_envs = 8\n[variant.hyper]\nlearning_rate = "1e-3:0"\n'
    '[[variant]]\nname = "pg"\nobjective = "pg"\n'
    '[[claim]]\nhigher = "clip"\nlower = "pg"\nsource = "nobody"\n'
)
PRESET = (
    'env = "CartPole-v1"\n[clip]\nsource = "here"\n[clip.config]\nnum_envs = 8\n'
    'hidden_sizes = [8, 8]\nnormalize_rewards = true\npolicy = "auto"\n[clip.hyper]\n'
    'gamma = 0.9\nlearning_rate = "1e-3:0"\n[clip.hyper.env]\nlength = 0.7\n'
    "[clip.result]\nscore = 1.0\nenv_steps = 100\n"
)


def make_inputs(root: Path) -> None:
    """One valid file of each kind, in the folder `root`."""
    make_run(root / "run")
    make_run(root / "other")
    (root / "preset.toml").write_text(PRESET)
    (root / "settings.toml").write_text('num_envs = 8\n[hyper]\ngamma = "0.9:1"\n')
    (root / "settings.yaml").write_text("num_envs: 8\nhyper:\n  gamma: '0.9:1'\nseeds: 2\n")
    settings = {"config": {"num_envs": 8, "hidden_sizes": [8]}, "options": {"seeds": 2}}
    write_json(root / "settings.json", settings)
    (root / "suite.toml").write_text(SUITE)
    make_results(root / "results", root / "suite.toml")
    make_sweep(root / "swept")
    make_policy(root / "policy")


def make_run(folder: Path) -> None:
    options = RunOptions(seeds=2, out=str(folder))
    config = Config(num_envs=8, rollout_length=16, total_env_steps=1280)
    hyper = Hyper(env={"length": 0.7})
    folder.mkdir(parents=True)
    run_folder.write_config(folder, config, hyper, options, "an-id")
    manifest = {"versions": {"jax": "1"}, "devices": ["cpu:cpu"], "command": ["ppo-jax"]}
    write_json(folder / "manifest.json", {"started": "now", "cores": 2, **manifest})
    names = ("episode_return", "kl_old_new", "entropy")
    logs = {}
    for name, keys in (("metrics", names), ("timing", ())):
        log = jsonl.JsonlLog(folder / f"{name}.jsonl")
        for steps in range(128, 1281, 128):
            row = {key: [float(steps), 1.0 / steps] for key in keys}
            log.write({"env_steps": steps, "env_steps_per_second": 5.0, **row})
        logs[f"{name}.jsonl"] = log.position()._asdict()
        log.close()
    final = {"per_seed": [1.0, 3.0], "iqm": 2.0, "mean": 2.0, "ci95": [1.0, 3.0]}
    summary = {"env": "CartPole-v1", "env_steps": 1280, "num_seeds": 2, "num_failed": 0}
    more = {"policy_mode": "deterministic", "episodes_per_seed": 4, "train_seconds": 1.5}
    speed = {"compile_seconds": 2.0, "env_steps_per_second": 100, "stopped_by": None}
    write_json(folder / "summary.json", {**summary, **more, **speed, "final_return": final})
    write_json(folder / "run.lock", {"pid": 1, "host": "elsewhere", "since": "2026"})
    os.utime(folder / "run.lock", (0, 0))  # void since long ago
    described = json.loads((folder / "config.json").read_text())
    metadata = {
        **{"env_steps": 1280, "iteration": 10, "num_seeds": 2, "train_seconds": 1.5},
        **{"pending": {"iterations": 1, "values": {"entropy": [(0.5).hex()] * 2}}},
        **{"ended_by": None, "stop_at_return": None, "score": 1.0, "best_score": 2.0},
        **{"run_id": "an-id", "config": described["config"], "hyper": described["hyper"]},
        **{"fingerprint": {"jax": "1"}},
        "logs": logs,
    }
    checkpoint.save(checkpoint.checkpoint_folder(folder, 1280), ARRAYS, metadata)


def make_results(folder: Path, suite: Path) -> None:
    from ppo_jax.apps.reproduce import specs

    folder.mkdir()
    for cell in specs.load(str(suite)).cells:
        seeds = [{"seed": k, "score": 100.0 + k, "curve": [1.0, None]} for k in range(2)]
        batch = {"fingerprint": {"platform": "cpu", "processor": "x", "cores": 2}, "date": "now"}
        words = {"suite": cell.suite, "task": cell.task, "variant": cell.variant, "note": ""}
        content = {
            **{"format": store.FORMAT, "is_quick": False, "protocol": "words", **words},
            **{"seeds": seeds, "curve_env_steps": [1024, 2048], "random": 9.0, "best": 500.0},
            **{"setting": store.setting_of(cell), "batches": [{**batch, "manifest": {}}]},
        }
        store.write_result(folder, cell, content)


def make_sweep(folder: Path) -> None:
    (folder / "packs" / "000-000").mkdir(parents=True)
    swept = axes.parse(["gamma=0.9,0.99", "objective=clip,pg"])
    options = SweepOptions(out=str(folder), sampler="random", settings=2)
    sweep = sweeps.Sweep(Config(), Hyper(), swept, [{}], options)
    write_sealed(folder / "sweep.json", sweeps.describe(sweep))
    write_json(folder / "plan.json", [{"width": 8, "layout": "vmap"}])
    pack_folder = folder / "packs" / "000-000"
    members = [[0, 0], [0, 1]]
    write_sealed(pack_folder / "pack.json", {"settings": {"0": {"gamma": 0.9}}, "members": members})
    result = {"final_return": [1.0, None], "env_steps": 128, "train_seconds": 1.0}
    write_sealed(pack_folder / "result.json", {"members": members, **result})
    row = {"env_steps": 128, "episode_return": [1.0, None], "entropy": [0.1, 0.2]}
    (pack_folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def make_policy(folder: Path) -> None:
    folder.mkdir()
    one = {"name": "observation", "shape": [3], "numbers": None, "clip": 10.0, "activation": None}
    form = {"kind": "count", "at": [0, 1], "start": [0], "shape": [], "dtype": "int32"}
    description = {
        **{
            "format": numpy_policy.FORMAT,
            "text": "words",
            "inputs": [one],
            "mask_size": None,
            "memory": None,
        },
        **{"layers": ["tanh", "none"], "action": {"kind": "none", "dials": [2], "form": form}},
    }
    (folder / "description.json").write_text(json.dumps(description))
    write_policy(folder)


def write_policy(folder: Path) -> None:
    arrays = {"input0_mean": np.zeros(3), "input0_std": np.ones(3)}
    arrays |= {"layer0_kernel": np.ones((3, 4)), "layer0_bias": np.zeros(4)}
    arrays |= {"layer1_kernel": np.ones((4, 2)), "layer1_bias": np.zeros(2)}
    text = (folder / "description.json").read_bytes().decode("utf-8", "replace")
    plain = {name: value.astype(np.float32) for name, value in arrays.items()}
    np.savez(folder / "policy.npz", allow_pickle=False, description=np.array(text), **plain)
