"""An iteration whose environments are stepped outside jax: the host asks, steps and hands over.

`draw` and `respond` are the policy's part of each step; `absorb` learns from all of them. They are
compiled one by one; between them the host steps the environments. All that follows the steps is
the code of `iterate`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config, Hyper
from ppo_jax.envs.actions import own_actions
from ppo_jax.envs.interface import Environment
from ppo_jax.kernels.collectives import ALONE
from ppo_jax.kernels.reductions import finite_or_zero, finite_rows
from ppo_jax.kernels.select import where_rows
from ppo_jax.models.agent import acting_policy, assemble, env_params
from ppo_jax.models.policy import Policy
from ppo_jax.rl.types import EnvCarry, EpisodeStats, Metrics, PyTree, Setting, TrainState
from ppo_jax.training.draws import Draws, draw_all
from ppo_jax.training.evaluation import draw_step
from ppo_jax.training.rollout import (
    choose,
    is_noise_due,
    lengthened,
    marked,
    no_episodes,
    over_environments,
    remembered,
    reset_all,
)
from ppo_jax.training.trainer import Experience, begin, learn_from
from ppo_jax.training.values import Record, valued


class Acting(NamedTuple):
    """The part of a state that acts."""

    params: PyTree
    moments: PyTree


class Hand(NamedTuple):
    """All that the policy keeps from one step to the next."""

    memory: PyTree  # [B, ...]
    noise: PyTree


class Seen(NamedTuple):
    """Observations that the host shows before a step."""

    observation: PyTree  # [B, ...], the environment's own
    begins: Any  # [B], bool, True at the first step of an episode


class Reply(NamedTuple):
    """The policy's answer to what it has seen."""

    own: PyTree  # [B, ...], actions in the environment's own form
    action: PyTree  # [B, ...], as sampled
    distribution: PyTree  # [B, *D]


class Steps(NamedTuple):
    """T steps of B environments, as the host has recorded them, in NumPy arrays."""

    observation: PyTree  # [T, B, ...], the environment's own, before each step
    final: PyTree  # [T, B, ...], the true successors
    action: PyTree  # [T, B, ...]
    distribution: PyTree  # [T, B, *D]
    reward: Any  # [T, B]
    terminated: Any  # [T, B]
    truncated: Any  # [T, B]
    following: PyTree  # [B, ...], the observation of the next step


def policy_of(config: Config, acting: Acting) -> Policy:
    """The policy that answers."""
    return acting_policy(config, assemble(config), acting.params, acting.moments)


def stored(environment: Environment, observation: PyTree) -> PyTree:
    """Observations [B, ...] of an environment's own as they are stored, [B, *O]."""
    assert environment.host is not None
    return jax.vmap(environment.host.encode)(observation)


def fresh(config: Config, hyper: Hyper[Any], state: TrainState) -> TrainState:
    """The state with a carry of episodes that have not begun; the host resets its environments."""
    environment = assemble(config).environment
    policy = policy_of(config, Acting(state.params, state.observation_moments))
    key = jax.random.fold_in(state.key, state.iteration)
    params = env_params(environment, hyper)
    carry = reset_all(environment, params, policy, state.discounted_return.shape[0], key)
    return state._replace(carry=carry, discounted_return=jnp.zeros_like(state.discounted_return))


def draw(config: Config, hyper: Hyper[Any], state: TrainState) -> tuple[Acting, Draws, Hand]:
    """The acting part of a state, random numbers [T, ...] of all steps, and the first hand."""
    _, keys = begin_alone(config, hyper, state)
    acting = Acting(state.params, state.observation_moments)
    policy = policy_of(config, acting)
    num_envs = state.discounted_return.shape[0]
    draws, _, _ = draw_all(policy.family, config.rollout_length, num_envs, keys[:-1])
    return acting, draws, Hand(remembered(policy, state.carry), state.carry.noise)


def begin_alone(config: Config, hyper: Hyper[Any], state: TrainState) -> tuple[Setting, Array]:
    """`begin` on one device."""
    return begin(config, hyper, state, ALONE)


def respond(
    config: Config, acting: Acting, draws: Draws, hand: Hand, seen: Seen, t: Array
) -> tuple[Reply, Hand]:
    """Act in step t of an iteration."""
    at_t = jax.tree.map(lambda leaf: leaf[t], draws)
    return reply(policy_of(config, acting), config, (hand, seen), at_t, is_noise_due(config, t))


def answer(
    config: Config, is_deterministic: bool, acting: Acting, hand: Hand, seen: Seen, when: Any
) -> tuple[Reply, Hand]:
    """Act in step t of an evaluation; `when` is its key and t."""
    policy = policy_of(config, acting)
    draws, is_due = draw_step(config, policy, seen.begins.shape[0], is_deterministic, *when)
    return reply(policy, config, (hand, seen), draws, is_due)


def reply(
    policy: Policy, config: Config, given: tuple[Hand, Seen], draws: Draws, is_due: Array
) -> tuple[Reply, Hand]:
    """Act on what was seen; an episode that begins has the memory of a start."""
    (hand, seen), environment = given, assemble(config).environment
    begins, memory = seen.begins, hand.memory
    if jax.tree.leaves(memory):
        memory = where_rows(begins, policy.network.start(policy.params, begins.shape[0]), memory)
    carry = EnvCarry(
        state=(),
        observation=stored(environment, seen.observation),
        episode_return=jnp.zeros(begins.shape),
        episode_length=jnp.zeros(begins.shape, jnp.int32),
        noise=hand.noise,
        memory=memory,
    )
    chosen = choose(policy, carry, draws, is_due)
    own = own_actions(environment, policy.to_env(chosen.action))
    kept = policy.family.keep(chosen.distribution)
    return Reply(own, chosen.action, kept), Hand(chosen.memory, chosen.noise)


def absorb(
    config: Config, hyper: Hyper[Any], state: TrainState, steps: Steps, hand: Hand
) -> tuple[TrainState, Metrics]:
    """The next state and the metrics of an iteration whose steps the host has taken.

    A refused update cannot take back the steps: the environments go on from where they are. The
    discounted returns start again at 0, because the kept state lacks the rewards of these steps.

    Args:
        hand: after the last step.
    """
    setting, keys = begin_alone(config, hyper, state)
    experience = experienced(config, state, steps, hand)
    learnt, metrics = learn_from(setting, state, experience, keys[-1])
    discounted = learnt.discounted_return * (1.0 - metrics["refused_fraction"])
    return learnt._replace(carry=experience.carry, discounted_return=discounted), metrics


def experienced(config: Config, state: TrainState, steps: Steps, hand: Hand) -> Experience:
    """The rollout of recorded steps with its values, as `rollout` has it."""
    environment = assemble(config).environment
    policy = policy_of(config, Acting(state.params, state.observation_moments))
    records = recorded(environment, policy, steps)
    before = state.carry._replace(memory=remembered(policy, state.carry))
    running, stats = episodes_of(before, records)
    carry = EnvCarry(
        state=(),
        observation=stored(environment, steps.following),
        episode_return=running[0],
        episode_length=running[1],
        noise=hand.noise,
        memory=hand.memory,
    )
    rollout, after = valued(config, policy, before, carry, records)
    after = after._replace(memory=sound_memory(policy, after.memory))
    return Experience(rollout, records.observation, after, stats)


def sound_memory(policy: Policy, memory: PyTree) -> PyTree:
    """A memory [B, ...] with a fresh one for each environment whose own is not finite.

    The steps of a refused update are not taken back, so one bad observation would spoil all that
    follow it in its episode. A network whose fresh memory is not finite keeps its own.
    """
    if not jax.tree.leaves(memory):
        return memory
    start = policy.network.start(policy.params, jax.tree.leaves(memory)[0].shape[0])
    return where_rows(~finite_rows(memory) & finite_rows(start), start, memory)


def recorded(environment: Environment, policy: Policy, steps: Steps) -> Record:
    """Recorded steps as the scan of a rollout keeps them."""
    before, final = (
        jax.vmap(lambda rows: stored(environment, rows))(rows)
        for rows in (steps.observation, steps.final)
    )
    records = Record(
        observation=before,
        observation_final=final,
        action=steps.action,
        distribution=steps.distribution,
        reward=steps.reward,
        terminated=steps.terminated,
        truncated=steps.truncated & ~steps.terminated,
    )
    if not policy.drops_bad:
        return records
    return records._replace(**jax.vmap(marked)(steps.reward, (final, before)))


def episodes_of(before: EnvCarry, records: Record) -> tuple[tuple[Array, Array], EpisodeStats]:
    """Return and length [B] of the running episodes, and sums over those that ended.

    An unknown reward counts as 0, as its update is refused and its episode may go on.
    """
    ended = records.terminated | records.truncated
    stats = no_episodes(ended.shape[1])

    def one(loop: Any, row: tuple[Array, Array]) -> tuple[Any, None]:
        running, stats = loop
        return lengthened(running, stats, *row), None

    start = ((before.episode_return, before.episode_length), stats)
    (running, stats), _ = jax.lax.scan(one, start, (finite_or_zero(records.reward), ended))
    return running, over_environments(stats)
