"""Policy families: the distributions that produce an environment's actions.

The mathematics is in `rl/distributions`; this file binds it to an action space. Actions are kept as
sampled: integers, or flat reals [..., A], neither clipped nor squashed, or a pair of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.config.errors import InputError
from ppo_jax.envs.actions import box_of, dials_of, put_together
from ppo_jax.envs.interface import ActionSpace, Box, Discrete, MultiDiscrete, Product
from ppo_jax.kernels.matmul import lifted
from ppo_jax.rl.distributions import (
    Categorical,
    Gaussian,
    Mixed,
    MultiCategorical,
    categorical_draw,
    categorical_entropy,
    categorical_kl,
    categorical_log_prob,
    categorical_mode,
    categorical_sample,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_prob,
    gaussian_mode,
    gaussian_sample,
    state_dependent_noise_sample,
    tanh_gaussian_entropy,
    tanh_gaussian_log_prob,
)


class Family(NamedTuple):
    """The functions of one kind of policy. Actions are kept as sampled, see `to_env`."""

    name: str  # the real actions' if there are any
    dials: tuple[int, ...]  # choices of each discrete action
    num_reals: int  # A
    head_size: int  # outputs of the policy head: logits, then means, then log stds
    draw: Callable[[Array, tuple[int, ...]], Any]  # (key, leading dims) -> numbers of `sample`
    sample: Callable[[Any, Any, Any], Any]  # (draw, dist, noise) -> action
    mode: Callable[[Any], Any]
    log_prob: Callable[[Any, Any], Array]  # -> [...]
    entropy: Callable[[Any], Array]  # -> [...]
    kl: Callable[[Any, Any], Array]  # (old, new) -> KL[old || new], [...], exact
    # (action, bounds) -> action for the environment, clipped or squashed into the bounds (low,
    # high); without bounds into those of the action space
    to_env: Callable[..., Any]
    keep: Callable[[Any], Any]  # part that a rollout stores, enough for log_prob, entropy and kl
    draw_noise: Callable[[Array, int], Any]  # (key, num_envs) -> noise: gSDE's [B, F, A], else ()


def make_family(policy: str, action_space: ActionSpace, num_features: int) -> Family:
    """Build the `Family` for a policy's name and an environment's actions.

    Args:
        policy: a word of `config.POLICIES`; "auto" follows the action space. For discrete and real
            actions at once it names the distribution of the real ones.
        action_space: of the environment.
        num_features: F, width of the features that gSDE multiplies its noise with.

    Raises:
        InputError: the policy cannot produce such actions.
    """
    box = box_of(action_space)
    if policy == "auto":
        policy = "categorical" if box is None else "gaussian"
    if (policy == "categorical") == (box is not None):
        remedy = "categorical"
        if box is not None:
            remedy = "gaussian, gaussian-state-std, gsde or tanh-gaussian"
        raise InputError(
            f"policy={policy!r} cannot produce actions of {_describe(action_space)}; "
            f"use {remedy}, or auto."
        )
    if isinstance(action_space, Discrete):
        return _categorical(action_space)
    dials = dials_of(action_space)
    if not isinstance(action_space, Product):
        return _multi_categorical(dials) if box is None else _real(policy, box, num_features)
    discrete = _multi_categorical(dials) if dials else None
    real = None if box is None else _real(policy, box, num_features)
    return _product(action_space, discrete, real)


def _real(policy: str, box: Box, num_features: int) -> Family:
    if policy == "gsde":
        return _gsde(box, num_features)
    return _tanh_gaussian(box) if policy == "tanh-gaussian" else _gaussian(policy, box)


def _product(space: Product, discrete: Family | None, real: Family | None) -> Family:
    """Several actions at once, independent given the observation.

    Log-probabilities, entropies and divergences are sums. The action as sampled is that of all
    dials [..., K], all real numbers [..., A], or the pair of both.
    """
    if discrete is None or real is None:
        only = discrete or real
        assert only is not None

        def split(action: Array, bounds: Any = None) -> tuple[Array, ...]:
            own = only.to_env(action, bounds)
            return put_together(space, own, own)

        return only._replace(to_env=split)

    def draw(key: Array, shape: tuple[int, ...]) -> tuple[Any, Any]:
        first, second = jax.random.split(key)
        return discrete.draw(first, shape), real.draw(second, shape)

    def to_env(action: tuple[Array, Array], bounds: Any = None) -> tuple[Array, ...]:
        counts, reals = discrete.to_env(action[0]), real.to_env(action[1], bounds)
        return put_together(space, counts, reals)

    return Family(
        name=real.name,
        dials=discrete.dials,
        num_reals=real.num_reals,
        head_size=discrete.head_size + real.head_size,
        draw=draw,
        sample=lambda draw, dist, noise=(): (
            discrete.sample(draw[0], dist.discrete, ()),
            real.sample(draw[1], dist.real, noise),
        ),
        mode=lambda dist: (discrete.mode(dist.discrete), real.mode(dist.real)),
        log_prob=lambda dist, action: (
            discrete.log_prob(dist.discrete, action[0]) + real.log_prob(dist.real, action[1])
        ),
        entropy=lambda dist: discrete.entropy(dist.discrete) + real.entropy(dist.real),
        kl=lambda old, new: discrete.kl(old.discrete, new.discrete) + real.kl(old.real, new.real),
        to_env=to_env,
        keep=lambda dist: Mixed(discrete.keep(dist.discrete), real.keep(dist.real)),
        draw_noise=real.draw_noise,
    )


def split_output(family: Family, output: Array) -> Any:
    """The policy head's output [..., head_size] as logits, a mean, a pair (mean, log std), or a
    pair of logits and one of the other two."""
    num_logits, num_reals = sum(family.dials), family.num_reals
    if not num_reals:
        return output
    real: Any = output if not num_logits else output[..., num_logits:]
    if family.name == "gaussian-state-std":
        real = real[..., :num_reals], real[..., num_reals:]
    return (output[..., :num_logits], real) if num_logits else real


def _no_noise(key: Array, shape: int | tuple[int, ...]) -> tuple[()]:
    return ()


def _identity(value: Any) -> Any:
    return value


def _to_int32(action: Array, bounds: Any = None) -> Array:
    return action.astype(jnp.int32)


def _categorical(space: Discrete) -> Family:
    return Family(
        name="categorical",
        dials=(int(space.n),),
        num_reals=0,
        head_size=int(space.n),
        draw=partial(categorical_draw, num_actions=int(space.n)),
        sample=categorical_sample,
        mode=categorical_mode,
        log_prob=categorical_log_prob,
        entropy=categorical_entropy,
        kl=categorical_kl,
        to_env=_to_int32,
        keep=_identity,
        draw_noise=_no_noise,
    )


def _multi_categorical(ns: tuple[int, ...]) -> Family:
    """Categoricals padded with -inf to one width, then summed; actions are [..., K] int32."""

    def rows(dist: MultiCategorical) -> Categorical:
        width, parts, start = max(ns), [], 0
        for n in ns:
            part = dist.logits[..., start : start + n]
            pad = [(0, 0)] * (part.ndim - 1) + [(0, width - n)]
            parts.append(jnp.pad(part, pad, constant_values=-jnp.inf) if n < width else part)
            start += n
        return Categorical(jnp.stack(parts, axis=-2))

    return Family(
        name="categorical",
        dials=ns,
        num_reals=0,
        head_size=sum(ns),
        draw=lambda key, shape: categorical_draw(key, (*shape, len(ns)), max(ns)),
        sample=lambda draw, dist, noise=(): categorical_sample(draw, rows(dist)),
        mode=lambda dist: categorical_mode(rows(dist)),
        log_prob=lambda dist, action: categorical_log_prob(rows(dist), action).sum(-1),
        entropy=lambda dist: categorical_entropy(rows(dist)).sum(-1),
        kl=lambda old, new: categorical_kl(rows(old), rows(new)).sum(-1),
        to_env=_to_int32,
        keep=_identity,
        draw_noise=_no_noise,
    )


def _flat_size(space: Box) -> int:
    return math.prod(space.shape)


def _bounds(space: Box, bounds: Any = None) -> tuple[Any, Any]:
    """Lower and upper bounds [*shape]: `bounds` if there are any, which may be traced."""
    if bounds is not None:
        return bounds
    low = np.broadcast_to(np.asarray(space.low, np.float32), space.shape)
    high = np.broadcast_to(np.asarray(space.high, np.float32), space.shape)
    return low, high


def _shape_for_env(action: Array, space: Box) -> Array:
    return action.reshape(action.shape[:-1] + tuple(space.shape))


def _clip(action: Array, bounds: Any = None, *, space: Box) -> Array:
    """[..., A] -> [..., *shape] within the bounds."""
    action = _shape_for_env(action, space)
    low, high = (lifted(bound, action.ndim) for bound in _bounds(space, bounds))
    return jnp.clip(action, low, high)


def _squash(action: Array, bounds: Any = None, *, space: Box) -> Array:
    """[..., A] -> low + (tanh(u) + 1) / 2 * (high - low), [..., *shape]."""
    action = _shape_for_env(action, space)
    low, high = (lifted(bound, action.ndim) for bound in _bounds(space, bounds))
    squashed = low + 0.5 * (jnp.tanh(action) + 1.0) * (high - low)
    return jnp.clip(squashed, low, high)  # rounding may step over `high`


def _gaussian(name: str, space: Box) -> Family:
    size = _flat_size(space)
    return Family(
        name=name,
        dials=(),
        num_reals=size,
        head_size=2 * size if name == "gaussian-state-std" else size,
        draw=lambda key, shape: jax.random.normal(key, (*shape, size)),
        sample=gaussian_sample,
        mode=gaussian_mode,
        log_prob=gaussian_log_prob,
        entropy=gaussian_entropy,
        kl=gaussian_kl,
        to_env=partial(_clip, space=space),
        keep=_identity,
        draw_noise=_no_noise,
    )


def _tanh_gaussian(space: Box) -> Family:
    low, high = _bounds(space)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InputError(
            f"policy='tanh-gaussian' needs finite bounds to squash into, but {_describe(space)} "
            "is unbounded; use gaussian."
        )
    return _gaussian("tanh-gaussian", space)._replace(
        log_prob=tanh_gaussian_log_prob,
        entropy=tanh_gaussian_entropy,
        to_env=partial(_squash, space=space),
    )


def _gsde(space: Box, num_features: int) -> Family:
    size = _flat_size(space)
    return _gaussian("gsde", space)._replace(
        draw=_no_noise,
        sample=state_dependent_noise_sample,
        keep=lambda dist: Gaussian(dist.mean, dist.log_std),
        draw_noise=lambda key, num_envs: jax.random.normal(key, (num_envs, num_features, size)),
    )


def _describe(space: ActionSpace) -> str:
    if isinstance(space, Product):
        return " and ".join(_describe(part) for part in space.parts)
    if isinstance(space, Discrete):
        return f"Discrete({space.n})"
    if isinstance(space, MultiDiscrete):
        return f"MultiDiscrete({', '.join(str(n) for n in space.ns)})"
    return f"Box of shape {tuple(space.shape)}"
