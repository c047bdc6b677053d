"""PPO on one page: CartPole-v1 from an empty file, with nothing but jax, numpy and gymnax.

Run `python scripts/one_page_ppo.py`: it learns to balance for all 500 steps within half a minute.

The question for the reader: the policy gradient needs log pi(a|s). Why does PPO have a ratio
pi(a|s) / pi_old(a|s) there? The marks [1], [2], [3] and [4] give the answer.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class Settings(NamedTuple):
    """Every number of the method."""

    learning_rate: float = 1e-3
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_epsilon: float = 0.2
    value_clip_epsilon: float = float("inf")  # inf: no value clip
    value_coef: float = 0.5
    entropy_coef: float = 0.01
    max_grad_norm: float = 0.5
    adam_epsilon: float = 1e-5


class Batch(NamedTuple):
    """N = T x B samples. Everything `old` belongs to the policy that collected them."""

    observation: Array  # [N, O]
    action: Array  # [N]
    log_prob_old: Array  # [N]
    value_old: Array  # [N]
    advantage: Array  # [N]
    value_target: Array  # [N]


class Adam(NamedTuple):
    """Kingma and Ba 2015: running means of the gradient and of its square."""

    step: Array  # []
    mean: Any  # like the parameters
    square: Any  # like the parameters


NUM_ENVS, NUM_STEPS, NUM_EPOCHS, NUM_MINIBATCHES, NUM_ITERATIONS = 32, 64, 4, 8, 200


# The network: two MLPs, one for the policy and one for the value ----------------------------------


def init_mlp(key: Array, sizes: list[int], last_gain: float) -> list[tuple[Array, Array]]:
    """Orthogonal weights and zero biases. A small last gain: the first policy is near uniform."""
    gains = [2.0**0.5] * (len(sizes) - 2) + [last_gain]
    keys = jax.random.split(key, len(gains))
    return [
        (jax.nn.initializers.orthogonal(gain)(k, (n_in, n_out)), jnp.zeros(n_out))
        for k, gain, n_in, n_out in zip(keys, gains, sizes[:-1], sizes[1:])
    ]


def mlp(layers: list[tuple[Array, Array]], x: Array) -> Array:
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def init(key: Array, num_inputs: int, num_actions: int, hidden: int = 64) -> tuple[Any, Adam]:
    key_actor, key_critic = jax.random.split(key)
    params = {
        "actor": init_mlp(key_actor, [num_inputs, hidden, hidden, num_actions], 0.01),
        "critic": init_mlp(key_critic, [num_inputs, hidden, hidden, 1], 1.0),
    }
    zeros = jax.tree.map(jnp.zeros_like, params)
    return params, Adam(jnp.zeros(()), zeros, zeros)


def log_policy(params: Any, observation: Array) -> Array:
    """log pi(. | s) of every action."""
    return jax.nn.log_softmax(mlp(params["actor"], observation))


def value_of(params: Any, observation: Array) -> Array:
    return mlp(params["critic"], observation)[..., 0]


def chosen(log_probs: Array, action: Array) -> Array:
    """log pi(a|s) of the actions taken."""
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]


# Learning: one batch in, better parameters out ----------------------------------------------------


def loss(params: Any, batch: Batch, settings: Settings) -> tuple[Array, tuple[Array, Array]]:
    """The loss of a minibatch; for its ratios, the largest |log| and the clipped share."""
    log_probs = log_policy(params, batch.observation)
    log_prob = chosen(log_probs, batch.action)

    # [1] The policy gradient is the gradient of E[log pi(a|s) A], and it holds for samples of pi
    # itself. This is true only for the very first minibatch after a rollout: its step moves pi,
    # while the samples stay those of pi_old.
    #
    # [2] To learn from old samples, weight each by the ratio of its new to its old probability:
    # E_pi[A] = E_old[pi / pi_old A]. At the first minibatch the ratio is 1 and its gradient is
    # grad pi / pi_old = grad log pi, so the two agree: the ratio changes nothing until pi moves.
    ratio = jnp.exp(log_prob - batch.log_prob_old)

    # [3] Nothing keeps the ratio near 1, and the advantages are those of pi_old, so they are wrong
    # far from it. So there is no gain from moving a ratio beyond 1 +- epsilon. `minimum` makes this
    # one-sided: a change that made things *worse* keeps its gradient and can be undone.
    clipped = jnp.clip(ratio, 1.0 - settings.clip_epsilon, 1.0 + settings.clip_epsilon)
    policy_loss = -jnp.mean(jnp.minimum(ratio * batch.advantage, clipped * batch.advantage))

    value = value_of(params, batch.observation)
    step = jnp.clip(
        value - batch.value_old, -settings.value_clip_epsilon, settings.value_clip_epsilon
    )
    errors = (value - batch.value_target, batch.value_old + step - batch.value_target)
    value_loss = 0.5 * jnp.mean(jnp.maximum(errors[0] ** 2, errors[1] ** 2))
    entropy = -jnp.mean(jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1))  # keeps exploration

    total = policy_loss + settings.value_coef * value_loss - settings.entropy_coef * entropy
    moved = jnp.max(jnp.abs(log_prob - batch.log_prob_old))
    return total, (moved, jnp.mean(jnp.abs(ratio - 1.0) > settings.clip_epsilon))


def adam_step(params: Any, adam: Adam, grads: Any, settings: Settings) -> tuple[Any, Adam]:
    """Gradient clipped in global norm, then Adam with its usual 0.9 and 0.999."""
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
    grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, settings.max_grad_norm / norm), grads)
    step = adam.step + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, adam.mean, grads)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g**2, adam.square, grads)

    def moved(p: Array, m: Array, s: Array) -> Array:
        unbiased, spread = m / (1.0 - 0.9**step), jnp.sqrt(s / (1.0 - 0.999**step))
        return p - settings.learning_rate * unbiased / (spread + settings.adam_epsilon)

    return jax.tree.map(moved, params, mean, square), Adam(step, mean, square)


def update(
    params: Any, adam: Adam, batch: Batch, orders: Array, settings: Settings
) -> tuple[Any, Adam, tuple[Array, Array]]:
    """Several passes over one batch.

    Args:
        orders: [E, M, N / M], for each of E epochs a permutation of the N samples in M minibatches.

    Returns:
        parameters, Adam's state, and the report of `loss` for each minibatch [E, M].
    """

    def minibatch(learner: tuple[Any, Adam], rows: Array) -> tuple[tuple[Any, Adam], Any]:
        part = jax.tree.map(lambda x: x[rows], batch)
        scaled = (part.advantage - part.advantage.mean()) / (part.advantage.std() + 1e-8)
        grads, report = jax.grad(loss, has_aux=True)(
            learner[0], part._replace(advantage=scaled), settings
        )
        return adam_step(*learner, grads, settings), report

    (params, adam), report = jax.lax.scan(
        minibatch, (params, adam), orders.reshape(-1, orders.shape[-1])
    )
    return params, adam, jax.tree.map(lambda x: x.reshape(orders.shape[:2]), report)


# Acting: T steps of B environments ----------------------------------------------------------------


def advantages(
    reward: Array, value: Array, value_next: Array, ended: Array, settings: Settings
) -> Array:
    """GAE (Schulman et al. 2016): TD errors of V, summed with decay gamma lambda. [T, B]"""
    surprise = reward + settings.gamma * value_next - value

    def backward(later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        surprise_t, ended_t = step
        now = surprise_t + settings.gamma * settings.gae_lambda * jnp.where(ended_t, 0.0, later)
        return now, now

    return jax.lax.scan(backward, jnp.zeros_like(value[0]), (surprise, ended), reverse=True)[1]


def make_iterate(env: Any, env_params: Any, settings: Settings) -> Any:
    """The compiled function that rolls out, estimates advantages and learns."""
    reset = jax.vmap(env.reset_env, in_axes=(0, None))
    transition = jax.vmap(env.step_env, in_axes=(0, 0, 0, None))

    def step(params: Any, carry: Any, key: Array) -> tuple[Any, Any]:
        observation, state, total = carry
        key_action, key_env, key_reset = jax.random.split(key, 3)
        log_probs = log_policy(params, observation)
        action = jax.random.categorical(key_action, log_probs)
        following, state, reward, terminated, _ = transition(
            jax.random.split(key_env, NUM_ENVS), state, action, env_params
        )
        truncated = jax.vmap(env.is_truncated, (0, None))(state, env_params) & ~terminated
        ended = terminated | truncated
        # [4] Also store log pi_old(a|s) now, as a number: it is the ratio's denominator.
        record = (observation, action, chosen(log_probs, action), value_of(params, observation))
        # After a fall no reward follows, and V is 0. A time limit only stops the observation: the
        # value is V of the last observation, and not V of the fresh start after it.
        value_next = jnp.where(terminated, 0.0, value_of(params, following))
        total = total + reward
        fresh = reset(jax.random.split(key_reset, NUM_ENVS), env_params)

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(ended.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        observation, state = jax.tree.map(choose, fresh, (following, state))
        finished = (jnp.sum(ended), jnp.sum(jnp.where(ended, total, 0.0)))
        carry = (observation, state, jnp.where(ended, 0.0, total))
        return carry, (record, reward, value_next, ended, finished)

    @jax.jit
    def iterate(params: Any, adam: Adam, carry: Any, key: Array) -> tuple[Any, ...]:
        key_rollout, key_orders = jax.random.split(key)
        carry, (record, reward, value_next, ended, finished) = jax.lax.scan(
            partial(step, params), carry, jax.random.split(key_rollout, NUM_STEPS)
        )
        value = record[3]
        advantage = advantages(reward, value, value_next, ended, settings)
        batch = Batch(*record, advantage, advantage + value)
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        orders = jax.vmap(partial(jax.random.permutation, x=NUM_ENVS * NUM_STEPS))(
            jax.random.split(key_orders, NUM_EPOCHS)
        ).reshape(NUM_EPOCHS, NUM_MINIBATCHES, -1)
        params, adam, report = update(params, adam, batch, orders, settings)
        mean_return = jnp.sum(finished[1]) / jnp.sum(finished[0])  # NaN if none finished
        return params, adam, carry, mean_return, report

    return iterate


def train(seed: int = 0, num_iterations: int = NUM_ITERATIONS, is_quiet: bool = False) -> list:
    """Train, print every tenth iteration, and return the mean returns of the finished episodes."""
    env, env_params = gymnax.make("CartPole-v1")
    iterate = make_iterate(env, env_params, Settings())
    key_init, key_reset, key_run = jax.random.split(jax.random.key(seed), 3)
    num_inputs = env.observation_space(env_params).shape[0]
    params, adam = init(key_init, num_inputs, env.num_actions)
    start = jax.vmap(env.reset_env, (0, None))(jax.random.split(key_reset, NUM_ENVS), env_params)
    carry, returns, began = (*start, jnp.zeros(NUM_ENVS)), [], time.perf_counter()
    for i in range(num_iterations):
        key = jax.random.fold_in(key_run, i)
        params, adam, carry, mean_return, (moved, is_clipped) = iterate(params, adam, carry, key)
        returns.append(float(mean_return))
        if not is_quiet and (i + 1) % 10 == 0:
            # At the first minibatch every log ratio is 0. In the last epoch it is not, and some
            # ratios have reached the clip.
            print(
                f"{(i + 1) * NUM_ENVS * NUM_STEPS:7d} steps {time.perf_counter() - began:5.1f} s"
                f"   return {np.nanmean(returns[-10:]):5.1f}   |log ratio| first {moved[0, 0]:.0e},"
                f" last epoch {moved[-1].max():.2f}   clipped {is_clipped[-1].mean():4.0%}"
            )
    return returns


if __name__ == "__main__":
    train()
