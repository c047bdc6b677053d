"""One member of a run trained again, bit for bit, keeping what the batch could not keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.analysis import video as video_files
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import programs
from ppo_jax.kernels import compiler
from ppo_jax.rl.types import EnvCarry, PyTree, Rollout, TrainState
from ppo_jax.runtime import evaluation
from ppo_jax.storage.fingerprint import fingerprint
from ppo_jax.training import rollout as rollouts
from ppo_jax.training import schedules, trainer

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
    tell: Tell = lambda line: None,
) -> dict[str, Any]:
    """Train one seed of a run again, as far as its newest checkpoint, and compare the two.

    Where the run trained its seeds side by side, the member is trained in as many copies, as its
    bits depend on the width; else alone.

    Args:
        member: which of the run's seeds, counted from 0.
        keep: iterations, counted from 1, whose whole rollout is written to
            `trajectory_ITERATION.npz`; None for the first and the last one, empty for none.
        video: at each of these also an episode of the policy of that moment, as a GIF.
        out: a new folder for both; None for `replay-MEMBER` in the run's folder.
        env, network: where the run was trained with Python objects, the same ones again.
        tell: hears of each step.

    Returns:
        what `ppo-jax replay --json` prints; `is_equal` says whether no bit differs.

    Raises:
        InputError: no such run, member or iteration, or what is to be drawn cannot be.
    """
    run = Path(run)
    config, hyper, options, saved, metadata = evaluation.load_where_trained(
        run, member, env, network
    )
    last = metadata["env_steps"] // config.batch_size
    kept = chosen_iterations(keep, last)
    folder = run / f"replay-{member}" if out is None else Path(out)
    check_folder(folder, bool(kept))
    if video:
        evaluation.renderer(trainer.assemble(config).environment)
    recorded = metadata.get("fingerprint", {})
    layout = recorded_layout(config, options.seeds, recorded)
    changes = changed(recorded, fingerprint(layout))
    alone = layout_of_one(layout)
    arrays = schedules.as_arrays(config, hyper)
    state = start(config, arrays, options, layout, alone, member)
    chunk = compiler.compiled(programs.make_chunk(config, alone).lower(arrays, state, np.int32(1)))
    done, points = 0, []
    for iteration in kept:
        state = advance(chunk, arrays, state, iteration - 1 - done)
        before = first_member(state)
        state = advance(chunk, arrays, state, 1)
        done = iteration
        folder.mkdir(parents=True, exist_ok=True)
        point = record(config, arrays, alone, before, first_member(state), iteration, folder)
        if video:
            file = folder / f"episode_{iteration:08d}.gif"
            pictures = evaluation.frames(config, arrays, before, "deterministic", iteration)
            video_files.write(file, pictures)
            point["video"] = str(file)
        tell(f"iteration {iteration:,} of {last:,}: {point['trajectory']}")
        points.append(point)
    state = advance(chunk, arrays, state, last - done)
    member_saved = jax.tree.map(lambda leaf: leaf[member], saved)
    found = first_member(state)
    bits = differing_bits(found, member_saved)
    return {
        "run": str(run),
        "member": member,
        "seed": options.seed + member,
        "iterations": last,
        "env_steps": metadata["env_steps"],
        "width": layout.num_members,
        "layout": layout.kind,
        "is_equal": bits == 0,
        "differing_bits": bits,
        "differing_bits_params": differing_bits(found.params, member_saved.params),
        "largest_difference_params": largest_difference(found.params, member_saved.params),
        "fingerprint_known": bool(recorded),
        "fingerprint_changes": changes,
        "kept": points,
    }


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


def recorded_layout(config: Config, num_seeds: int, recorded: Recorded) -> layouts.Layout:
    """The layout that a run was trained in, as far as this machine has the devices for it."""
    layout = layouts.choose_layout(config, num_seeds, recorded.get("devices"))
    kind = recorded.get("layout", layout.kind)
    return layout._replace(kind=kind)


def layout_of_one(layout: layouts.Layout) -> layouts.Layout:
    """The narrowest layout in which a member has the bits that it has in `layout`."""
    if layout.kind == "vmap":
        return layout._replace(num_seeds=layout.num_members)
    return layout._replace(num_seeds=1 if layout.kind == "envs" else len(layout.devices))


def changed(recorded: Recorded, now: Recorded) -> list[str]:
    """What the bits depend on and is not as it was."""
    return [
        f"{name} is {now.get(name)!r} and was {recorded[name]!r}"
        for name in recorded
        if recorded[name] != now.get(name)
    ]


def start(
    config: Config,
    hyper: Hyper,
    options: RunOptions,
    layout: layouts.Layout,
    alone: layouts.Layout,
    member: int,
) -> TrainState:
    """The member's start state in every place of `alone`, made as the run made it."""
    state = programs.init_population(config, hyper, options.seed, layout)
    if options.init_from:
        state = evaluation.start_from(Path(options.init_from), config, state, layout)
    chosen = np.full(alone.num_members, member)
    return programs.place(jax.tree.map(lambda leaf: leaf[chosen], state), alone)


def advance(
    chunk: Callable[..., Any], hyper: Hyper, state: TrainState, iterations: int
) -> TrainState:
    """The state after so many iterations more."""
    while iterations > 0:
        length = min(iterations, programs.ROWS)
        state, _ = chunk(hyper, state, np.int32(length))
        iterations -= length
    return state


def first_member(state: TrainState) -> TrainState:
    """A copy of the first member, which outlives the donation of `state`."""
    return jax.tree.map(lambda leaf: jnp.array(leaf[0]), state)


def record(
    config: Config,
    hyper: Hyper,
    layout: layouts.Layout,
    before: TrainState,
    after: TrainState,
    iteration: int,
    folder: Path,
) -> dict[str, Any]:
    """Write the rollout of one iteration, computed again from the state before it.

    The chunk does not hand its rollout out, so a program of its own makes it anew; how far the two
    are apart can be seen in where they leave the environments.
    """
    shares = len(layout.devices) if layout.kind == "envs" else 1
    carry, raw, steps, action = jax.jit(trajectory, static_argnums=(0, 3))(
        programs.program(config), hyper, before, shares
    )
    file = folder / f"trajectory_{iteration:08d}.npz"
    np.savez_compressed(
        file,
        observation=raw,  # [T, B, *O], raw
        action=action,  # [T, B, ...], as the environment took it
        action_sampled=steps.action,  # [T, B, ...]
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
    config: Config, hyper: Hyper, state: TrainState, shares: int
) -> tuple[EnvCarry, Any, Rollout, Any]:
    """Carry after, raw observations [T, B, *O], rollout, and the actions that were taken.

    Args:
        shares: devices over which the run spread this seed's environments, each with its own draws.
    """
    parts = trainer.assemble(config)
    now = schedules.resolve(hyper, schedules.progress(config, hyper, state.iteration))
    policy = trainer.acting_policy(config, parts, state.params, state.observation_moments)
    params = trainer.env_params(parts.environment, now)

    def roll(carry: EnvCarry, axis_name: str | None) -> tuple[EnvCarry, Any, Rollout]:
        key = trainer.iteration_keys(state, axis_name)[:-1]
        carry, steps, raw, _ = rollouts.rollout(
            config, parts.environment, params, policy, carry, key
        )
        return carry, raw, steps

    if shares == 1:
        carry, raw, steps = roll(state.carry, None)
    else:
        split = jax.tree.map(lambda x: x.reshape(shares, -1, *x.shape[1:]), state.carry)
        found = jax.vmap(lambda share: roll(share, "devices"), axis_name="devices")(split)
        carry = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found[0])
        raw, steps = jax.tree.map(
            lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:]), found[1:]
        )
    return carry, raw, steps, parts.family.to_env(steps.action)


def _numbers(leaf: Any) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def differing_bits(a: PyTree, b: PyTree) -> int:
    """How many bits of two trees of equal shapes and dtypes differ."""
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
