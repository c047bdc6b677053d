"""Replay: one member of a run trained again, bit for bit, with its rollouts kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions, parse_mesh
from ppo_jax.config.reading import as_path
from ppo_jax.config.trust import Trust
from ppo_jax.distributed import population, programs
from ppo_jax.distributed.hosted import REFUSED
from ppo_jax.distributed.layout import Layout, Wanted, choose_layout
from ppo_jax.envs.interface import refuse_host
from ppo_jax.kernels.collectives import Across
from ppo_jax.models.agent import acting_policy, assemble, env_params
from ppo_jax.rl.types import EnvCarry, PyTree, Rollout, TrainState
from ppo_jax.runtime import frames
from ppo_jax.runtime.background import compiled
from ppo_jax.runtime.chunk_loop import Advance, advance_by, chunks, until
from ppo_jax.runtime.saved_run import load_where_trained, start_from
from ppo_jax.storage.files import replacing
from ppo_jax.storage.fingerprint import fingerprint, list_changes, recorded_blocks
from ppo_jax.training import schedules, trainer
from ppo_jax.training.rollout import rollout

Recorded = dict[str, Any]  # a fingerprint as it was saved
Tell = Callable[[str], None]


def replay(
    run: Path | str,
    *,
    member: int = 0,
    keep: Iterable[int] | None = None,
    video: bool = False,
    out: Path | str | None = None,
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
    tell: Tell = lambda line: None,
) -> dict[str, Any]:
    """Train one seed of a run again, as far as its newest checkpoint, and compare the two.

    If the run trained its seeds side by side, the member is trained in as many copies, because its
    bits depend on the width; else it is trained alone.

    Args:
        member: index of one of the run's seeds, counted from 0.
        keep: iterations, counted from 1, whose whole rollout is written to
            `trajectory_ITERATION.npz`; None for the first and the last one, empty for none.
        video: at each of these also an episode of the policy of that moment, as a GIF.
        out: a new folder for both; None for `replay-MEMBER` in the run directory.
        env, network: the same Python objects again, if the run was trained with objects.
        trust: True to load the programs that the run names, or a list of them; a run of this user
            on this machine needs none.
        tell: is called with a line for each kept iteration.

    Returns:
        the content that `ppo-jax replay --json` prints; `is_equal` is True if no bit differs.

    Raises:
        InputError: no such run, member or iteration, or an environment that cannot be drawn.
    """
    run = as_path("run", run)
    config, hyper, options, saved, metadata = load_where_trained(run, member, env, network, trust)
    refuse_host(assemble(config).environment, *REFUSED["replay"])
    last = metadata["env_steps"] // config.batch_size
    kept = chosen_iterations(keep, last)
    folder = run / f"replay-{member}" if out is None else as_path("out", out)
    check_folder(folder, bool(kept))
    if video:
        frames.renderer(assemble(config).environment)  # refuses before any training
    recorded = metadata.get("fingerprint", {})
    layout = recorded_layout(config, options.seeds, recorded)
    alone = layout_of_one(layout)
    arrays = schedules.as_arrays(config, hyper)
    state = start_member(config, arrays, options, layout, alone, member, trust)
    chunk = compiled(programs.make_chunk(config, alone).lower(arrays, state, np.int32(1)))
    advance = advance_by(chunk, arrays, alone.num_members)
    recorder = Recorder(config, arrays, alone, folder, video, tell)
    state, points = train_recorded(recorder, advance, state, kept, last)
    member_saved = jax.tree.map(lambda leaf: leaf[member], saved)
    return {
        "run": str(run),
        "member": member,
        "seed": options.seed + member,
        "iterations": last,
        "env_steps": metadata["env_steps"],
        "width": layout.num_members,
        "layout": layout.kind,
        **compare_states(first_member(state), member_saved),
        "fingerprint_known": bool(recorded),
        "fingerprint_changes": list_changes(recorded, fingerprint(layout, config))
        if recorded
        else [],
        "kept": points,
    }


class Recorder(NamedTuple):
    """The data needed to write the kept iterations of a member."""

    config: Config
    hyper: Hyper  # as arrays
    layout: Layout
    folder: Path
    video: bool
    tell: Tell


def train_recorded(
    recorder: Recorder, advance: Advance, state: TrainState, kept: Sequence[int], last: int
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Train to iteration `last`, and write the rollout of each kept iteration."""
    config, hyper, layout, folder, video, tell = recorder
    done, points = 0, []
    for iteration in kept:
        state, before = train_one(advance, train_for(advance, state, iteration - 1 - done))
        done = iteration
        folder.mkdir(parents=True, exist_ok=True)
        after = first_member(state)
        point = record_rollout(config, hyper, layout, before, after, iteration, folder)
        if video:
            point["video"] = str(draw_episode(config, hyper, before, iteration, folder))
        tell(f"iteration {iteration:,} of {last:,}: {point['trajectory']}")
        points.append(point)
    return train_for(advance, state, last - done), points


def compare_states(found: TrainState, saved: TrainState) -> dict[str, Any]:
    """The differences between two states of one member."""
    bits = differing_bits(found, saved)
    return {
        "is_equal": bits == 0,
        "differing_bits": bits,
        "differing_bits_params": differing_bits(found.params, saved.params),
        "largest_difference_params": largest_difference(found.params, saved.params),
    }


def draw_episode(
    config: Config, hyper: Hyper, member: TrainState, iteration: int, folder: Path
) -> Path:
    """Write an episode of the policy before an iteration as a GIF."""
    file = folder / f"episode_{iteration:08d}.gif"
    episode = frames.draw_frames(config, hyper, member, "deterministic", iteration)
    frames.save(file, episode)
    return file


def chosen_iterations(keep: Iterable[int] | None, last: int) -> list[int]:
    """The iterations to keep in their order, each once."""
    if keep is None:
        return sorted({1, last}) if last else []
    for iteration in keep:
        if not 1 <= iteration <= last:
            raise InputError(
                f"keep={iteration} is no iteration of the saved run: they count from 1 to {last}."
            )
    return sorted(set(keep))


def check_folder(folder: Path, is_needed: bool) -> None:
    """Refuse a folder that holds something."""
    if is_needed and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        raise InputError(f"out={str(folder)!r} exists and is not empty: name a new folder.")


def recorded_layout(config: Config, num_seeds: int, recorded: Recorded) -> Layout:
    """The layout that a run was trained in, as far as this machine has the devices for it."""
    was_spread = recorded.get("layout") == "envs"  # the word of earlier versions
    mesh = f"seed=1,env={recorded.get('devices')}" if was_spread else recorded.get("mesh")
    blocks = recorded_blocks(recorded)
    wanted = Wanted(recorded.get("devices"), parse_mesh(mesh), blocks)
    layout = choose_layout(config, num_seeds, wanted=wanted)
    kind = recorded.get("layout", layout.kind)
    return layout._replace(kind="map" if was_spread else kind, num_blocks=blocks)


def layout_of_one(layout: Layout) -> Layout:
    """The narrowest layout in which a member has the bits that it has in `layout`."""
    if layout.kind == "vmap":
        return layout._replace(num_seeds=layout.num_members)
    return layout._replace(num_seeds=layout.num_places)


def start_member(
    config: Config,
    hyper: Hyper,
    options: RunOptions,
    layout: Layout,
    alone: Layout,
    member: int,
    trust: Trust = False,
) -> TrainState:
    """The member's start state in every place of `alone`, made as the run made it."""
    state = population.init_population(config, hyper, options.seed, layout)
    if options.init_from:
        state = start_from(Path(options.init_from), config, state, layout, trust)
    chosen = np.full(alone.num_members, member)
    return population.place(jax.tree.map(lambda leaf: leaf[chosen], state), alone)


def train_one(advance: Advance, state: TrainState) -> tuple[TrainState, TrainState]:
    """The state after one iteration, and the first member as it was before."""
    before = first_member(state)  # `state` is donated
    return train_for(advance, state, 1), before


def train_for(advance: Advance, state: TrainState, iterations: int) -> TrainState:
    """The state after that number of further iterations."""
    for chunk in chunks(advance, state, until(iterations), first=iterations, seconds=math.inf):
        state = chunk.state
    return state


def first_member(state: TrainState) -> TrainState:
    """A copy of the first member, which outlives the donation of `state`."""
    return jax.tree.map(lambda leaf: jnp.array(leaf[0]), state)


def record_rollout(
    config: Config,
    hyper: Hyper,
    layout: Layout,
    before: TrainState,
    after: TrainState,
    iteration: int,
    folder: Path,
) -> dict[str, Any]:
    """Write the rollout of one iteration, computed again from the state before it.

    A chunk does not return its rollout, so another program computes it again. The difference
    between the two shows in the observations after the rollout, which are compared.
    """
    carry, raw, steps, action = jax.jit(trajectory, static_argnums=(0, 3))(
        population.without_budget(config), hyper, before, layout.num_blocks
    )
    file = folder / f"trajectory_{iteration:08d}.npz"
    with replacing(file) as new:
        np.savez_compressed(
            new,
            **_named("observation", raw),  # [T, B, *O], raw
            **_named("action", action),  # [T, B, ...], as passed to the environment
            **_named("action_sampled", steps.action),  # [T, B, ...]
            log_prob=steps.log_prob,
            value=steps.value,
            value_next=steps.value_next,
            reward=steps.reward,
            terminated=steps.terminated,
            truncated=steps.truncated,
        )
    return {
        "iteration": iteration,
        "trajectory": str(file),
        "differing_bits": differing_bits(carry.observation, after.carry.observation),
        "largest_difference": largest_difference(carry.observation, after.carry.observation),
    }


def trajectory(
    config: Config, hyper: Hyper, state: TrainState, blocks: int
) -> tuple[EnvCarry, Any, Rollout, Any]:
    """Carry after, raw observations [T, B, *O], rollout, and the actions taken.

    Args:
        blocks: of environments, each with its own draws.
    """
    parts = assemble(config)
    now = schedules.resolve(hyper, schedules.progress(config, hyper, state.iteration))
    params = env_params(parts.environment, now)
    policy = acting_policy(config, parts, state.params, state.observation_moments, params)
    key = trainer.iteration_keys(state, Across(blocks=blocks))[..., :-1]
    carry, steps, raw, _ = rollout(config, parts.environment, params, policy, state.carry, key)
    return carry, raw, steps, policy.to_env(steps.action)


def _named(name: str, tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by name, such as `observation.speed`; one array has the bare name."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    parts = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return {
        ".".join(filter(None, (name, part))): leaf
        for part, (_, leaf) in zip(parts, leaves, strict=True)
    }


def _numbers(leaf: Any) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def differing_bits(a: PyTree, b: PyTree) -> int:
    """The number of bits in which two trees of equal shapes and dtypes differ."""
    return sum(
        int(np.bitwise_count(_bytes(x) ^ _bytes(y)).sum())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def _bytes(leaf: Any) -> np.ndarray:
    return np.frombuffer(_numbers(leaf).tobytes(), np.uint8)


def largest_difference(a: PyTree, b: PyTree) -> float:
    """The largest |x - y| of two trees, NaN next to NaN counted as equal."""
    return max(
        (
            float(np.max(np.nan_to_num(np.abs(_numbers(x).astype(float) - _numbers(y)), nan=0.0)))
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
            if x.size
        ),
        default=0.0,
    )
