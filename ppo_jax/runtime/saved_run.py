"""States of saved runs: of all seeds, of one, or as the start of another run."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config import layers
from ppo_jax.config.config import Config, Hyper, whole
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.config.reading import as_path
from ppo_jax.config.trust import Trust, vouched
from ppo_jax.distributed import population
from ppo_jax.distributed.layout import Layout
from ppo_jax.envs import leaves
from ppo_jax.models.agent import assemble, named_codes
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime.devices import prepare_jax
from ppo_jax.runtime.text import visible
from ppo_jax.storage import checkpoint as checkpoints
from ppo_jax.storage import checkpoint_list, run_folder
from ppo_jax.storage.fingerprint import other_programs, own_sources, spaces
from ppo_jax.training import schedules, trainer


def saved_like(config: Config, hyper: Hyper, num_seeds: int) -> TrainState:
    """Shapes and dtypes of a saved population of `num_seeds`."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_seeds))
    plain = population.without_budget(config)
    return jax.eval_shape(jax.vmap(partial(trainer.init, plain, hyper)), keys)


def load_state(
    folder: Path | str,
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
    checkpoint: str | int = "newest",
) -> tuple[Config, Hyper, RunOptions, TrainState, dict[str, Any]]:
    """Settings, state [S, ...] and metadata of a checkpoint of a run folder.

    Prints a note if the environment, or another program of the user's own, has changed since, or
    if the best checkpoint may be among damaged ones.

    Args:
        checkpoint: "newest" for the newest undamaged one, "best" for the one with the best
            evaluation (IQM over the seeds), or the environment steps of one that is kept.

    Raises:
        InputError: no run folder, no such checkpoint in it that can be read, or a program that the
            user does not vouch for (`trust`).
    """
    folder, choice = as_path("run", folder), layers.checkpoint_choice(checkpoint)
    found = run_folder.read_settings(folder, env, network, trust)
    place, warnings = checkpoint_list.chosen(folder, choice)
    hyper = schedules.as_arrays(found.config, found.hyper)
    like = saved_like(found.config, hyper, found.options.seeds)
    state, metadata = load_checkpoint(place, like, found.config)
    other = other_programs(metadata.get("fingerprint") or {}, own_sources(found.config))
    notes = [*(warnings if choice == "best" else ()), *([] if other is None else [other])]
    for note in notes if sys.stderr is not None else ():
        print(visible(f"note: {note}"), file=sys.stderr)
    return found.config, hyper, found.options, state, {**metadata, "warnings": warnings}


def load_checkpoint(
    folder: Path, like: TrainState, config: Config
) -> tuple[TrainState, dict[str, Any]]:
    """`checkpoints.load` for a run, which names an environment whose spaces have changed.

    Raises:
        InputError: they have changed since the run was trained.
        CheckpointError: as `checkpoints.load`.
    """
    now, then = spaces(config), checkpoints.metadata_of(folder).get("spaces") or {}
    changed = [name for name in now if name in then and now[name] != then[name]]
    if changed:
        name = changed[0]
        raise InputError(
            f"{run_folder.env_name(config)!r} now has the {name} space {now[name]}, and {folder} "
            f"was trained with {then[name]}: bring the old environment back, or train anew."
        )
    return checkpoints.load(folder, like)


def load_where_trained(
    run: Path,
    member: int,
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
    checkpoint: str | int = "newest",
) -> tuple[Config, Hyper, RunOptions, TrainState, dict[str, Any]]:
    """Start jax on the platform that a run was trained on, and load its state.

    Args:
        checkpoint: as in `load_state`.

    Raises:
        InputError: as `load_state`, or the run has no such member.
    """
    wanted = run_folder.read_settings(run, env, network, trust).options.platform
    prepare_jax(RunOptions(platform=wanted))
    found = load_state(run, env, network, trust, checkpoint)
    check_member(member, found[2].seeds)
    return found


# Settings that change what given parameters do.
POLICY_FIELDS = (
    *("policy", "torso", "hidden_sizes", "activation", "shared_torso", "network", "memory"),
    *("memory_size", "memory_layers", "memory_window", "memory_start", "previous_inputs"),
    "normalize_observations",
)


def start_from(
    folder: Path, config: Config, state: TrainState, layout: Layout, trust: Trust = False
) -> TrainState:
    """`state` with the policies (parameters and normalisers) of another run.

    Member i takes the policy of the other run's seed i, modulo its number of seeds. If `config`
    holds an environment or a network as an object, the other run had the same one. The programs
    that `config` names are the user's own choice, in the other run as well.

    Raises:
        InputError: the folder has no state that can be read (see `load_state`), or the other run
            differs in a setting or a shape that its policy depends on.
    """
    env, network = (None if isinstance(x, str) else x for x in (config.env, config.network))
    theirs, _, _, other, _ = load_state(folder, env, network, vouched(trust, config))
    fields = POLICY_FIELDS
    environment = assemble(config).environment
    if leaves.highest_bytes(environment):
        fields = (*fields, "scale_bytes")
    if leaves.categories(environment):
        fields = (*fields, "one_hot_integers")
    if leaves.largest_integers(environment):
        fields = (*fields, "scale_integers")
    differing = [name for name in fields if getattr(theirs, name) != getattr(config, name)]
    if differing:
        name = differing[0]
        word = name.replace("_", "-")
        raise InputError(
            f"init_from={str(folder)!r} was trained with {name}={getattr(theirs, name)!r}, but "
            f"this run has {name}={getattr(config, name)!r}: the same parameters would act "
            f"differently; give --{word} as in that run."
        )
    if config.network is None:
        require_same_codes(folder, theirs, config)
    count = other.alive.shape[0]
    chosen = np.arange(layout.num_members) % count
    taken = jax.tree.map(
        lambda leaf: leaf[chosen], (other.params, other.observation_moments, other.return_moments)
    )
    wanted = (state.params, state.observation_moments, state.return_moments)
    if jax.tree.map(jnp.shape, taken) != jax.tree.map(jnp.shape, wanted):
        raise InputError(
            f"init_from={str(folder)!r} has another network or another observation: its "
            "parameters do not fit; use the same hidden_sizes, torso, policy and environment."
        )
    params, observation_moments, return_moments = taken
    state = state._replace(
        params=params, observation_moments=observation_moments, return_moments=return_moments
    )
    return population.place(state, layout)


def require_same_codes(folder: Path, theirs: Config, config: Config) -> None:
    """Refuse another run whose network saw the numbers of a leaf in another way."""
    plain = " as real numbers"
    before, now = (named_codes(each, assemble(each).environment) for each in (theirs, config))
    for name, code in now.items():
        if name in before and before[name] != code:
            raise InputError(
                f"init_from={str(folder)!r} was trained with the leaf {name!r}"
                f"{before[name].words() or plain}, but this run has it{code.words() or plain}: the "
                "same parameters would act differently; declare the same bounds of its numbers."
            )


def load_member(
    folder: Path | str,
    member: int,
    env: Any = None,
    network: Any = None,
    name: str = "member",
    trust: Trust = False,
    checkpoint: str | int = "newest",
) -> tuple[Config, Hyper, TrainState]:
    """Settings and state of one seed, without a leading axis.

    Args:
        name: of the argument that the user gave as `member`.
        checkpoint: as in `load_state`.

    Raises:
        InputError: as `load_state`, or the run has no such seed.
    """
    config, hyper, options, state, _ = load_state(folder, env, network, trust, checkpoint)
    check_member(member, options.seeds, name)
    return config, hyper, jax.tree.map(lambda leaf: leaf[member], state)


def check_member(member: int, num_seeds: int, name: str = "member") -> None:
    """Refuse a seed that the run does not have."""
    if isinstance(member, bool) or not isinstance(whole(member), int):
        raise InputError(f"{name}={member!r} must be a whole number, the place of a seed.")
    if not 0 <= member < num_seeds:
        raise InputError(
            f"{name}={member} is not among the run's {num_seeds} seeds (0 to {num_seeds - 1})."
        )
