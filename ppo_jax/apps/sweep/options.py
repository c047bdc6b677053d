"""Options of a sweep: the choice of settings, their number, the machine and the files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppo_jax.config.config import Config, option
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import (
    CLUSTERS,
    PLATFORMS,
    POLICY_MODES,
    RunOptions,
    check_hosts,
    has_hosts,
)
from ppo_jax.config.validate import check_fields, check_names
from ppo_jax.config.values import masked

SAMPLERS = ("grid", "random", "halving", "pbt", "tpe")
NUMERIC_ONLY = ("halving", "pbt")  # one population from start to end, so one program
MAX_SETTINGS = 10**5  # limit of one sweep
MAX_MEMBERS = 2**20  # settings x seeds of one sweep
ENGINES = ("local", "ray")
LAYOUTS = ("auto", "measure", "map", "vmap")


@dataclass(frozen=True)
class SweepOptions:
    """A sweep's own settings; steps are environment steps of one seed unless said otherwise."""

    sampler: str = option("grid", "how settings are chosen", SAMPLERS)
    settings: int | None = option(
        None, "settings to try (grid: all points; halving, pbt: as grid, if left out)"
    )
    seeds: int = option(4, "seeds of every setting")
    seed: int = option(0, "first seed, the same for all settings; the others count up from it")
    budget: int | None = option(
        None,
        "environment steps of training in all, at most (halving takes fewer): sets what --settings "
        "or --total-env-steps leaves open",
    )
    fresh_seeds: int | None = option(
        None, "fresh seeds that the winner is run on again (as many as --seeds; 0: not)"
    )
    out: str | None = option(None, "sweep folder (else runs/sweep-ENV-OBJECTIVE-UTCTIME)")
    log_every: int = option(0, "environment steps between rows of the table (0: about 100)")
    eval_episodes: int = option(128, "whole episodes of each member, after training")
    score_episodes: int = option(
        16, "halving, pbt: whole episodes of each member that a decision looks at"
    )
    policy_mode: str = option(
        "auto", "how evaluation acts (auto: as the environment asks)", POLICY_MODES
    )
    save_seconds: float = option(60.0, "seconds of training between checkpoints of a pack")
    layout: str = option("auto", "how members share a device (measure: try both)", LAYOUTS)
    device_memory: str | None = option(
        None, "memory to use on each device, such as 8G (else 80% of it)"
    )
    devices: int | None = option(None, "devices to use (auto, as when left out: all of them)")
    platform: str | None = option(None, "kind of device (else the best one available)", PLATFORMS)
    eta: int = option(3, "halving: one setting in so many goes on at each rung")
    min_env_steps: int = option(0, "halving: steps before the first rung (0: by eta)")
    slots: int | None = option(None, "halving: settings trained at a time (0 or auto: by eta)")
    interval: int = option(0, "pbt: environment steps between exploits (0: a twentieth)")
    batch: int = option(8, "tpe: settings asked for and trained at a time")
    packs: int = option(
        1, "grid, random: least number of packs of a compile group, for workers that share them"
    )
    join: bool = option(
        False, "share the packs in --out with identical processes, of which each claims the next"
    )
    study: str = option("sweep", "tpe, join: name of the study, which several workers may join")
    storage: str | None = option(
        None,
        "tpe, join: Optuna's storage as a URL or a journal's FILE.log (else a file in out: tpe "
        "SQLite, join a journal)",
    )
    grace_seconds: float = option(
        60.0, "tpe, join: a worker that is silent for so long has its work taken over"
    )
    engine: str = option("local", "processes that train packs: this one, or tasks of Ray", ENGINES)
    ray_address: str | None = option(
        None, "ray: address of the cluster (else RAY_ADDRESS, or a new one on this machine)"
    )
    ray_cpus: float = option(1.0, "ray: CPUs of a task, which trains one pack")
    ray_gpus: float | None = option(
        None, "ray: GPUs of a task, or a share of one (else 1 if the cluster has any)"
    )
    hosts: str = option(
        "none", "auto: join the hosts of SLURM, Open MPI, Kubernetes or TPU", CLUSTERS
    )
    coordinator: str | None = option(None, "address and port of host 0, to join hosts by hand")
    num_hosts: int | None = option(None, "hosts that join at the coordinator")
    host_index: int | None = option(None, "number of this host, from 0 on")
    quiet: bool = option(False, "no progress")

    def run_options(self) -> RunOptions:
        """The options that a run has, too."""
        names = {spec.name for spec in dataclasses.fields(RunOptions)}
        return RunOptions(**{name: value for name, value in vars(self).items() if name in names})

    @property
    def num_fresh_seeds(self) -> int:
        return self.seeds if self.fresh_seeds is None else self.fresh_seeds


def log_iterations(config: Config, options: SweepOptions) -> int:
    """Iterations between logged points."""
    steps = options.log_every or config.trained_env_steps // 100
    return max(1, -(-steps // config.batch_size))


# name: (lowest, highest whole number)
_COUNTS = {
    "settings": (1, MAX_SETTINGS),
    "seeds": (1, 2**20),
    "seed": (0, 2**32 - 1),
    "budget": (1, 2**63),
    "fresh_seeds": (0, 2**20),
    "log_every": (0, 2**53),
    "eval_episodes": (1, 2**24),
    "score_episodes": (1, 2**24),
    "devices": (1, 2**20),
    "eta": (2, 2**20),
    "min_env_steps": (0, 2**53),
    "slots": (0, 2**20),
    "interval": (0, 2**53),
    "batch": (1, 2**20),
    "packs": (1, MAX_MEMBERS),
    "num_hosts": (1, 2**16),
    "host_index": (0, 2**16),
}
SHARED = ("study", "storage", "grace_seconds")  # join has them, too
_OF_SAMPLER = {
    "score_episodes": NUMERIC_ONLY,
    "eta": ("halving",),
    "min_env_steps": ("halving",),
    "slots": ("halving",),
    "interval": ("pbt",),
    "batch": ("tpe",),
    "packs": ("grid", "random"),
    **dict.fromkeys(SHARED, ("tpe",)),
}


def validate_sweep(options: SweepOptions) -> None:
    """Refuse options that no sweep can follow.

    Raises:
        InputError: a sentence that names the value, the rule and the remedy.
    """
    check_fields(options, _COUNTS)
    for name in ("save_seconds", "grace_seconds"):
        if not (0.0 < getattr(options, name) < math.inf):
            raise InputError(f"{name}={getattr(options, name)!r} must be more than 0.")
    if options.seed + options.seeds + options.num_fresh_seeds > 2**32:
        raise InputError(
            f"seed={options.seed} is too large: with {options.seeds} seeds and "
            f"{options.num_fresh_seeds} fresh ones the last must be at most {2**32 - 1}."
        )
    if options.device_memory is not None:
        parse_bytes(options.device_memory)
    _check_engine(options)
    _check_sampler(options)
    _check_hosts(options)


def _check_engine(options: SweepOptions) -> None:
    """Refuse ways of sharing packs that do not go together, or lack what they need."""
    defaults = SweepOptions()
    for name in ("ray_address", "ray_cpus", "ray_gpus"):
        if options.engine != "ray" and getattr(options, name) != getattr(defaults, name):
            raise InputError(f"{name}={getattr(options, name)!r} needs --engine ray.")
    for name in ("ray_cpus", "ray_gpus"):
        if not 0.0 <= (getattr(options, name) or 0.0) < math.inf:
            raise InputError(f"{name}={getattr(options, name)!r} must be 0 or more.")
    if options.engine == "ray" and (options.join or options.sampler == "tpe"):
        other = "--join" if options.join else "sampler tpe"
        raise InputError(
            f"engine ray and {other} both spread the work over machines: leave one of them out."
        )
    if options.join and options.sampler == "tpe":
        raise InputError(
            "join=True is for packs, and workers of sampler tpe share its study, each in a folder "
            "of its own: leave --join out, and give all of them one --study and --storage."
        )
    if options.join and options.out is None:
        raise InputError("join=True needs the folder that all workers share: give --out DIR.")


def _check_hosts(options: SweepOptions) -> None:
    """Refuse hosts that cannot find each other, and sweeps that are no packs."""
    check_hosts(options.run_options())
    if not has_hosts(options.run_options()):
        return
    if options.join or options.engine == "ray":
        other = "--join" if options.join else "engine ray"
        raise InputError(
            f"Several hosts train each pack together, and {other} has each process train packs of "
            "its own: leave one of them out."
        )
    if options.sampler not in _OF_SAMPLER["packs"]:
        remedy = "leave the hosts out"
        if options.sampler == "tpe":
            remedy += ", and give all workers one --study and --storage"
        raise InputError(
            f"Several hosts train the packs of sampler grid and random, and this sweep's is "
            f"{options.sampler}: {remedy}."
        )


def _check_sampler(options: SweepOptions) -> None:
    """Refuse options that the chosen sampler does not have, and a sampler without its number."""
    defaults = SweepOptions()
    for name, samplers in _OF_SAMPLER.items():
        if options.join and name in SHARED:
            continue
        if options.sampler not in samplers and getattr(options, name) != getattr(defaults, name):
            given = masked(repr(getattr(options, name)))
            raise InputError(
                f"{name}={given} belongs to sampler {' and '.join(samplers)}, and this sweep's is "
                f"{options.sampler}: leave it out, or choose --sampler {samplers[0]}"
                + f"{', or --join' if name in SHARED else ''}."
            )
    if options.sampler in NUMERIC_ONLY and options.layout == "measure":
        raise InputError("layout='measure' is for grid, random and tpe: choose auto, map or vmap.")
    if options.sampler == "grid" and options.settings is not None:
        raise InputError(
            f"settings={options.settings} with sampler grid, which tries every point: give ranges "
            "a number of points (LOW..HIGH:N), or choose --sampler random."
        )
    if options.sampler in ("random", "tpe") and options.settings is None and not options.budget:
        raise InputError(
            f"sampler {options.sampler} needs --settings N (or --budget, environment steps in all)."
        )


def parse_bytes(text: str) -> int:
    """Read `8G`, `512M` or a plain number of bytes."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    number = text.strip().upper().removesuffix("IB").removesuffix("B")
    factor = units.get(number[-1:], 1)
    try:
        size = float(number.rstrip("KMGT")) * factor
    except ValueError:
        size = 0.0
    if not (1.0 <= size < math.inf):
        raise InputError(f"device_memory={text!r} must be a size such as 512M or 8G.")
    return int(size)


def with_changes(options: SweepOptions, changes: Mapping[str, Any]) -> SweepOptions:
    """Replace some options by name, and make texts of paths, as files hold them.

    Raises:
        InputError: a name that is no option.
    """
    check_names(SweepOptions, changes, "a sweep")
    given = dataclasses.replace(options, **changes)
    paths = {name: str(value) for name, value in vars(given).items() if isinstance(value, Path)}
    return dataclasses.replace(given, **paths)
