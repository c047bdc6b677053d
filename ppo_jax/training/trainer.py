"""The trainer as pure functions: `init`, `iterate`, and `train`, which is a scan of it."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import TRUST_REGION, Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.validate import check_order, validate
from ppo_jax.kernels.collectives import ALONE, Across
from ppo_jax.kernels.reductions import all_finite, finite_or_zero, finite_rows
from ppo_jax.models.agent import acting_policy, assemble, env_params
from ppo_jax.models.policy import Policy
from ppo_jax.rl import moments
from ppo_jax.rl.metrics import SUM, reduction_of
from ppo_jax.rl.ratios import Ratios, measure_ratios, ratio_metrics
from ppo_jax.rl.surrogates import adapted_factor
from ppo_jax.rl.types import (
    Adapted,
    Batch,
    EnvCarry,
    EpisodeStats,
    Metrics,
    Moments,
    PyTree,
    Rollout,
    Scalar,
    Setting,
    TrainState,
)
from ppo_jax.training import objectives, schedules
from ppo_jax.training.batch import Tally, batch_metrics, make_batch, scale_rewards
from ppo_jax.training.draws import require_key
from ppo_jax.training.natural_gradient import trust_region_update
from ppo_jax.training.optimizer import init_optimizer
from ppo_jax.training.rollout import reset_all, rollout
from ppo_jax.training.update import Learner, minibatch_updates, summarise

# Refused updates that an accepted one makes good. One batch may fail by chance; a state that most
# batches cannot update will not recover. Three refusals in a row freeze by default.
FORGIVEN = 2
LAST_ITERATION = 2**31 - 1  # the counter stays there, so that schedules keep their end

NUM_KEYS = 5  # keys of an iteration: four of its rollout, one of its update


def iterate(
    config: Config, hyper: Hyper[Any], state: TrainState, across: Across = ALONE
) -> tuple[TrainState, Metrics]:
    """One iteration. Pure: jit it, vmap it over `state` (seeds) and `hyper` (settings).

    With `across`, `state` holds one device's share of the environments, and all else is equal on
    every device.

    Returns:
        the next state and the iteration's metrics, each a scalar.
    """
    check_order(config, hyper)
    _require_state(state)
    setting, keys = begin(config, hyper, state, across)
    experience = collect(setting, state, keys[..., :-1])
    return learn_from(setting, state, experience, keys[..., -1])


def _require_state(state: Any) -> None:
    if not isinstance(state, TrainState):
        raise InputError(
            f"iterate takes a state of ppo_jax.init or of an iteration before, and not a "
            f"{type(state).__name__}: give such a state."
        )


def learn_from(
    setting: Setting, state: TrainState, experience: Experience, key: Array
) -> tuple[TrainState, Metrics]:
    """The second part of an iteration: from its steps, wherever they were taken."""
    estimates = estimate(setting, state, experience)
    proposal = update(setting, state, experience, estimates, key)
    return guard(setting.hyper, state, proposal)


def begin(
    config: Config, hyper: Hyper[Any], state: TrainState, across: Across
) -> tuple[Setting, Array]:
    """An iteration's setting, with every schedule's value, and its keys, see `iteration_keys`."""
    now = schedules.resolve(hyper, schedules.progress(config, hyper, state.iteration))
    return Setting(config, now, across), iteration_keys(state, across)


class Experience(NamedTuple):
    """One iteration's rollout, and the state after it."""

    rollout: Rollout  # [T, B]
    observation: PyTree  # [T, B, *O], raw, for the normaliser
    carry: EnvCarry
    episodes: EpisodeStats


class Estimates(NamedTuple):
    """The samples of an iteration with their advantages, and updated statistics of the rewards."""

    batch: Batch  # [N]
    tally: Tally
    discounted_return: Array  # [B]
    return_moments: Moments


class Proposal(NamedTuple):
    """The state that an update would write."""

    state: TrainState
    metrics: Metrics
    is_sound: Array  # [], bool; False if a number in it, or an observation, is not finite


def collect(setting: Setting, state: TrainState, keys: Array) -> Experience:
    """Roll out under frozen parameters; keys [..., 4] are the first of `iteration_keys`."""
    config, hyper, _ = setting
    agent = assemble(config)
    world = env_params(agent.environment, hyper)
    policy = acting_policy(config, agent, state.params, state.observation_moments, world)
    carry, steps, observation, episodes = rollout(
        config, agent.environment, world, policy, state.carry, keys
    )
    return Experience(steps, observation, carry, episodes)


def estimate(setting: Setting, state: TrainState, experience: Experience) -> Estimates:
    """Scale the rewards, estimate advantages, and cut the rollout into samples."""
    config, hyper, across = setting
    reward, discounted_return, return_moments = scale_rewards(
        config, hyper, state, experience.rollout, across
    )
    batch, tally = make_batch(
        config, hyper, experience.rollout, reward, experience.episodes, across
    )
    return Estimates(batch, tally, discounted_return, return_moments)


def update(
    setting: Setting, state: TrainState, experience: Experience, estimates: Estimates, key: Array
) -> Proposal:
    """Update the parameters from the batch, and the normaliser's moments.

    Gathers the statistics that each device has of its own rollout in one collective.
    """
    config, hyper, across = setting
    learner, kl_coef, metrics, ratios = learn(setting, state, estimates.batch, key)
    fresh = ()
    if config.normalize_observations:
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), experience.observation)
        fresh = moments_of(config, rows)
    is_real = all_finite(real_numbers(config, experience.carry.observation)) * 1.0
    tallies, ratios, fresh, is_real = across.gather((estimates.tally, ratios, fresh, is_real))
    observation_moments = state.observation_moments
    if config.normalize_observations:  # merged only now: frozen while the ratio depends on them
        observation_moments = moments.merge(observation_moments, moments.combined(fresh))
    learnt = state._replace(
        params=learner.params,
        opt_state=learner.opt_state,
        observation_moments=observation_moments,
        return_moments=estimates.return_moments,
        adapted=Adapted(kl_coef, learner.rate),
        discounted_return=estimates.discounted_return,
        carry=experience.carry,
    )
    metrics = {
        **metrics,
        **ratio_metrics(ratios),
        **batch_metrics(tallies),
        "learning_rate": learner.rate * hyper.learning_rate,
        "kl_coef": kl_coef * hyper.kl_coef,
    }
    is_sound = all_finite(must_be_finite(learnt, metrics)) & jnp.all(is_real == 1.0)
    return Proposal(learnt, metrics, is_sound)


def guard(
    hyper: Hyper[Scalar], state: TrainState, proposal: Proposal
) -> tuple[TrainState, Metrics]:
    """Accept a proposal, or refuse all of it if it is not sound; the next iteration has new draws.

    Refusals are counted against acceptances. At `max_failures` of them the state is no longer
    `alive`. It keeps the state before the last one, so that `debug` can repeat that update.
    """
    learnt, metrics, is_sound = proposal
    is_sound = is_sound & state.alive
    forgiven = jnp.maximum(state.failures - FORGIVEN, 0)
    failures = jnp.where(is_sound, forgiven, state.failures + state.alive)
    alive = state.alive & (failures < hyper.max_failures)
    kept = jax.lax.cond(is_sound, lambda new, old: new, lambda new, old: old, learnt, state)
    episodes = [name for name in metrics if reduction_of(name) == SUM]
    metrics |= {name: jnp.where(is_sound, metrics[name], 0.0) for name in episodes}
    metrics |= {"alive": alive * 1.0, "refused_fraction": 1.0 - is_sound}
    iteration = jnp.minimum(state.iteration, LAST_ITERATION - 1) + alive
    return kept._replace(iteration=iteration, alive=alive, failures=failures), metrics


def learn(
    setting: Setting, state: TrainState, batch: Batch, key: Array
) -> tuple[Learner, Array, Metrics, Ratios]:
    """Run the objective's update.

    Args:
        batch: this device's N samples. key: of the minibatches, [] or [blocks].

    Returns:
        The learner, the factor on `kl_coef` [], metrics [] by name, and this device's ratios.
    """
    config, hyper, _ = setting
    agent = assemble(config)
    learner = Learner(
        state.params, state.opt_state, state.adapted.learning_rate, jnp.ones((), bool)
    )
    if config.objective in TRUST_REGION:
        learner, metrics, ratios = trust_region_update(
            setting, agent.network, agent.family, learner, batch, key
        )
        return learner, state.adapted.kl_coef, metrics, ratios
    hyper = dataclasses.replace(hyper, kl_coef=state.adapted.kl_coef * hyper.kl_coef)
    bound = {"hyper": hyper, "config": config, "network": agent.network, "family": agent.family}
    loss = partial(objectives.minibatch_loss, **bound)
    probe = None
    if config.measure_gradient_cosine:
        named = {"setting": setting, "network": agent.network, "family": agent.family}
        probe = partial(objectives.gradient_cosine, **named)
    found = minibatch_updates(setting, loss, learner, batch, key, probe)
    kl_coef = adapted_factor(state.adapted.kl_coef, found.kl, hyper.kl_target, 2.0, 1.5)
    log_ratio, active = jnp.asarray(found.log_ratio), found.diagnostics["active"]
    ratios = measure_ratios(hyper, log_ratio, active, found.weight)
    learner = Learner(found.params, found.opt_state, found.rate, learner.active)
    return learner, kl_coef, summarise(found.diagnostics), ratios


def sample(
    config: Config, hyper: Hyper[Any], state: TrainState, across: Across = ALONE
) -> tuple[Experience, Estimates]:
    """The first half of an iteration."""
    setting, keys = begin(config, hyper, state, across)
    experience = collect(setting, state, keys[..., :-1])
    return experience, estimate(setting, state, experience)


def propose(
    config: Config, hyper: Hyper[Any], state: TrainState, across: Across = ALONE
) -> Proposal:
    """An iteration without its guard, for diagnosis."""
    setting, keys = begin(config, hyper, state, across)
    experience = collect(setting, state, keys[..., :-1])
    estimates = estimate(setting, state, experience)
    return update(setting, state, experience, estimates, keys[..., -1])


def must_be_finite(learnt: TrainState, metrics: Metrics) -> PyTree:
    """Numbers that must be finite before an update is written.

    A gradient whose norm overflows is clipped to 0: it stays finite, and learns nothing.
    """
    return (
        learnt.params,
        learnt.opt_state,
        learnt.observation_moments,
        learnt.return_moments,
        metrics["grad_norm"],
    )


def moments_of(config: Config, rows: PyTree) -> Moments:
    """Moments of observations [N, *O], of the finite ones only if the others are left out."""
    if not config.drop_bad_transitions:
        return moments.from_batch(rows)
    return moments.from_batch(finite_or_zero(rows), finite_rows(rows) * 1.0)


def real_numbers(config: Config, observation: PyTree) -> PyTree:
    """The real numbers of observations, which must not be NaN; infinities are returned as 0.

    An environment may show infinity on purpose; a NaN is an error, unless it is left out.
    """
    if config.drop_bad_transitions:
        return jnp.zeros(1)
    leaves = [x for x in jax.tree.leaves(observation) if jnp.issubdtype(x.dtype, jnp.floating)]
    return [jnp.where(jnp.isinf(leaf), 0.0, leaf) for leaf in leaves]


def init(config: Config, hyper: Hyper[Any], key: Array, num_envs: int | None = None) -> TrainState:
    """The state before the first iteration.

    Args:
        key: typed PRNG key; all randomness of the run follows from it.
        num_envs: environments held by this state (default: all of `config.num_envs`); fewer if
            one seed's environments are spread over devices.
    """
    check_order(config, hyper)
    require_key(key)
    agent = assemble(config)
    num_envs = config.num_envs if num_envs is None else num_envs
    key_params, key_envs, key_run = jax.random.split(key, 3)
    first = schedules.resolve(hyper, jnp.zeros(()))
    params = agent.network.init(key_params, first.log_std_init)
    policy = Policy(agent.network, agent.family, params, None)
    carry = reset_all(
        agent.environment, env_params(agent.environment, first), policy, num_envs, key_envs
    )
    return TrainState(
        key=key_run,
        iteration=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=init_optimizer(config, first, params),
        observation_moments=moments.init(agent.environment.observation),
        return_moments=moments.init(),
        discounted_return=jnp.zeros(num_envs),
        carry=carry,
        adapted=Adapted(jnp.ones(()), jnp.ones(())),
        alive=jnp.ones((), bool),
        failures=jnp.zeros((), jnp.int32),
    )


def train(config: Config, hyper: Hyper[Any], key: Array) -> tuple[TrainState, Metrics]:
    """A whole run as one pure function; jit it, vmap it over `key` and `hyper`.

    Its metrics hold one row per iteration, [num_iterations] each, so it is for short runs; `run`
    is for long ones. The budget is rounded up to whole iterations (`config.trained_env_steps`).
    """
    validate(config, hyper)
    state = init(config, hyper, key)
    return jax.lax.scan(
        lambda state, _: iterate(config, hyper, state), state, length=config.num_iterations
    )


def iteration_keys(state: TrainState, across: Across = ALONE) -> Array:
    """The iteration's keys [5], four of its rollout and one of its update.

    If this device holds several blocks of environments, each has its own: [blocks, 5]. One call of
    the generator draws all of them: on a CPU every call is a loop of a dozen kernels.
    """
    fold_in = jax.vmap(jax.random.fold_in, (None, 0))
    numbers = NUM_KEYS * state.iteration + jnp.arange(NUM_KEYS)
    if across.blocks > 1:
        turns = state.iteration * across.blocks + across.own_blocks
        numbers = (NUM_KEYS * turns[:, None] + jnp.arange(NUM_KEYS)[None]).reshape(-1)
    keys = fold_in(state.key, numbers)
    return keys if keys.shape == (NUM_KEYS,) else keys.reshape(-1, NUM_KEYS)
