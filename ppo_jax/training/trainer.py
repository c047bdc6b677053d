"""The trainer as pure functions: `init`, `iterate`, and `train`, which is a scan of it."""

from __future__ import annotations

import dataclasses
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.validate import validate
from ppo_jax.envs import registration
from ppo_jax.envs.interface import Environment
from ppo_jax.kernels import collectives
from ppo_jax.models.network import Network, make_network
from ppo_jax.models.policy_head import Family
from ppo_jax.rl import moments
from ppo_jax.rl.surrogates import adapted_factor
from ppo_jax.rl.types import Adapted, Batch, EnvCarry, Metrics, Moments, PyTree, TrainState
from ppo_jax.training import batch as batches
from ppo_jax.training import natural_gradient, objectives, schedules, update
from ppo_jax.training.rollout import Policy, reset_all, rollout

# Refused updates in a row after which a state is frozen. Chance may spoil one batch; a state that
# three batches in a row cannot move will not recover.
MAX_FAILURES = 3

NUM_KEYS = 5  # of an iteration: four of its rollout, one of its improvement


class Parts(NamedTuple):
    """The static pieces that a `Config` names."""

    environment: Environment
    network: Network
    family: Family


def assemble(config: Config) -> Parts:
    """Find the environment and build the network that `config` names; refuses what does not fit."""
    try:
        hash(config)
    except TypeError:  # an environment object that holds arrays, such as a Box's bounds
        return _assemble.__wrapped__(config.env, config)
    return _assemble(config.env, config)


@lru_cache(maxsize=64)
def _assemble(env: object, config: Config) -> Parts:
    # Also where this is first asked for while something is traced: the environment is kept, and its
    # constants must be numbers, not part of that trace.
    with jax.ensure_compile_time_eval():
        environment = registration.make(env)
    network, family = make_network(config, environment.observation_shape, environment.action_space)
    objectives.find_surrogate(config)  # refuses now what is no drift
    return Parts(environment, network, family)


def env_params(environment: Environment, hyper: Hyper) -> PyTree:
    """The environment's parameters with the run's own values put in."""
    return environment.override(environment.default_params, dict(hyper.env))


def acting_policy(config: Config, parts: Parts, params: PyTree, stats: Moments) -> Policy:
    """The policy of a state: the parameters together with the normaliser they were trained with."""
    seen = stats if config.normalize_observations else None
    return Policy(parts.network, parts.family, params, seen)


def init(config: Config, hyper: Hyper, key: Array, num_envs: int | None = None) -> TrainState:
    """The state before the first iteration.

    Args:
        key: typed PRNG key; all randomness of the run follows from it.
        num_envs: environments held by this state (default: all of `config.num_envs`); fewer where
            one seed's environments are spread over devices.
    """
    parts = assemble(config)
    num_envs = config.num_envs if num_envs is None else num_envs
    key_params, key_envs, key_run = jax.random.split(key, 3)
    first = schedules.resolve(hyper, jnp.zeros(()))
    params = parts.network.init(key_params, first.log_std_init)
    carry = reset_all(
        parts.environment, env_params(parts.environment, first), parts.family, num_envs, key_envs
    )
    return TrainState(
        key=key_run,
        iteration=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=update.init_optimiser(params),
        observation_moments=moments.init(parts.environment.observation_shape),
        return_moments=moments.init(()),
        discounted_return=jnp.zeros(num_envs),
        carry=carry,
        adapted=Adapted(jnp.ones(()), jnp.ones(())),
        alive=jnp.ones((), bool),
        failures=jnp.zeros((), jnp.int32),
    )


def iterate(
    config: Config, hyper: Hyper, state: TrainState, axis_name: str | None = None
) -> tuple[TrainState, Metrics]:
    """One iteration: roll out, estimate advantages, improve.

    Pure: jit it, vmap it over `state` (seeds) and `hyper` (settings). With `axis_name`, `state`
    holds one device's share of the environments and all else is equal on every device.

    Returns:
        the next state and the iteration's metrics, each a scalar.
    """
    keys = iteration_keys(state, axis_name)
    experience = collect(config, hyper, state, axis_name, keys)
    return learn(config, hyper, state, experience, axis_name, keys)


class Experience(NamedTuple):
    """What one iteration's rollout brings home."""

    batch: Batch  # [N]
    observation: Array  # [N, *O], raw, for the normaliser
    carry: EnvCarry
    discounted_return: Array  # [B]
    return_moments: Moments
    tally: batches.Tally


def collect(
    config: Config,
    hyper: Hyper,
    state: TrainState,
    axis_name: str | None = None,
    keys: Array | None = None,
) -> Experience:
    """The first half of an iteration: rollout and advantages, under frozen parameters.

    Args:
        keys: `iteration_keys(state, axis_name)`, where they are there already.
    """
    parts = assemble(config)
    keys = iteration_keys(state, axis_name) if keys is None else keys
    now = schedules.resolve(hyper, schedules.progress(config, hyper, state.iteration))
    carry, steps, observation, episodes = rollout(
        config,
        parts.environment,
        env_params(parts.environment, now),
        acting_policy(config, parts, state.params, state.observation_moments),
        state.carry,
        keys[:-1],
    )
    reward, discounted_return, return_moments = batches.scaled_rewards(
        config, now, state, steps, axis_name
    )
    batch, tally = batches.make_batch(config, now, steps, reward, episodes, axis_name)
    return Experience(
        batch=batch,
        observation=observation.reshape(-1, *observation.shape[2:]),
        carry=carry,
        discounted_return=discounted_return,
        return_moments=return_moments,
        tally=tally,
    )


def learn(
    config: Config,
    hyper: Hyper,
    state: TrainState,
    experience: Experience,
    axis_name: str | None = None,
    keys: Array | None = None,
) -> tuple[TrainState, Metrics]:
    """The second half of an iteration: better parameters from the batch.

    Where any number of what would be learnt is not finite, nothing of the iteration is taken over,
    and the next one draws anew. After MAX_FAILURES such iterations in a row the state is no longer
    `alive` and stays for ever as it went into the last of them, which can so be made again.

    Args:
        keys: `iteration_keys(state, axis_name)`, where they are there already.
    """
    learnt, metrics, is_seen = proposed(config, hyper, state, experience, axis_name, keys)
    is_sound = all_finite(must_be_finite(learnt, metrics)) & is_seen & state.alive
    failures = jnp.where(is_sound, 0, state.failures + state.alive)
    alive = state.alive & (failures < MAX_FAILURES)
    kept = jax.lax.cond(is_sound, lambda new, old: new, lambda new, old: old, learnt, state)
    episodes = ("num_episodes", "episode_return_sum", "episode_length_sum")
    metrics |= {name: jnp.where(is_sound, metrics[name], 0.0) for name in episodes}
    metrics |= {"alive": alive * 1.0, "refused_fraction": 1.0 - is_sound}
    iteration = state.iteration + alive
    return kept._replace(iteration=iteration, alive=alive, failures=failures), metrics


def proposed(
    config: Config,
    hyper: Hyper,
    state: TrainState,
    experience: Experience,
    axis_name: str | None = None,
    keys: Array | None = None,
) -> tuple[TrainState, Metrics, Array]:
    """The state that would be learnt from a batch, its metrics, and whether no device saw a NaN.

    What devices know of their own rollouts they tell each other here, all in one exchange.
    """
    keys = iteration_keys(state, axis_name) if keys is None else keys
    now = schedules.resolve(hyper, schedules.progress(config, hyper, state.iteration))
    params, opt_state, adapted, metrics, ratios = improved(
        config, now, state, experience.batch, keys[-1], axis_name
    )
    is_normalised = config.normalize_observations
    seen = moments.from_batch(experience.observation) if is_normalised else ()
    is_real = all_finite(real_numbers(experience.carry.observation))
    told = collectives.gathered((experience.tally, ratios, seen, is_real * 1.0), axis_name)
    tallies, ratios, seen, is_real = told
    observation_moments = state.observation_moments
    if is_normalised:  # merged only now: frozen while the ratio depends on them
        observation_moments = moments.merge(observation_moments, moments.combined(seen))
    learnt = state._replace(
        params=params,
        opt_state=opt_state,
        observation_moments=observation_moments,
        return_moments=experience.return_moments,
        adapted=adapted,
        discounted_return=experience.discounted_return,
        carry=experience.carry,
    )
    metrics = {
        **metrics,
        **update.ratio_metrics(ratios),
        **batches.metrics(tallies),
        "learning_rate": adapted.learning_rate * now.learning_rate,
        "kl_coef": adapted.kl_coef * now.kl_coef,
    }
    return learnt, metrics, jnp.all(is_real == 1.0)


def must_be_finite(learnt: TrainState, metrics: Metrics) -> PyTree:
    """All numbers that an update may only write where they are finite.

    So may it only where `real_numbers` of what every device observes are. A gradient whose norm
    overflows is clipped to nothing: finite for ever, and learning nothing.
    """
    return (
        learnt.params,
        learnt.opt_state,
        learnt.observation_moments,
        learnt.return_moments,
        metrics["grad_norm"],
    )


def real_numbers(observation: Array) -> PyTree:
    """What of observations may not be NaN: nothing of whole numbers; infinity counts as 0.

    An environment may show infinity on purpose; a NaN will never be anything else.
    """
    if not jnp.issubdtype(observation.dtype, jnp.floating):
        return ()
    return jnp.where(jnp.isinf(observation), 0.0, observation)


def improved(
    config: Config, now: Hyper, state: TrainState, batch: Batch, key: Array, axis_name: str | None
) -> tuple[PyTree, PyTree, Adapted, Metrics, update.Ratios]:
    """Parameters, optimiser state, adaptive factors and metrics by the objective's improver.

    All are the same on every device but for the ratios, which are each one's own.
    """
    parts = assemble(config)
    num_envs = state.discounted_return.shape[0]
    learnt = (state.params, state.opt_state, batch, num_envs, key, axis_name)
    if config.objective in objectives.TRUST_REGION:
        params, opt_state, metrics, ratios = natural_gradient.by_trust_region(
            config, now, parts.network, parts.family, *learnt
        )
        return params, opt_state, state.adapted, metrics, ratios
    now = dataclasses.replace(now, kl_coef=state.adapted.kl_coef * now.kl_coef)
    bound = {"hyper": now, "config": config, "network": parts.network, "family": parts.family}
    loss = partial(objectives.minibatch_loss, **bound)
    cosine = partial(objectives.gradient_cosine, axis_name=axis_name, **bound)
    probe = cosine if config.measure_gradient_cosine else None
    params, opt_state, rate, diagnostics = update.by_minibatches(
        config, now, loss, *learnt, rate=state.adapted.learning_rate, probe=probe
    )
    # The paper measures the KL after the last step; its last epoch has it on every sample, before.
    kl = jnp.mean(diagnostics["kl_old_new"][-1])
    kl_coef = adapted_factor(state.adapted.kl_coef, kl, now.kl_target, 2.0, 1.5)
    ratios = update.measure_ratios(now, diagnostics[update.PER_ROW], diagnostics["active"])
    metrics = update.summarise(diagnostics)
    return params, opt_state, Adapted(kl_coef, rate), metrics, ratios


def iteration_keys(state: TrainState, axis_name: str | None) -> Array:
    """The iteration's keys [5], four of its rollout and one of its improvement.

    With `axis_name` they are each device's own. They are one call of the generator: on a CPU every
    call is a loop of a dozen kernels.
    """
    turn = state.iteration
    if axis_name is not None:
        turn = turn * jax.lax.axis_size(axis_name) + jax.lax.axis_index(axis_name)
    fold_in = jax.vmap(jax.random.fold_in, (None, 0))
    return fold_in(state.key, NUM_KEYS * turn + jnp.arange(NUM_KEYS))


def train(config: Config, hyper: Hyper, key: Array) -> tuple[TrainState, Metrics]:
    """A whole run as one pure function; jit it, vmap it over `key` and `hyper`.

    Its metrics hold one row per iteration, [num_iterations] each, so it is for short runs; `run`
    is for long ones. The budget is rounded up to whole iterations (`config.trained_env_steps`).
    """
    validate(config, hyper)
    state = init(config, hyper, key)
    return jax.lax.scan(
        lambda state, _: iterate(config, hyper, state), state, length=config.num_iterations
    )


def all_finite(tree: PyTree) -> Array:
    """Whether every number of every leaf is finite, [] bool."""
    flat, _ = ravel_pytree(tree)
    return jnp.isfinite(jnp.sum(0.0 * flat))  # a sum is a kernel, "all" is three on a CPU
