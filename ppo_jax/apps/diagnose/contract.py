"""The check of the environment contract; each breach is a sentence.

This file traces, `contract_play` looks at a random play.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.interpreters import partial_eval

from ppo_jax.apps.diagnose import contract_play, memory_need
from ppo_jax.apps.diagnose.contract_play import Finding
from ppo_jax.apps.diagnose.random_play import (
    NUM_ENVS,
    NUM_STEPS,
    play_host,
    play_twice,
    random_action,
)
from ppo_jax.envs import params as parameters
from ppo_jax.envs import slips
from ppo_jax.envs.actions import example_action
from ppo_jax.envs.interface import Environment, time_limit
from ppo_jax.runtime import devices

MOVED = "keep all state in what reset and transition return: a state of the host has moved on"
MEND = "mend the Python function that the program calls, or write it in jax.numpy"
CALLS_HOST = Finding(
    "warning",
    "it calls Python while the program runs: state that is kept there is in no checkpoint, so "
    "resumed and repeated runs would differ, and every step waits for the host",
    "write it in jax.numpy, or make sure that the Python function has no state",
)


TOO_LARGE = Finding(
    "error",
    "one step of it does not fit into the memory that is free",
    "return a smaller observation and state; a Discrete observation of n becomes n numbers",
)


class Examined(NamedTuple):
    """A check and what its random play measured."""

    findings: list[Finding]
    steps_per_second: float | None = None  # in NUM_ENVS environments


def check(environment: Environment, key: Array, num_steps: int = NUM_STEPS) -> list[Finding]:
    """The findings of `examine`."""
    return examine(environment, key, num_steps).findings


def examine(environment: Environment, key: Array, num_steps: int = NUM_STEPS) -> Examined:
    """Everything that can be found wrong with `environment` by tracing and playing it.

    Args:
        key: start states, transitions and random actions are drawn from it.
        num_steps: steps of each of NUM_ENVS environments, or of all if it is stepped outside jax.
    """
    if environment.host is not None:
        return _examine_host(environment, key, max(1, num_steps // NUM_ENVS))
    findings = list(_check_types(environment))
    if any(finding.severity == "error" for finding in findings):
        return Examined(findings)  # it cannot be played
    findings += _check_programs(environment)
    num_steps = min(num_steps, _affordable(environment))
    if num_steps < 1:
        return Examined([*findings, TOO_LARGE])
    calls_host = _calls_host(environment)
    if calls_host:
        findings.append(CALLS_HOST)
    with _errors_once():
        return _examine_play(environment, key, num_steps, findings)


def _examine_play(
    environment: Environment, key: Array, num_steps: int, findings: list[Finding]
) -> Examined:
    """A random play, after the findings of the trace."""
    try:
        play, again, seconds = play_twice(environment, key, num_steps)
    except Exception as error:
        return Examined([*findings, _fails("a vmapped, compiled rollout of it", error)])
    speed = NUM_ENVS * num_steps / seconds
    try:
        findings += contract_play.findings(environment, play, again, key)
        findings += memory_need.findings(environment, play)
    except Exception as error:
        if CALLS_HOST not in findings:
            raise
        moved = _fails("a second step from a stored state", error)._replace(remedy=MOVED)
        return Examined([*findings, moved], speed)
    return Examined([*findings, *_check_parameters(environment, key)], speed)


def _examine_host(environment: Environment, key: Array, num_steps: int) -> Examined:
    """An environment that is stepped outside jax: its own library's checker, and a random play."""
    assert environment.host is not None
    remedy = "see its own library's guide for environments"
    findings = [Finding("warning", each, remedy) for each in environment.host.check()]
    play, seconds, error = play_host(environment, key, num_steps)
    if error is not None:
        findings.append(_fails("a random play of it", error))
    if play is None:
        return Examined(findings)
    shown = jax.tree.leaves((play.observation, play.observation_next, play.reward))
    is_finite = [np.isfinite(each).reshape(*each.shape[:2], -1).all(axis=-1) for each in shown]
    share = np.mean(~np.all(is_finite, axis=0))
    if share:
        what = f"{share:.2%} of its steps show or pay a number that is not finite"
        remedy = "find the division or overflow behind it, or train with --drop-bad-transitions"
        findings.append(Finding("error", f"{what}: the first ends training", remedy))
    findings += contract_play.stalls(environment, play)
    return Examined(findings, None if error else play.reward.size / seconds)


def _calls_host(environment: Environment) -> bool:
    """Check for a transition or reset that calls Python while the program runs."""
    params, key = environment.default_params, jax.random.key(0)
    _, state = jax.eval_shape(environment.reset, key, params)
    action = jax.eval_shape(lambda key: random_action(environment.action_space, key), key)
    programs = (
        jax.make_jaxpr(environment.reset)(key, params),
        jax.make_jaxpr(environment.transition)(key, state, action, params),
    )
    return any(re.search(r"\b(pure|io)_callback\[", str(program)) for program in programs)


def _without_effect(environment: Environment) -> list[str]:
    """The parameters that the traced programs do not depend on, by dotted name."""
    params, key = environment.default_params, jax.random.key(0)
    _, state = jax.eval_shape(environment.reset, key, params)
    action = example_action(environment.action_space)

    def step(params: Any, state: Any, action: Any) -> Any:
        *seen, info = environment.transition(key, state, action, params)
        return seen, environment.metrics(info) if environment.metrics else ()

    programs = [
        jax.make_jaxpr(lambda params: environment.reset(key, params))(params),
        jax.make_jaxpr(step)(params, state, action),
    ]
    if environment.action_bounds is not None:
        programs.append(jax.make_jaxpr(environment.action_bounds)(params))
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    is_used = np.zeros(len(paths), bool)
    for program in programs:
        outputs = [True] * len(program.jaxpr.outvars)
        is_used |= partial_eval.dce_jaxpr(program.jaxpr, outputs)[1][: len(paths)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    return [name for name, is_so in zip(names, is_used) if not is_so]


def _check_programs(environment: Environment) -> Iterator[Finding]:
    """Find Python that a compiled program runs only once: two traces of it must be equal."""
    params, key = environment.default_params, jax.random.key(0)
    _, state = jax.eval_shape(environment.reset, key, params)
    action = example_action(environment.action_space)

    def once(function: Any, *given: Any) -> list[Any]:
        def anew(*given: Any) -> Any:  # jax keeps the trace of a function that it knows
            return function(*given)

        program = jax.make_jaxpr(anew)(*given)
        text = re.sub(r"0x[0-9a-f]+", "", str(program))
        return [text, *(content(each) for each in program.consts)]

    def content(constant: Any) -> bytes:
        is_key = jnp.issubdtype(jnp.result_type(constant), jax.dtypes.extended)
        return np.asarray(jax.random.key_data(constant) if is_key else constant).tobytes()

    for word, *given in (
        ("reset", environment.reset, key, params),
        ("transition", environment.transition, key, state, action, params),
    ):
        if once(*given) != once(*given):
            yield Finding(
                "error",
                f"{word} is another program each time it is traced: a number of Python's, such as "
                "of np.random, a clock or a counter in self, is fixed when it is compiled",
                "draw from the key that is given, and keep what changes in the state",
            )


def _affordable(environment: Environment) -> int:
    """The steps of a random play whose record takes at most a quarter of the free memory."""
    seen = jax.eval_shape(environment.reset, jax.random.key(0), environment.default_params)
    # A play is computed twice, and each holds what was before and after every step.
    one = 4 * NUM_ENVS * sum(math.prod(leaf.shape) * 8 for leaf in jax.tree.leaves(seen))
    return devices.free_memory_bytes() // (4 * max(one, 1))


@contextmanager
def _errors_once() -> Iterator[None]:
    """Keep jax from printing an error of Python that a program calls: a finding quotes it."""
    log = logging.getLogger("jax._src.callback")
    was, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = was


def _fails(what: str, error: Exception) -> Finding:
    lines = str(error).strip().split("\n")
    reason, remedy = f"{type(error).__name__}: {lines[0]}", slips.remedy(error)
    if "Traceback (most recent call last)" in str(error):  # from Python that the program called
        frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
        reason, remedy = [*lines[max(frames, default=0) + 1 :], lines[-1].strip()][0], MEND
    return Finding("error", f"{what} fails with {reason}", remedy)


def _check_types(environment: Environment) -> Iterator[Finding]:
    """Shapes, dtypes and structures, by tracing alone."""
    params, key = environment.default_params, jax.random.key(0)
    try:
        observation, state = jax.eval_shape(environment.reset, key, params)
        action = jax.eval_shape(lambda key: random_action(environment.action_space, key), key)
        step = jax.eval_shape(environment.transition, key, state, action, params)
        observation_next, state_next, reward, terminated, truncated, _ = step
    except Exception as error:
        yield _fails("tracing reset and transition", error)
        return
    yield from _check_observations(environment, observation, observation_next)
    yield from _check_states(state, state_next)
    for word, value, dtype in (
        ("reward", reward, jnp.floating),
        ("terminated", terminated, jnp.bool_),
        ("truncated", truncated, jnp.bool_),
    ):
        if value.shape != () or not jnp.issubdtype(value.dtype, dtype):
            yield Finding(
                "error",
                f"{word} is {value.dtype}{list(value.shape)}: shapes would broadcast silently",
                f"return one {'float' if word == 'reward' else 'bool'} of shape ()",
            )


def _check_observations(environment: Environment, first: Any, later: Any) -> Iterator[Finding]:
    declared = _kinds(environment.observation)
    for word, value in (("reset", first), ("transition", later)):
        if _kinds(value) != declared:
            yield Finding(
                "error",
                f"{word} returns an observation of shape and dtype {_kinds(value)}, the "
                f"environment declares {declared}: the network would be built for another input",
                "make the declared observation that of what is returned",
            )
    for leaf in jax.tree.leaves(first):
        if 0 in leaf.shape:
            yield Finding(
                "error",
                f"an observation of shape {list(leaf.shape)} holds no number",
                "return a constant, such as jnp.ones(1), if there is nothing to see",
            )


def _kinds(observation: Any) -> Any:
    return jax.tree.map(lambda leaf: f"{leaf.dtype.name}{list(leaf.shape)}", observation)


def _check_states(state: Any, state_next: Any) -> Iterator[Finding]:
    if jax.tree.structure(state) != jax.tree.structure(state_next):
        yield Finding(
            "error",
            "reset and transition return states of different structure, which no loop can carry",
            "return the same fields from both",
        )
        return
    pairs = list(zip(*map(jax.tree.leaves_with_path, (state, state_next)), strict=True))
    for (path, before), (_, after) in pairs:
        name = jax.tree_util.keystr(path)
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            yield Finding(
                "error",
                f"state{name} is {before.dtype}{list(before.shape)} after reset and "
                f"{after.dtype}{list(after.shape)} after transition, which no loop can carry",
                "cast it to one dtype and shape in both",
            )
        elif before.weak_type != after.weak_type:
            yield Finding(
                "warning",
                f"state{name} is weakly typed after only one of reset and transition: the program "
                "would be compiled twice",
                "write jnp.asarray(value, dtype) instead of a Python number",
            )


def _check_parameters(environment: Environment, key: Array) -> Iterator[Finding]:
    params = environment.default_params
    if not jax.tree.leaves(params):
        return
    if idle := _without_effect(environment):
        flags = ", ".join(f"--env.{name}" for name in idle)
        remedy = "read each of them there, or leave it out of the parameters"
        is_limit = time_limit(environment, params) == parameters.time_limit(params)
        if "max_steps_in_episode" in idle and is_limit:
            remedy += "; declare the time limit that is kept as max_episode_steps"
        what = f"neither reset nor transition reads {', '.join(idle)}: {flags} would do nothing"
        yield Finding("note", what, remedy)

    def one(params: Any) -> Any:
        _, state = environment.reset(key, params)
        action = random_action(environment.action_space, key)
        return environment.transition(key, state, action, params)[:5]

    try:
        stacked = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), params)
        jax.eval_shape(jax.vmap(one), stacked)
    except Exception as error:
        yield Finding(
            "warning",
            f"its parameters cannot lie on a vmap axis ({type(error).__name__}): sweeps over "
            "--env.NAME would fail",
            "use the parameters in jax.numpy only, not in Python branches or shapes",
        )
