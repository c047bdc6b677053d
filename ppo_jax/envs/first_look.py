"""Faults of an environment that show before the training and would spoil it.

Nothing is compiled to find them, except for environments with one-step episodes or with whole
numbers as observations.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.envs import actions, leaves
from ppo_jax.envs.interface import Box, Environment, ObservationSpace, time_limit

LARGE = 20.0  # typical magnitude beyond which a network wants its observations standardised
NEARLY_ALL = 0.99  # share of the first actions that are clipped, to one bound or to both together
WIDE = 100.0  # standard deviations of the first actions in a box that they hardly fill
NUM_STARTS = 64
NO_BOUND = float(np.finfo(np.float32).max)  # a bound of that size stands for none
EXACT = 2**24  # whole numbers up to here are exact in float32


class Notice(NamedTuple):
    """One thing that would spoil the training."""

    what: str  # the fault, and the harm that it does
    remedy: str


def notices(
    environment: Environment,
    params: Any,
    *,
    policy: str,
    std: float,
    normalized: bool,
    scaled: bool,
    flagged: bool,
) -> list[Notice]:
    """Everything that can be seen of `environment` at once.

    Args:
        params: of the run.
        policy: a word of `config.POLICIES`. std: of its first actions, if they are Gaussian.
        normalized: the run standardises its observations.
        scaled: the run's network divides bytes by their highest value.
        flagged: the run's network sees few whole numbers as flags.
    """
    found: list[Notice | None] = []
    if policy != "tanh-gaussian":
        widest = math.inf if policy == "gsde" else WIDE  # gSDE's actions are sums of such numbers
        found.append(unsuited_box(_box(environment, params), std, widest))
    stored = leaves.named(environment.observation)
    found += [channels_first(leaf.shape) for leaf in stored.values()]
    spaces = {} if environment.raw is None else leaves.shown(environment)
    for name, space in spaces.items():
        is_scaled = normalized and stored[name] is environment.observation
        if stored[name].dtype == jnp.uint8 and not (is_scaled or scaled):
            found.append(unscaled_bytes(float(np.max(space.high))))
    if environment.host is not None:  # it cannot be played here
        return [notice for notice in found if notice is not None]
    limit = time_limit(environment, params)
    if limit is not None and limit <= 1 and _is_cut(environment, params):
        found.append(CUT_AT_ONCE)
    is_alone = stored.get(leaves.WHOLE) is environment.observation  # may be standardised
    few = leaves.categories(environment) if flagged and not (normalized and is_alone) else {}
    numbers = {name: space for name, space in spaces.items() if space.is_number or name in few}
    if numbers:
        seen = leaves.named(first_observations(environment, params))
        found += [out_of_range(space, seen[name]) for name, space in numbers.items()]
    return [notice for notice in found if notice is not None]


def warnings(config: Config, hyper: Hyper, environment: Environment, params: Any) -> list[str]:
    """The notices of a run with these settings, as lines to be shown at its start."""
    log_std: Any = hyper.log_std_init
    first = log_std.start if isinstance(log_std, Schedule) else log_std
    std = math.exp(min(float(first), 50.0))
    found = notices(
        environment,
        params,
        policy=config.policy,
        std=std,
        normalized=config.normalize_observations,
        scaled=config.scale_bytes and config.network is None,
        flagged=config.one_hot_integers and config.network is None,
    )
    steps, limit = config.num_iterations * config.rollout_length, time_limit(environment, params)
    long = too_long(min(steps, limit or steps))
    return [f"warning: {notice.what}; {notice.remedy}" for notice in [*found, *long]]


def too_long(steps: int) -> list[Notice]:
    """Notice that episodes may be longer than the sum of their rewards can follow.

    Args:
        steps: the most that an episode can have within the run.
    """
    if steps <= EXACT:
        return []
    return [
        Notice(
            f"an episode may have {steps:,} steps in this run, and the float32 sum of its rewards "
            f"is not exact after {EXACT:,}: a reward of 1 no longer changes it",
            "give the environment a shorter time limit, or take more environments",
        )
    ]


CUT_AT_ONCE = Notice(
    "every episode is cut after ONE step by the time limit, which is max_steps_in_episode = 1 "
    "(gymnax's EnvParams has this default, and every class based on it inherits it)",
    "declare max_steps_in_episode in your own parameters, or set --env.max_steps_in_episode",
)


def unsuited_box(space: Any, std: float, widest: float = WIDE) -> Notice | None:
    """Notice a box that does not fit the first actions of a Gaussian policy.

    Its mean begins near 0, so a box that lies off 0 gives every action the same outcome, and no
    gradient. A narrow box leaves two outcomes, and a wide one is hardly explored.

    Args:
        widest: standard deviations in a box that is too wide.
    """
    if not isinstance(space, Box):
        return None
    for place, (low, high) in enumerate(zip(np.ravel(space.low), np.ravel(space.high))):
        where = f"the bounds [{low:g}, {high:g}] of action {place}"
        fault = _misfit((float(low), float(high)), std, widest, where)
        if low < high and fault is not None:
            return Notice(
                f"the policy's first actions, of mean 0 and standard deviation {std:.3g}, {fault}",
                "let the environment take actions around 0 and scale them itself, or train with "
                "--policy tanh-gaussian, which fills the box",
            )
    return None


def _misfit(ends: tuple[float, float], std: float, widest: float, where: str) -> str | None:
    """The fault of one action's bounds for N(0, std^2), in words."""
    low, high = ends
    below, above = _share_below(low, std), 1.0 - _share_below(high, std)
    if max(below, above) >= NEARLY_ALL:
        return (
            f"lie outside {where}: {max(below, above):.0%} of them are clipped to the same bound, "
            "so nothing can be learnt from them"
        )
    if below + above >= NEARLY_ALL:
        return (
            f"lie outside {where}: {below + above:.0%} of them are clipped to one bound or the "
            "other, so only the choice between the two can be learnt from them"
        )
    width = (high - low) / max(std, 1e-12)
    if high - low < NO_BOUND and width >= widest:
        return (
            f"hardly fill {where}, which are {width:,.0f} standard deviations apart, so most of "
            "the box is never tried"
        )
    return None


def channels_first(shape: tuple[int, ...]) -> Notice | None:
    """Notice a picture that has its channels where the network reads its height."""
    if len(shape) != 3 or not shape[0] <= 4 < min(shape[1:]):
        return None
    return Notice(
        f"observations of shape {list(shape)} look like [channels, height, width], and the network "
        "reads them as [height, width, channels]",
        "return jnp.moveaxis(observation, 0, -1)",
    )


def unscaled_bytes(largest: float) -> Notice | None:
    """Notice bytes that reach the network as large numbers."""
    if largest <= LARGE:
        return None
    return Notice(
        f"observations are bytes that reach {largest:.3g}, unscaled: the built-in networks divide "
        "them by that (--scale-bytes), and others learn slowly from such magnitudes",
        "scale them in a network of your own, train with --normalize-observations, or return "
        f"observation / {largest:.3g}",
    )


def out_of_range(space: ObservationSpace, seen: Any) -> Notice | None:
    """Notice whole numbers outside the declared space, which become rows of zeros."""
    numbers, kind = np.asarray(seen), "Discrete space" if space.is_number else "Box"
    outside = numbers[(numbers < space.low) | (numbers > space.high)]
    if not outside.size:
        return None
    low, high = int(np.min(space.low)), int(np.max(space.high))
    wider = f"Discrete({int(numbers.max()) + 1})"
    if not space.is_number:
        wider = f"bounds from {min(low, numbers.min())} to {max(high, numbers.max())}"
    first, last = outside.min(), outside.max()
    which = f"{first}" if first == last else f"from {first} to {last}"
    return Notice(
        f"observations {which} lie outside the declared {kind}, {low} to {high}: each of them "
        "becomes the same row of zeros",
        f"return numbers from {low} to {high}, or declare {wider}",
    )


def _share_below(bound: float, std: float) -> float:
    return 0.5 * (1.0 + math.erf(bound / (math.sqrt(2.0) * max(std, 1e-12))))


def _box(environment: Environment, params: Any) -> Box | None:
    box, bounds = actions.box_of(environment.action_space), environment.action_bounds
    return box if box is None or bounds is None else Box(box.shape, *bounds(params))


def _is_cut(environment: Environment, params: Any) -> bool:
    """Play first steps, and report whether one is truncated and not terminated."""
    example = actions.example_action(environment.action_space)
    action = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)

    @jax.jit
    def first_step(key: Any) -> Any:
        _, state = environment.reset(key, params)
        *_, terminated, truncated, _ = environment.transition(key, state, action, params)
        return truncated & ~terminated

    return bool(jax.vmap(first_step)(jax.random.split(jax.random.key(0), NUM_STARTS)).any())


def first_observations(environment: Environment, params: Any) -> Any:
    """The first observations of NUM_STARTS episodes, as the environment itself shows them."""
    assert environment.raw is not None
    start = environment.raw.reset
    keys = jax.random.split(jax.random.key(0), NUM_STARTS)
    return jax.jit(jax.vmap(lambda key: start(key, params)))(keys)
