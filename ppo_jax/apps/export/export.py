"""Export of a trained policy, refused unless the artefact acts as the run's own policy does."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.apps.export import (
    layers,
    numpy_cores,
    numpy_policy,
    onnx_policy,
    stablehlo_policy,
    target,
)
from ppo_jax.apps.export.cores import named_memory, start_memory, unnamed_memory
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.config.reading import as_path
from ppo_jax.config.trust import Trust
from ppo_jax.distributed import door, hosted
from ppo_jax.envs import leaves
from ppo_jax.envs.actions import action_form, counts_and_reals, own_actions
from ppo_jax.envs.interface import ACTION_MASK, Environment, action_mask, actor_view, has_views
from ppo_jax.kernels.select import where_rows
from ppo_jax.models.agent import (
    Agent,
    acting_policy,
    assemble,
    env_params,
    has_memory,
    without_critic,
)
from ppo_jax.models.policy import Policy
from ppo_jax.rl.types import TrainState, Window
from ppo_jax.runtime import devices
from ppo_jax.runtime.saved_run import check_member, load_state
from ppo_jax.storage import run_folder
from ppo_jax.storage.files import write_atomic, write_folder_atomic
from ppo_jax.training import evaluation, rollout, schedules
from ppo_jax.training import hosted as hosted_training

TOLERANCE = 1e-5  # for an action, relative if it is larger than 1; for a logit
NUM_ENVS, NUM_STEPS = 8, 128  # size of the rollout whose observations are compared

Act = Callable[..., Any]

_TAIL = """

act = load(Path(__file__).with_name("policy.npz"))

if __name__ == "__main__":
    print(act.__doc__)
"""


class Artefact(NamedTuple):
    """An exported policy before it is written."""

    content: bytes | dict[str, bytes]  # a file, or a folder's files by name
    # inputs by name, [n, *O] each -> actions in the environment's own form, [n, ...]; with a memory
    # (inputs, memory) -> (actions, memory)
    act: Act
    start: dict[str, np.ndarray] | None  # the memory of a new episode


class Agreement(NamedTuple):
    """The comparison of an artefact's actions with the policy's own."""

    num_observations: int
    largest_difference: float  # in an action, or between the chosen and the best logit


def export(
    run: Path | str,
    *,
    format: str | None = None,
    out: Path | str | None = None,
    member: int = 0,
    checkpoint: str | int = "newest",
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
) -> dict[str, Any]:
    """Write one member's deterministic policy as an artefact that needs no training code.

    Args:
        run: a run folder. member: which of its seeds, counted from 0.
        format: `numpy` (a folder with policy.py and policy.npz), `stablehlo` or `onnx` (a file);
            None follows the end of `out`.
        out: what to make; None for `policy-MEMBER` in the run's folder.
        checkpoint: "newest"; "best" for the one with the best evaluation in training (IQM over
            the seeds); or the environment steps of one that is kept.
        env, network: the same Python objects again, if the run was trained with objects.
        trust: True to load the programs that the run names, or a list of them; a run of this user
            on this machine needs none.

    Returns:
        the content that `ppo-jax export --json` prints.

    Raises:
        InputError: no such run, member or checkpoint, a format that cannot hold its network, or an
            artefact whose actions differ from ours by more than 1e-5: nothing is left behind.
    """
    run = as_path("run", run)
    format, out = target.choose(run, member, format, None if out is None else as_path("out", out))
    {"onnx": onnx_policy.require, "stablehlo": stablehlo_policy.require}.get(format, tuple)()
    devices.prepare_jax(RunOptions())
    config, hyper, options, saved, metadata = load_state(run, env, network, trust, checkpoint)
    check_member(member, options.seeds)
    state = jax.tree.map(lambda leaf: leaf[member], saved)
    parts = assemble(config)
    world = env_params(parts.environment, schedules.resolve(hyper, jnp.ones(())))
    policy = acting_policy(config, parts, state.params, state.observation_moments, world)
    parts, policy = without_critic(config, parts, policy)
    artefact = build_artefact(format, config, parts, policy)
    if artefact.start is None:
        rows = recorded_observations(config, hyper, state)
        agreement = compare(parts.environment, policy, artefact.act, rows)
    else:
        steps = record(config, hyper, state)
        agreement = compare_along(parts.environment, policy, artefact, steps)
    refuse_disagreement(agreement, format, config.precision)
    write_artefact(out, artefact)
    return {
        "run": str(run),
        "env": run_folder.env_name(config),
        "env_steps": metadata["env_steps"],
        "member": member,
        "alive": bool(state.alive),
        "format": format,
        "out": str(out),
        "num_observations": agreement.num_observations,
        "largest_difference": agreement.largest_difference,
    }


def build_artefact(format: str, config: Config, parts: Agent, policy: Policy) -> Artefact:
    """The bytes of a member's policy in one format, and its actions as read from these bytes."""
    if format == "stablehlo":
        environment = parts.environment
        start = start_memory(policy) if has_memory(parts.network) else None

        def ours(rows: dict[str, jax.Array], memory: Any = None) -> Any:
            stored = jax.vmap(partial(leaves.to_stored, environment))(rows)
            before = () if memory is None else {"actor": unnamed_memory(policy, memory)}
            after, action = evaluation.act(policy, before, stored, noise=(), key=None)
            own = own_actions(environment, action)
            return own if memory is None else (own, named_memory(after["actor"]))

        shapes = {name: tuple(space.shape) for name, space in leaves.shown(environment).items()}
        program = stablehlo_policy.build(ours, shapes, leaves.mask_size(environment), start)
        act, _, _, start = stablehlo_policy.load(program)
        return Artefact(program, act, start)
    name = run_folder.env_name(config)
    plain = layers.describe_network(config, parts, policy, name)
    if format == "onnx":
        model = onnx_policy.build(plain)
        act, _, _, start = onnx_policy.load(model)
        return Artefact(model, act, start)
    numbers = layers.npz_bytes(plain)
    contents = {"policy.npz": numbers, "policy.py": reader().encode()}
    act = partial(numpy_policy.actions, plain.description, plain.arrays)
    return Artefact(contents, act, numpy_policy.start_of(plain.description, plain.arrays))


def reader() -> str:
    """The source of `numpy_policy` as a file that needs NumPy alone."""
    cores = inspect.getsource(numpy_cores).partition("import numpy as np\n")[2]
    before, line, after = inspect.getsource(numpy_policy).partition("from ppo_jax.")
    assert line, "numpy_policy imports numpy_cores"
    return before + cores.strip() + "\n\n" + after.partition("\n")[2] + _TAIL


def refuse_disagreement(agreement: Agreement, format: str, precision: str) -> None:
    """Refuse an artefact that acts otherwise than the run's policy."""
    if agreement.largest_difference <= TOLERANCE:
        return
    remedy = "" if precision == "float32" else ", or train with --precision float32"
    raise InputError(
        f"format {format!r} was not written: its actions differ from the run's by "
        f"{agreement.largest_difference:.2g} on {agreement.num_observations} recorded "
        f"observations, more than {TOLERANCE:g}: use another format{remedy}."
    )


def write_artefact(out: Path, artefact: Artefact) -> None:
    """Write a file, or a folder of files, in one step."""
    try:
        if isinstance(artefact.content, bytes):
            write_atomic(out, artefact.content)
        else:
            write_folder_atomic(out, artefact.content)
    except OSError as error:
        raise InputError(
            f"out={str(out)!r} cannot be written ({error.strerror}): name another place."
        ) from error


class Record(NamedTuple):
    """Observations of a rollout from fresh starts."""

    observation: Any  # [T, B, *O], as stored
    begins: np.ndarray  # [T, B] bool, True where an episode begins


def record(config: Config, hyper: Hyper, state: TrainState) -> Record:
    """The raw observations that the sampled policy of a member meets from fresh starts."""
    short = dataclasses.replace(config, num_envs=NUM_ENVS, rollout_length=NUM_STEPS)
    parts = assemble(config)
    params = env_params(parts.environment, schedules.resolve(hyper, jnp.ones(())))
    if parts.environment.host is not None:
        like = state._replace(discounted_return=jnp.zeros(NUM_ENVS))
        observation, ended = hosted.record(short, hyper, hosted_training.fresh(short, hyper, like))
        return Record(observation, np.concatenate([np.ones_like(ended[:1]), ended[:-1]]))

    @jax.jit
    def play(state: TrainState) -> tuple[Any, jax.Array]:
        policy = acting_policy(config, parts, state.params, state.observation_moments, params)
        key_start, key_steps = jax.random.split(jax.random.fold_in(state.key, 2**32 - 2))
        start = rollout.reset_all(parts.environment, params, policy, NUM_ENVS, key_start)
        _, steps, observation, _ = rollout.rollout(
            short, parts.environment, params, policy, start, key_steps
        )
        return observation, steps.terminated | steps.truncated

    observation, ended = door.fetch(play(state))
    return Record(observation, np.concatenate([np.ones_like(ended[:1]), ended[:-1]]))


def recorded_observations(config: Config, hyper: Hyper, state: TrainState) -> Any:
    """The observations of `record` as rows [n, *O]."""
    steps = record(config, hyper, state)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps.observation)


def artefact_rows(environment: Environment, observation: Any) -> dict[str, np.ndarray]:
    """Stored observations [n, *O] as an artefact takes them: by name, as the environment shows."""
    found, stored = {}, leaves.named(observation)  # maybe with the critic's part, too
    for name, space in leaves.shown(environment).items():
        rows = np.asarray(stored[name], np.float32)
        if space.is_number:
            rows = (rows.argmax(axis=1) + np.float32(space.low)).astype(np.float32)
        found[name] = rows.reshape(len(rows), *space.shape)
    mask = action_mask(observation)
    return found if mask is None else {**found, ACTION_MASK: np.asarray(mask)}


def compare(environment: Environment, policy: Policy, theirs: Act, observation: Any) -> Agreement:
    """Actions of an artefact next to the policy's own, without a memory.

    Args:
        observation: stored ones, [n, *O].
    """
    found = theirs(artefact_rows(environment, observation))
    act = jax.jit(lambda x: policy.network.policy(policy.params, Window(policy.see(x))))
    seen = like(environment, observation)
    return measure(environment, policy, found, act(jax.tree.map(jnp.asarray, seen)))


def like(environment: Environment, observation: Any) -> Any:
    """Stored observations with the parts that `environment` declares."""
    has_all = has_views(environment.observation) or not has_views(observation)
    return observation if has_all else actor_view(observation)


def compare_along(
    environment: Environment, policy: Policy, artefact: Artefact, steps: Record
) -> Agreement:
    """The same along whole episodes; each side carries its own memory, which they begin anew."""
    assert artefact.start is not None
    act = jax.jit(lambda memory, x: policy.network.act(policy.params, memory, policy.see(x)))
    start = policy.network.start(policy.params, NUM_ENVS)
    fresh = {name: np.repeat(leaf[None], NUM_ENVS, axis=0) for name, leaf in artefact.start.items()}
    ours, theirs, found = start, fresh, []
    for t, begins in enumerate(steps.begins):
        observation = jax.tree.map(lambda leaf, t=t: leaf[t], steps.observation)
        ours = where_rows(jnp.asarray(begins), start, ours)
        seen = like(environment, observation)
        ours, distribution = act(ours, jax.tree.map(jnp.asarray, seen))
        theirs = door.fetch(where_rows(jnp.asarray(begins), fresh, theirs))
        action, theirs = artefact.act(artefact_rows(environment, observation), theirs)
        found.append((action, door.fetch(distribution)))
    action, distribution = jax.tree.map(lambda *each: np.concatenate(each), *found)
    return measure(environment, policy, action, distribution)


def measure(environment: Environment, policy: Policy, found: Any, distribution: Any) -> Agreement:
    """The distance of actions [n, ...] from the modes of distributions.

    Continuous actions are compared as numbers, relative to those larger than 1. Counted
    actions may be equally good to rounding, so the logit of each choice is compared with the best
    one. Actions of another shape or kind differ by infinity, NaN by NaN.
    """
    num_rows = jax.tree.leaves(distribution)[0].shape[0]
    action = policy.to_env(policy.family.mode(distribution))
    ours = jax.tree.map(np.asarray, own_actions(environment, action))
    if _kinds(found) != _kinds(ours):
        return Agreement(num_rows, float("inf"))
    worst, form = 0.0, action_form(environment)
    pairs = [counts_and_reals(form, tree) for tree in (found, ours)]
    (counts, reals), (_, own_reals) = pairs
    if policy.family.num_reals:
        size = np.maximum(1.0, np.abs(own_reals))
        worst = float(np.max(np.abs(reals - own_reals) / size))
    if policy.family.dials:
        logits = distribution.discrete if policy.family.num_reals else distribution
        worst = max(worst, _lost(policy.family.dials, np.asarray(logits.logits), counts))
    return Agreement(num_rows, worst)


def _kinds(action: Any) -> Any:
    """Structure, shapes and kinds of an action's arrays."""
    flat, treedef = jax.tree.flatten(action)
    return treedef, [(np.shape(leaf), np.asarray(leaf).dtype.kind) for leaf in flat]


def _lost(dials: tuple[int, ...], logits: np.ndarray, counts: np.ndarray) -> float:
    """The largest distance of a chosen logit from the best one of its dial."""
    groups = np.split(logits, np.cumsum(dials)[:-1], axis=1)
    lost = [0.0]
    for n, group, chosen in zip(dials, groups, counts.T.astype(int), strict=True):
        if chosen.min() < 0 or chosen.max() >= n:
            return float("inf")
        own = np.take_along_axis(group, chosen[:, None], axis=1)[:, 0]
        lost.append(float(np.max(group.max(axis=1) - own)))
    return max(lost)
