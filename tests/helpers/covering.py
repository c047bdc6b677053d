"""All features at once: rows of settings in which any two values that may meet do meet.

`python tests/helpers/covering.py [FIRST [LAST]]` trains the rows and prints what each one showed.
The tests train a few of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Pair = frozenset  # of two (feature, value)
# Two devices, and programs that compile fast; flags that are set come last and win.
FLAGS = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"

FEATURES: dict[str, tuple[str, ...]] = {
    "objective": ("pg", "is", "clip", "kl", "kl new-old", "dpo", "spo", "drift", "trpo", "npg"),
    "policy": (
        *("categorical", "multi-categorical", "gaussian", "gaussian-state-std", "gsde"),
        *("tanh-gaussian", "hybrid", "hybrid gsde"),
    ),
    "memory": ("none", "gru", "lstm", "mingru", "lru", "attention"),
    "mask": ("no", "yes"),
    "observation": ("vector", "dict"),
    "torso": ("apart", "shared"),
    "normalize": ("nothing", "observations", "rewards", "both"),
    "advantages": ("minibatch", "batch", "none"),
    "previous": ("none", "action", "reward+start", "action+reward+start"),
    "start": ("zero", "learned"),
    "layers": ("1", "2"),
    "bound": ("nothing", "kl_stop", "kl_lr_target", "kl_target", "value_clip"),
    "layout": ("one seed", "two seeds", "one seed on two devices", "two seeds on two devices"),
    "optimizer": ("adam", "sgd", "muon"),
    "precision": ("float32", "bfloat16"),
    "probe": ("nothing", "gradient cosine", "drop bad", "start states", "termination"),
}
# Values that have no meaning together, or that the program refuses.
_OTHERS = FEATURES["objective"][5:]  # without the KL penalty
_REAL = ("gaussian", "gaussian-state-std", "gsde", "tanh-gaussian")
_EXCLUDED = (
    (("mask", ("yes",)), ("policy", _REAL)),
    (("start", ("learned",)), ("memory", ("none", "attention"))),
    (("layers", ("2",)), ("memory", ("none",))),
    (("bound", ("kl_target",)), ("objective", (*FEATURES["objective"][:3], *_OTHERS))),
    (("probe", ("start states",)), ("layout", ("one seed on two devices",))),
    (("bound", ("kl_stop", "kl_lr_target")), ("objective", ("trpo", "npg"))),
)


def pairs_of(row: Mapping[str, str]) -> Iterator[Pair]:
    """Every pair of (feature, value) in a row."""
    return map(frozenset, itertools.combinations(row.items(), 2))


def excluded() -> set[Pair]:
    """The pairs that no row has."""
    return {
        frozenset({(one, a), (other, b)})
        for (one, firsts), (other, seconds) in _EXCLUDED
        for a in firsts
        for b in seconds
    }


def all_pairs() -> set[Pair]:
    """The pairs that the array must cover."""
    found = {
        frozenset({(one, a), (other, b)})
        for one, other in itertools.combinations(FEATURES, 2)
        for a in FEATURES[one]
        for b in FEATURES[other]
    }
    return found - excluded()


def covering_array() -> list[dict[str, str]]:
    """Rows that cover every pair, by a greedy search in a fixed order (as AETG, Cohen et al. 1997).

    Each row starts with the first open pair, and takes feature by feature the value that covers the
    most open pairs, of equals the one that was used least.
    """
    never, rows = excluded(), []
    left = dict.fromkeys(sorted(all_pairs(), key=lambda pair: sorted(pair)))
    used = dict.fromkeys(itertools.chain.from_iterable(FEATURES.values()), 0)
    while left:
        row: dict[str, str] = dict(next(iter(left)))
        for feature in (name for name in FEATURES if name not in row):
            met = {
                value: [frozenset({(feature, value), item}) for item in row.items()]
                for value in FEATURES[feature]
            }
            allowed = [value for value in met if not never.intersection(met[value])]
            row[feature] = max(
                allowed,
                key=lambda value: (sum(pair in left for pair in met[value]), -used[value]),
            )
        for value in row.values():
            used[value] += 1
        for pair in pairs_of(row):
            left.pop(pair, None)
        rows.append({name: row[name] for name in FEATURES})
    return rows


def settings_of(row: Mapping[str, str]) -> tuple[Any, Any, Any]:
    """The `Config`, `Hyper` and `Layout` of a row; three iterations of 96 steps."""
    import jax
    from dials import dials
    from objective_cases import BOX, VARIANTS

    from ppo_jax.config.config import Config, Hyper
    from ppo_jax.distributed.layout import Layout
    from ppo_jax.envs.interface import Discrete, MultiDiscrete, Product

    space: Any = {"categorical": Discrete(3), "multi-categorical": MultiDiscrete((3, 2))}
    joint = Product((MultiDiscrete((3, 2)), BOX))
    kind = row["policy"].removeprefix("hybrid ").replace("hybrid", "gaussian")
    space = joint if "hybrid" in row["policy"] else space.get(row["policy"], BOX)
    probes: dict[str, dict[str, Any]] = {
        "gradient cosine": {"measure_gradient_cosine": True},
        "drop bad": {"drop_bad_transitions": True},
        "start states": {"start_states": 4},
        "termination": {"time_limits": "termination"},
    }
    config = Config(
        env=dials(space, is_masked=row["mask"] == "yes", is_dict=row["observation"] == "dict"),
        **VARIANTS[row["objective"]],
        **probes.get(row["probe"], {}),
        policy=kind.replace("multi-categorical", "categorical"),
        gsde_resample_steps=4,
        memory=row["memory"],
        memory_size=8,
        memory_layers=int(row["layers"]),
        memory_window=3,
        memory_start=row["start"],
        shared_torso=row["torso"] == "shared",
        normalize_observations=row["normalize"] in ("observations", "both"),
        normalize_rewards=row["normalize"] in ("rewards", "both"),
        normalize_advantages=row["advantages"],
        previous_inputs=row["previous"],
        optimizer=row["optimizer"],
        precision=row["precision"],
        num_envs=16,
        rollout_length=6,
        num_epochs=2,
        num_minibatches=2,
        hidden_sizes=(8,),
        orthogonal_init=False,
        total_env_steps=96 * 3,
    )
    bounds = {"kl_stop": 0.01, "kl_lr_target": 0.01, "kl_target": 0.01}
    bounds = {row["bound"]: bounds[row["bound"]]} if row["bound"] in bounds else {}
    if row["bound"] == "value_clip":
        bounds = {"value_clip_epsilon": 0.2}
    one, two = tuple(jax.devices()[:1]), tuple(jax.devices()[:2])
    layouts: dict[str, Callable[[], Layout]] = {
        "one seed": lambda: Layout("map", one, 1),
        "two seeds": lambda: Layout("vmap", one, 2),
        "two seeds in blocks": lambda: Layout("vmap", one, 2, 1, 4),  # draws as on two devices
        "one seed on two devices": lambda: Layout("map", two, 1, 2, 4),
        "two seeds on two devices": lambda: Layout("map", two, 2),
    }
    return config, Hyper(learning_rate=1e-2, entropy_coef=0.01, **bounds), layouts[row["layout"]]()


def train_row(row: Mapping[str, str], folder: Path) -> tuple[float, Any]:
    """Train a row for three iterations, and raise if it breaks what every row must keep.

    All numbers are finite, the first minibatch has ratios of 1, no illegal action is taken, the
    parameters move, the program is compiled once for two settings, and a state that was saved and
    loaded continues bit for bit.

    Args:
        folder: takes a checkpoint.

    Returns:
        the largest |log ratio| of a first minibatch, and the parameters of seed 0 as one array.
    """
    import jax
    import numpy as np
    from toy import flat

    from ppo_jax.distributed import population, programs
    from ppo_jax.storage import checkpoint
    from ppo_jax.training import schedules

    config, hyper, layout = settings_of(row)
    chunk = programs.make_chunk(config, layout)
    arrays = schedules.as_arrays(config, hyper)

    def start() -> Any:
        return population.init_population(config, arrays, 0, layout)

    whole, table = chunk(arrays, start(), np.int32(3))
    rows = {name: np.asarray(value)[:, :3] for name, value in table.items()}
    part, _ = chunk(arrays, start(), np.int32(2))
    checkpoint.save(folder / "saved", part, {})
    loaded, _ = checkpoint.load(folder / "saved", part)
    part, _ = chunk(arrays, population.place(loaded, layout), np.int32(1))
    one, other = (checkpoint.snapshot(state).arrays for state in (whole, part))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one), "other bits"
    slower = schedules.as_arrays(config, dataclasses.replace(hyper, learning_rate=3e-3))
    chunk(slower, start(), np.int32(1))
    assert chunk._cache_size() == 1, "compiled more than once"
    assert (rows["alive"] == 1.0).all()
    assert (rows["refused_fraction"] == 0.0).all()
    assert all(np.isfinite(array).all() for name, array in one.items() if "params" in name)
    assert np.isfinite(rows["policy_loss"]).all()
    assert np.isfinite(rows["grad_norm"]).all()
    assert (rows["num_episodes"] > 0).any()
    assert (rows["episode_return_sum"] >= 0.0).all(), "an illegal choice costs 1000"
    before, after = (flat(jax.tree.map(lambda x: x[0], x.params)) for x in (start(), whole))
    assert np.abs(before - after).max() > 1e-4, "nothing moves"
    ratio = float(rows["log_ratio_abs_first"].max())
    assert ratio <= (1e-5 if config.precision == "float32" else 2e-2), ratio
    return ratio, after


def main() -> None:
    """Train the rows from FIRST up to LAST, and print a line for each."""
    rows = covering_array()
    first, last = (*map(int, sys.argv[1:]), *(0, len(rows))[len(sys.argv) - 1 :])
    print(f"{len(rows)} rows cover {len(all_pairs())} pairs; {first} to {last - 1} follow")
    failed = 0
    for number, row in enumerate(rows[first:last], first):
        words, begin = " ".join(map("=".join, row.items())), time.process_time()
        with tempfile.TemporaryDirectory() as name:
            try:
                found: Any = f"{train_row(row, Path(name))[0]:.1e}"
            except Exception as error:  # a row's fault must not end the others
                found, failed = f"FAILED {type(error).__name__}: {error}"[:600], failed + 1
        print(f"{number} {time.process_time() - begin:.1f} s {found} {words}", flush=True)
    print(f"{failed} rows failed")


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"
    main()
