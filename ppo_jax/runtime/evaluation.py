"""Evaluation on the host: of a run in progress, of a saved one, and the policy as a function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.analysis import stats
from ppo_jax.analysis import video as video_files
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions, validate_options
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import programs
from ppo_jax.envs.interface import Environment
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import devices
from ppo_jax.storage import checkpoint, run_folder
from ppo_jax.training import evaluation, schedules, trainer

MAX_STEPS = 10_000  # an episode still running after so many steps is cut and counted as it stands
MAX_FRAMES = 1_000  # a video ends here even where the episode goes on
FINAL = 2**31 - 1  # the random stream of the evaluation after training

Play = Callable[[TrainState, int], evaluation.Episodes]  # (state, stream) -> [S, n] on the host


def player(config: Config, hyper: Hyper, layout: layouts.Layout, options: RunOptions) -> Play:
    """The evaluation of a population; `stream` picks its random numbers, which are its own."""
    compiled = programs.make_evaluation(
        config, layout, options.eval_episodes, MAX_STEPS, options.policy_mode == "deterministic"
    )

    def play(state: TrainState, stream: int) -> evaluation.Episodes:
        played = jax.device_get(compiled(hyper, state, np.uint32(stream)))
        return jax.tree.map(lambda leaf: leaf[: layout.num_seeds], played)

    return play


def mean_returns(played: evaluation.Episodes, alive: np.ndarray) -> list[float | None]:
    """Mean return of each seed's episodes, None for a seed that failed."""
    means = np.asarray(played.episode_return, np.float64).mean(axis=1)
    return [float(mean) if ok else None for mean, ok in zip(means, alive, strict=True)]


def summary(played: evaluation.Episodes, alive: np.ndarray, options: RunOptions) -> dict[str, Any]:
    """What `summary.json` says of an evaluation."""
    scores = stats.summarise(mean_returns(played, alive))
    num_failed = scores.pop("num_failed")
    return {
        "final_return": scores,
        "num_failed": num_failed,
        "policy_mode": options.policy_mode,
        "episodes_per_seed": options.eval_episodes,
        "episodes_cut": int(np.sum(~np.asarray(played.finished))),
        "episode_length_mean": float(np.mean(played.length)),
    }


def alive_seeds(state: TrainState, layout: layouts.Layout) -> np.ndarray:
    """Which seeds still learn, [S] bool."""
    return np.asarray(state.alive)[: layout.num_seeds]


def saved_like(config: Config, hyper: Hyper, num_seeds: int) -> TrainState:
    """Shapes and dtypes of a saved population of `num_seeds`."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_seeds))
    plain = programs.program(config)
    return jax.eval_shape(jax.vmap(partial(trainer.init, plain, hyper)), keys)


def load_state(
    folder: Path | str, env: Any = None, network: Any = None
) -> tuple[Config, Hyper, RunOptions, TrainState, dict[str, Any]]:
    """Settings, newest undamaged state [S, ...] and its metadata of a run folder.

    Raises:
        InputError: no run folder, or no checkpoint in it that can be read.
    """
    folder = Path(folder)
    found = run_folder.read(folder, env, network)
    newest, warnings = checkpoint.latest(folder)
    if newest is None:
        told = "".join(f" {warning}" for warning in warnings)
        raise InputError(f"{str(folder)!r} holds no checkpoint that can be read.{told}")
    hyper = schedules.as_arrays(found.config, found.hyper)
    like = saved_like(found.config, hyper, found.options.seeds)
    state, metadata = checkpoint.load(newest, like)
    return found.config, hyper, found.options, state, {**metadata, "warnings": warnings}


def load_where_trained(
    run: Path, member: int, env: Any = None, network: Any = None
) -> tuple[Config, Hyper, RunOptions, TrainState, dict[str, Any]]:
    """`load_state` of a run with such a member, jax started on the platform it was trained on."""
    wanted = run_folder.read(run, env, network).options.platform
    devices.prepare_jax(RunOptions(platform=wanted))
    found = load_state(run, env, network)
    check_member(member, found[2].seeds)
    return found


def start_from(
    folder: Path, config: Config, state: TrainState, layout: layouts.Layout
) -> TrainState:
    """`state` with the policies (parameters and normalisers) of another run.

    Member i takes the policy of the other run's seed i, counted round where it has fewer. Where
    `config` holds an environment or a network as an object, the other run had the same one.
    """
    given = [None if isinstance(x, str) else x for x in (config.env, config.network)]
    _, _, _, other, _ = load_state(folder, *given)
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
    return programs.place(state, layout)


def evaluate(
    run: Path | str,
    *,
    episodes: int = 128,
    policy_mode: str = "deterministic",
    seed: int | None = None,
    video: Path | str | None = None,
    env: Any = None,
    network: Any = None,
) -> dict[str, Any]:
    """Whole episodes of every seed of a saved run, with the normaliser it was trained with.

    Args:
        run: a run folder. episodes: per seed. policy_mode: deterministic or sampled.
        seed: picks the random numbers; None repeats the evaluation at the end of training.
        video: a .gif or .mp4 file for one more episode, of the seed with the best return.
        env, network: where the run was trained with Python objects, the same ones again.

    Returns:
        what `ppo-jax eval --json` prints; see docs/design.md.

    Raises:
        InputError: no run folder, or a video that cannot be made, before anything is played.
    """
    options = RunOptions(eval_episodes=episodes, policy_mode=policy_mode, seed=seed or 0)
    validate_options(options)
    if video is not None:
        video_files.check(Path(video))
    devices.prepare_jax(options)
    config, hyper, trained, state, metadata = load_state(run, env, network)
    if video is not None:
        renderer(trainer.assemble(config).environment)
    layout = layouts.choose_layout(config, trained.seeds)
    if layout.kind == "envs":  # episodes are few: there is nothing to spread
        layout = layouts.Layout("map", layout.devices[:1], trained.seeds)
    state = programs.padded(state, layout)
    play = player(config, hyper, layout, options)
    stream = FINAL if seed is None else seed
    played = play(programs.place(state, layout), stream)
    found = summary(played, alive_seeds(state, layout), options)
    if video is not None:
        known = [-np.inf if x is None else x for x in found["final_return"]["per_seed"]]
        best = jax.tree.map(lambda leaf: leaf[int(np.argmax(known))], state)
        video_files.write(Path(video), frames(config, hyper, best, policy_mode, stream))
    return {
        "env": run_folder.env_name(config),
        "objective": config.objective,
        "num_seeds": trained.seeds,
        "env_steps": metadata["env_steps"],
        **found,
        "compile_seconds": None,
        "train_seconds": None,
        "env_steps_per_second": None,
        "run": str(run),
        **({} if video is None else {"video": str(video)}),
    }


def renderer(environment: Environment) -> Callable[[Any, Any], np.ndarray]:
    """What draws a state of `environment`; refuses one that cannot be drawn."""
    if environment.render is None:
        raise InputError(
            f"{environment.name} cannot be drawn, as neither it nor ppo_jax has a picture of it: "
            "leave --video out, or give the environment a render(state, params)."
        )
    return environment.render


def frames(
    config: Config, hyper: Hyper, member: TrainState, policy_mode: str, stream: int
) -> list[np.ndarray]:
    """One episode of one seed as pictures, uint8 [H, W, 3] each; refuses what has no picture."""
    parts = trainer.assemble(config)
    environment = parts.environment
    render = renderer(environment)
    params = trainer.env_params(environment, schedules.resolve(hyper, jnp.ones(())))
    policy = trainer.acting_policy(config, parts, member.params, member.observation_moments)
    key = jax.random.fold_in(jax.random.fold_in(member.key, programs.EVALUATION), stream)
    key_reset, key_steps = jax.random.split(key)
    observation, state = environment.reset(key_reset, params)
    noise, every = parts.family.draw_noise(key_steps, 1), evaluation.noise_steps(config)

    @jax.jit
    def step(observation: Array, state: Any, noise: Any, t: Array) -> tuple[Array, Any, Any, Array]:
        key_noise, key_action, key_env = jax.random.split(jax.random.fold_in(key_steps, t), 3)
        fresh = parts.family.draw_noise(key_noise, 1)
        noise = jax.tree.map(lambda new, old: jnp.where(t % every == 0, new, old), fresh, noise)
        is_deterministic = policy_mode == "deterministic"
        action = evaluation.act(policy, observation[None], noise, key_action, is_deterministic)[0]
        observation, state, _, terminated, truncated, _ = environment.transition(
            key_env, state, action, params
        )
        return observation, state, noise, terminated | truncated

    pictures = [render(state, params)]
    for t in range(MAX_FRAMES):
        observation, state, noise, ended = step(observation, state, noise, np.int32(t))
        pictures.append(render(state, params))
        if ended:
            break
    return pictures


def load_member(
    folder: Path | str,
    member: int,
    env: Any = None,
    network: Any = None,
    name: str = "member",
) -> tuple[Config, Hyper, TrainState]:
    """Settings and newest undamaged state of one seed, without a leading axis.

    Args:
        name: what the user calls `member`.

    Raises:
        InputError: no run folder, no checkpoint that can be read, or no such seed in it.
    """
    config, hyper, options, state, _ = load_state(folder, env, network)
    check_member(member, options.seeds, name)
    return config, hyper, jax.tree.map(lambda leaf: leaf[member], state)


def check_member(member: int, num_seeds: int, name: str = "member") -> None:
    """Refuse a seed that the run has not."""
    if not 0 <= member < num_seeds:
        raise InputError(
            f"{name}={member} is not among the run's {num_seeds} seeds (0 to {num_seeds - 1})."
        )


def run_policy(
    run: Path | str, *, seed_index: int = 0, env: Any = None, network: Any = None
) -> Callable[..., Array]:
    """The policy of a run folder as a plain function; `policies.load_policy` says what it takes."""
    config, _, member = load_member(run, seed_index, env, network, "seed_index")
    parts = trainer.assemble(config)
    acting = trainer.acting_policy(config, parts, member.params, member.observation_moments)
    shape = parts.environment.observation_shape

    @jax.jit
    def act(rows: Array, key: Array | None) -> Array:
        if key is None:
            return evaluation.act(acting, rows, (), None, is_deterministic=True)
        key_noise, key_action = jax.random.split(key)
        noise = acting.family.draw_noise(key_noise, rows.shape[0])
        return evaluation.act(acting, rows, noise, key_action, is_deterministic=False)

    def policy(observation: Any, key: Array | None = None) -> Array:
        observation = jnp.asarray(observation)
        if observation.shape == shape:
            return act(observation[None], key)[0]
        if observation.shape[1:] == shape:
            return act(observation, key)
        raise InputError(
            f"An observation of shape {observation.shape} does not fit: this policy takes one of "
            f"shape {shape}, or a batch [n, ...] of them."
        )

    return policy
