"""Breaches of the contract that a random play shows: numbers, ends, resets, actions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.apps.diagnose.random_play import Play, in_own_words, random_action
from ppo_jax.config.errors import InputError
from ppo_jax.envs import bounds, first_look, leaves
from ppo_jax.envs.actions import box_of, dials_of
from ppo_jax.envs.interface import (
    Box,
    Discrete,
    Environment,
    MultiDiscrete,
    ObservationSpace,
    action_mask,
    time_limit,
)

MIN_STALLS = 0.01  # least share of steps that change nothing; fewer are no reason for a note


class Finding(NamedTuple):
    """One breach, or one thing worth knowing."""

    severity: str  # "error": training would be wrong or fail; "warning": worse or slower; "note"
    what: str  # the fault, and the harm that it does
    remedy: str


def findings(environment: Environment, play: Play, again: Play, key: Array) -> Iterator[Finding]:
    """Everything that a play shows; `again` is the same one, computed anew."""
    own = in_own_words(environment, play)
    yield from _check_numbers(environment, play)
    yield from _check_declared(environment, own)
    yield from _check_determinism(environment, play, again)
    yield from _check_ends(environment, play, own)
    yield from _check_resets(environment, play, key)
    yield from _check_actions(environment, play, key)
    yield from _check_masks(environment, play)
    yield from stalls(environment, play)


def _as_findings(severity: str, notice: first_look.Notice | None) -> list[Finding]:
    return [] if notice is None else [Finding(severity, *notice)]


def _arrays(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _check_numbers(environment: Environment, play: Play) -> Iterator[Finding]:
    shown = [
        np.stack(pair) for pair in zip(*map(_arrays, (play.observation, play.observation_next)))
    ]
    for word, values in (("observation", shown), ("reward", _arrays(play.reward))):
        share = max(float(np.mean(~np.isfinite(value.astype(np.float32)))) for value in values)
        if share > 0:
            yield Finding(
                "error",
                f"{share:.2%} of the {word} numbers are not finite: the first would end training",
                f"find the division or overflow behind the {word}",
            )
    scaled = leaves.largest_integers(environment)  # built-in networks divide them
    for name, value in zip(leaves.named(play.observation), shown, strict=True):
        if name not in scaled:
            yield from _check_magnitude(value)
        yield from _as_findings("warning", first_look.channels_first(value.shape[3:]))
    reward = np.asarray(play.reward)
    if (reward == reward.flat[0]).all() and (
        reward.max() == 0 or not np.asarray(play.terminated).any()
    ):
        yield Finding(
            "note",
            f"every reward of the random play is {reward.max():g} and no return differs by it: "
            "there is nothing to learn from until a better end is found by chance",
            "expect that exploration needs help, or check the reward",
        )


def _check_magnitude(observation: np.ndarray) -> Iterator[Finding]:
    sizes = np.abs(observation.astype(np.float32))
    largest = float(np.max(sizes, initial=0.0, where=np.isfinite(sizes)))
    if observation.dtype == np.uint8:
        yield from _as_findings("warning", first_look.unscaled_bytes(largest))
    elif observation.dtype == np.float32 and largest > first_look.LARGE:
        yield Finding(
            "warning",
            f"observations reach {largest:.3g}: networks learn slowly from such magnitudes",
            "train with --normalize-observations",
        )


def _check_declared(environment: Environment, own: Any) -> Iterator[Finding]:
    """Compare the returned observations with the declared ones."""
    if environment.raw is None:
        return
    seen, stored = leaves.named(own[0]), leaves.named(environment.observation)
    few = leaves.categories(environment)  # built-in networks see them as flags
    for name, space in leaves.shown(environment).items():
        if space.is_number or name in few:
            starts = first_look.first_observations(environment, environment.default_params)
            both = (np.asarray(seen[name]), np.asarray(leaves.named(starts)[name]))
            numbers = np.concatenate([each.reshape(-1, *space.shape) for each in both])
            yield from _as_findings("error", first_look.out_of_range(space, numbers))
        else:
            yield from _check_range(name, space, np.asarray(seen[name]))
        if not space.is_number and space.dtype != seen[name].dtype.name:
            which = "observations" if name == leaves.WHOLE else f"the leaf {name!r} as"
            yield Finding(
                "note",
                f"it declares {which} of {space.dtype} and returns {seen[name].dtype.name}, "
                f"stored as {stored[name].dtype.name}",
                "make them equal, so that other programs see the same",
            )


def _check_range(name: str, space: ObservationSpace, seen: np.ndarray) -> Iterator[Finding]:
    """Compare the numbers of a leaf with its declared bounds."""
    try:
        ends = (np.broadcast_to(end, space.shape) for end in (space.low, space.high))
        low, high = (np.asarray(end, np.float64) for end in ends)
    except ValueError:  # bounds of another shape, which nothing here reads
        return
    values = seen.astype(np.float64)
    slack = 1e-5 * (1.0 + np.abs(values))
    outside = values[(values < low - slack) | (values > high + slack)]
    if outside.size:
        which = "observations" if name == leaves.WHOLE else f"numbers of the leaf {name!r}"
        yield Finding(
            "note",
            f"{which} reach {outside[np.argmax(np.abs(outside))]:.3g}, which lies outside the "
            f"declared bounds {low.min():.3g} to {high.max():.3g}",
            "declare the bounds that are kept",
        )


def _check_determinism(environment: Environment, play: Play, again: Play) -> Iterator[Finding]:
    fields = ("observation_next", "reward", "terminated", "truncated")
    differ = [
        name
        for name in fields
        for once, twice in zip(_arrays(getattr(play, name)), _arrays(getattr(again, name)))
        if not np.array_equal(once, twice, equal_nan=True)
    ]
    if differ:
        yield Finding(
            "error",
            f"the same keys gave another {', '.join(differ)}: runs could not be repeated",
            "draw every random number from the key that is given",
        )
        return
    rows = np.linspace(0, len(play.reward) - 1, 4).astype(int)
    transition = jax.jit(environment.transition)
    for row in rows:
        state = jax.tree.map(lambda leaf, row=row: leaf[row, 0], play.state)
        key = jax.random.wrap_key_data(play.key[row, 0])
        action = jax.tree.map(lambda leaf, row=row: leaf[row, 0], play.action)
        single = transition(key, state, action, environment.default_params)
        pairs = zip(_arrays(single[0]), _arrays(play.observation_next))
        if not all(
            np.allclose(alone.astype(np.float32), batch[row, 0], rtol=1e-3, atol=1e-3)
            for alone, batch in pairs
        ):
            yield Finding(
                "error",
                "one environment alone moves otherwise than the same one within a batch",
                "write reset and transition for one environment, without looking at batch axes",
            )
            return


def _check_ends(environment: Environment, play: Play, own: Any) -> Iterator[Finding]:
    ended = np.asarray(play.terminated | play.truncated)
    limit = time_limit(environment, environment.default_params)
    steps, envs = ended.shape
    if not ended.any() and (limit is None or limit > steps):
        yield Finding(
            "warning" if limit is None else "note",
            f"no episode ended within {steps} random steps: without an end there is no "
            "episode return to report and no fresh start",
            "give it a time limit that sets truncated"
            if limit is None
            else f"nothing, if episodes may last {limit} steps",
        )
    ends = [np.flatnonzero(ended[:, b]) for b in range(envs)]
    longest = max(int(np.diff(rows, prepend=-1, append=steps - 1).max()) for rows in ends)
    if limit is not None and longest > max(limit, 1):
        yield Finding(
            "error",
            f"an episode lasted {longest} steps, the time limit is {limit}: the limit is not kept",
            "set truncated once the limit is reached, or declare the real one",
        )
    if limit is not None and limit <= 1:
        if (np.asarray(play.truncated) & ~np.asarray(play.terminated)).any():
            yield Finding("warning", *first_look.CUT_AT_ONCE)
        return  # an episode of one step is over, whichever flag is set
    lengths = np.concatenate([np.diff(rows, prepend=-1) for rows in ends])
    flags = (play.terminated, play.truncated) if own is None else own[1:]
    for word, flag in zip(("terminated", "truncated"), map(np.asarray, flags)):
        odd = flag[(flag != 0) & (flag != 1)]
        if odd.size:
            yield Finding(
                "error",
                f"{word} is {odd.flat[0]:.3g} at {odd.size / flag.size:.2%} of the steps: "
                "any number but 0, NaN included, ends the episode",
                "return true or false",
            )
    terminated, truncated = (
        np.concatenate([np.asarray(flag)[ends[b], b] != 0 for b in range(envs)]) for flag in flags
    )
    yield from _check_flags(terminated, truncated, lengths == limit, limit)


def _check_flags(
    terminated: np.ndarray, truncated: np.ndarray, at_limit: np.ndarray, limit: int | None
) -> Iterator[Finding]:
    """Find terminations that only repeat the time limit and hide the truncation.

    Args:
        terminated, truncated, at_limit: [number of episodes], of the last step of each.
    """
    both = terminated & truncated
    hides = both[at_limit].all() if at_limit.any() else 2 * both.sum() >= len(both)
    if both.any() and hides:
        yield Finding(
            "warning",
            f"{int(both.sum())} of {len(both)} episodes end terminated and truncated at once; "
            "the trainer counts them as terminated, so their successor is worth nothing",
            "leave the time limit out of `done` (in gymnax is_truncated says it), unless the task "
            "itself ends there",
        )
    elif len(at_limit) and at_limit.all() and terminated.all():
        yield Finding(
            "warning",
            f"all {len(at_limit)} episodes end terminated after exactly {limit} steps, which is "
            "the time limit: their successor is worth nothing to the trainer",
            "set truncated in place of terminated, unless the task itself ends there",
        )


def _check_resets(environment: Environment, play: Play, key: Array) -> Iterator[Finding]:
    """Find ending transitions that return a fresh start instead of their successor.

    A whole number of the state that counts steps gives it away: it must count the last step too.
    """
    ended = np.asarray(play.terminated | play.truncated)
    if not ended.any():
        return
    start = jax.eval_shape(environment.reset, key, environment.default_params)[1]
    counters = 0
    for index, leaf in enumerate(jax.tree.leaves(start)):
        if leaf.shape != () or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            continue
        before, after = (
            np.asarray(jax.tree.leaves(state)[index], np.float64)
            for state in (play.state, play.state_next)
        )
        counted = after == before + 1
        if not (counted if ended.all() else counted[~ended]).all():
            continue
        counters += 1
        if (after[ended] < before[ended]).all():
            yield Finding(
                "error",
                "it resets by itself: its step counter falls back at every episode's end, so the "
                "final observation is lost and time limits would bootstrap from a fresh start",
                "return the true successor; the trainer resets (in gymnax: step_env, not step)",
            )
            return
    if not counters:
        yield Finding(
            "note",
            "whether it resets by itself cannot be seen: its state counts no steps",
            "make sure that an ending transition returns the final observation, not a fresh one",
        )


def _check_actions(environment: Environment, play: Play, key: Array) -> Iterator[Finding]:
    space = environment.action_space
    box = box_of(space)
    if box is not None:
        try:
            bounds.require_sound(box.low, box.high, environment.name)
        except InputError as error:
            yield Finding("error", str(error), "declare low < high")
            return
        yield from _check_bounds(box)
    if isinstance(space, Discrete):
        choices = jnp.arange(space.n)
    else:
        choices = jax.vmap(partial(random_action, space))(jax.random.split(key, 8))
    rows = np.linspace(0, len(play.reward) - 1, 32).astype(int)
    state = jax.tree.map(lambda leaf: leaf[rows, 0], play.state)
    keys = jax.random.wrap_key_data(play.key[rows, 0])
    over_states = jax.vmap(environment.transition, (0, 0, None, None))
    over_choices = jax.vmap(over_states, (None, None, 0, None))
    outcome = jax.jit(over_choices)(keys, state, choices, environment.default_params)
    seen = _arrays((outcome[0], outcome[2:5]))
    if all(np.array_equal(part, np.broadcast_to(part[:1], part.shape)) for part in seen):
        yield Finding(
            "warning",
            "the action changed neither observation, reward nor end at any of 32 states: at least "
            "within one step nothing can be learnt from it",
            "check that the transition uses its action, unless effects come later",
        )


def _check_masks(environment: Environment, play: Play) -> Iterator[Finding]:
    """Find steps of the play in which a dial allows no action; a step that ends needs none."""
    mask = action_mask(play.observation)
    if mask is None:
        return
    dials = dials_of(environment.action_space)
    parts = np.split(np.asarray(mask), np.cumsum(dials)[:-1], axis=-1)
    goes_on = ~np.asarray(play.terminated | play.truncated)
    for number, part in enumerate(parts):
        is_trapped = ~part.any(axis=-1)
        dial = f" of dial {number}" if len(parts) > 1 else ""
        if (is_trapped & goes_on).any():
            yield Finding(
                "error",
                f"no action{dial} is legal in {np.mean(is_trapped):.2%} of the steps, "
                "and the episode goes on: the trainer then takes all of them for legal",
                "allow one action at least until the episode ends, such as to wait",
            )
        elif is_trapped.any():
            yield Finding(
                "note",
                f"no action{dial} is legal in {np.mean(is_trapped):.2%} of the steps, and each of "
                "them ends its episode: the trainer takes any action there",
                "nothing, if such an end is a part of the task",
            )


def stalls(environment: Environment, play: Play) -> Iterator[Finding]:
    """Find steps that leave the observation as it was, pay nothing and end nothing."""
    if not isinstance(environment.action_space, Discrete | MultiDiscrete):
        return
    pairs = list(zip(_arrays(play.observation), _arrays(play.observation_next)))
    is_same = [(old == new).reshape(*old.shape[:2], -1).all(axis=-1) for old, new in pairs]
    ended, reward = np.asarray(play.terminated), np.asarray(play.reward)
    share = np.mean(np.all(is_same, axis=0) & ~ended & (reward <= 0))
    if share >= MIN_STALLS and not all((old == old[:1, :1]).all() for old, _ in pairs):
        how = f"evaluation is {environment.evaluation_mode} unless --policy-mode is given"
        yield Finding(
            "note",
            f"it can stall: {share:.0%} of the random steps changed no observation and paid "
            "nothing, and a deterministic policy without a memory repeats such a step to the end",
            f"compare --policy-mode deterministic and sampled; its {how}",
        )


def _check_bounds(space: Box) -> Iterator[Finding]:
    low, high = np.asarray(space.low), np.asarray(space.high)
    if not np.isfinite(low).all() or not np.isfinite(high).all():
        yield Finding(
            "warning",
            "the action space is unbounded: actions cannot be scaled or clipped to it",
            "declare finite bounds; policy tanh-gaussian needs them",
        )
    if (low == high).any():
        yield Finding(
            "note",
            f"{int((low == high).sum())} of {low.size} action numbers have equal bounds, so there "
            "is nothing to choose",
            "leave them out of the action",
        )
    yield from _as_findings("warning", first_look.unsuited_box(space, 1.0))
