"""The contract check: each breach is found, and what keeps it passes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces

from ppo_jax.apps.diagnose import contract, contract_play, random_play
from ppo_jax.envs import params as parameters
from ppo_jax.envs import registration
from ppo_jax.envs.interface import Box, Discrete, Environment


class Count(NamedTuple):
    time: jax.Array


def counting(**changes) -> Environment:
    """An environment that keeps the contract, ends after 10 steps, and can be broken."""

    def reset(key, params):
        return jax.random.uniform(key, (2,)), Count(jnp.int32(0))

    def transition(key, state, action, params):
        time = state.time + 1
        observation = jnp.stack([time / 10, jnp.float32(action)])
        return observation, Count(time), observation[1], time >= 10, jnp.bool_(False), {}

    parts = {"reset": reset, "transition": transition, **changes}
    return Environment(
        name="counting",
        default_params=(),
        observation_shape=(2,),
        observation_dtype="float32",
        action_space=Discrete(2),
        override=parameters.override,
        **{"max_episode_steps": 20, **parts},
    )


class Doubled(environment.Environment):
    """Four steps; its `done` contains the time limit, its numbers are counted from 1."""

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=4)

    def reset_env(self, key, params):
        return jnp.int32(0), environment.EnvState(time=0)

    def step_env(self, key, state, action, params):
        time = state.time + 1
        return time, environment.EnvState(time=time), action * 1.0, time >= 4, {}

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Discrete(4)


def found(environment, steps=64):
    return contract.check(environment, jax.random.key(0), steps)


def broken(change):
    """The counting environment with its transition's results passed through `change`."""
    keeps = counting()

    def transition(key, state, action, params):
        return change(key, *keeps.transition(key, state, action, params))

    return counting(transition=transition)


def test_an_environment_that_keeps_the_contract_has_no_findings():
    assert found(counting()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda k, o, s, r, d, t, i: (o[:1], s, r, d, t, i), "declares"),
        (lambda k, o, s, r, d, t, i: (o, Count(s.time * 1.0), r, d, t, i), "no loop can carry"),
        (lambda k, o, s, r, d, t, i: (o, s, r[None], d, t, i), "broadcast"),
        (lambda k, o, s, r, d, t, i: (o, s, r, d * 1.0, t, i), "broadcast"),
        (lambda k, o, s, r, d, t, i: (o, s, r / 0.0, d, t, i), "not finite"),
        (lambda k, o, s, r, d, t, i: (o, s, r, d, d, i), "at once"),
        (lambda k, o, s, r, d, t, i: (o, s, r, d & False, t, i), "limit is not kept"),
        (lambda k, o, s, r, d, t, i: (o.at[1].set(0), s, s.time / 9, d, t, i), "action changed"),
        (lambda k, o, s, r, d, t, i: (100 * o, s, r, d, t, i), "normalize-observations"),
        (
            lambda k, o, s, r, d, t, i: (o, Count(jnp.where(d, 0, s.time)), r, d, t, i),
            "resets by itself",
        ),
    ],
)
def test_each_breach_is_found_and_told(change, words):
    findings = found(broken(change))
    assert any(words in finding.what + finding.remedy for finding in findings), findings


def test_a_transition_that_cannot_be_traced_is_an_error():
    def transition(key, state, action, params):
        return (None,) if action > 0 else ()

    (finding,) = found(counting(transition=transition))
    assert finding.severity == "error"
    assert "fails" in finding.what


@pytest.mark.parametrize(
    ("change", "limit", "words"),
    [
        (lambda d, t: (d, d), 10, "end terminated and truncated at once"),
        (lambda d, t: (d, d), None, "end terminated and truncated at once"),
        (lambda d, t: (d, t), 10, "episodes end terminated after exactly 10 steps"),
        (lambda d, t: (t, d), 10, None),
        (lambda d, t: (d, t), 11, None),
        (lambda d, t: (d, t), None, None),
    ],
)
def test_a_termination_that_is_the_time_limit_is_seen(change, limit, words):
    """`d` is set after 10 steps, `t` never."""
    keeps = counting()

    def transition(key, state, action, params):
        *rest, terminated, truncated, info = keeps.transition(key, state, action, params)
        return (*rest, *change(terminated, truncated), info)

    findings = found(counting(transition=transition, max_episode_steps=limit))
    assert [words in finding.what for finding in findings] == [True] * (words is not None)


def test_a_fall_at_the_limit_is_no_sign_if_others_are_truncated_there():
    flags = np.array([True, False, True]), np.array([True, True, False])
    at_limit = np.array([True, True, False])
    assert list(contract_play._check_flags(*flags, at_limit, 10)) == []


def test_the_flags_and_numbers_of_a_gymnax_environment_are_looked_at_before_the_cast():
    """The adapter clears `truncated`, and stores numbers out of range as rows of zeros."""
    environment = registration.make(Doubled())
    play = random_play.play(environment, jax.random.key(0), 16)
    assert not np.any(play.terminated & play.truncated)
    findings = found(environment)
    assert [finding.severity for finding in findings] == ["error", "warning"]
    assert "observations 4 lie outside the declared Discrete space, 0 to 3" in (findings[0].what)
    assert "terminated and truncated at once" in findings[1].what


def test_starts_out_of_range_are_seen_as_well():
    class StartsOff(Doubled):
        def reset_env(self, key, params):
            return jnp.int32(7), environment.EnvState(time=0)

        def step_env(self, *given):
            observation, *rest = super().step_env(*given)
            return observation - 1, *rest

    assert "observations 7 lie outside" in found(registration.make(StartsOff()))[0].what


def test_equal_bounds_are_a_note_and_exchanged_ones_an_error():
    def boxed(low, high):
        def transition(key, state, action, params):
            return counting().transition(key, state, action[0], params)

        space = Box((2,), np.float32(low), np.float32(high))
        return counting(transition=transition)._replace(action_space=space)

    assert [finding.severity for finding in found(boxed([-1, 1], [1, 1]))] == ["note"]
    (finding,) = found(boxed([-1, 2], [1, 1]))
    assert finding.severity == "error"
    assert "lower bound lies above the upper one" in finding.what
    (finding,) = found(boxed([-1, np.nan], [1, 1]))
    assert "bound is NaN" in finding.what
    (finding,) = found(boxed([-1, 10], [1, 20]))
    assert (finding.severity, "outside the bounds [10, 20]" in finding.what) == ("warning", True)


def test_random_actions_keep_their_bounds():
    space = Box((4,), np.float32([-1, 5, -np.inf, -np.inf]), np.float32([1, np.inf, 5, np.inf]))
    keys = jax.random.split(jax.random.key(0), 1000)
    actions = np.asarray(jax.vmap(lambda key: random_play.random_action(space, key))(keys))
    assert (actions >= space.low).all()
    assert (actions <= space.high).all()
    assert float(actions[:, 3].std()) == pytest.approx(1.0, abs=0.1)


def test_an_unbounded_action_space_is_warned_about():
    box = Box((1,), np.full(1, -np.inf, np.float32), np.full(1, np.inf, np.float32))

    def transition(key, state, action, params):
        return counting().transition(key, state, action[0], params)

    environment = counting(transition=transition)._replace(action_space=box)
    assert ["unbounded" in finding.what for finding in found(environment)] == [True]


def test_a_gymnax_environment_passes_without_errors():
    findings = found(registration.make("CartPole-v1"), 200)
    assert not [finding for finding in findings if finding.severity == "error"]


def test_a_wall_that_a_policy_may_walk_into_for_ever_is_a_note() -> None:
    def transition(key, state, action, params):
        time = state.time + action  # action 0 meets the wall
        pay = 1.0 * (time >= 4)
        return jnp.stack([time / 4, 0.0]), Count(time), pay, time >= 4, jnp.bool_(False), {}

    def reset(key, params):
        return jnp.zeros(2), Count(jnp.int32(0))

    walled = counting(reset=reset, transition=transition, max_episode_steps=None)
    notes = [each for each in found(walled) if each.what.startswith("it can stall: ")]
    assert [note.severity for note in notes] == ["note"]
    assert "its evaluation is deterministic unless" in notes[0].remedy
    assert not any("it can stall" in each.what for each in found(counting()))


@pytest.mark.parametrize("ends, severity", [([True, False], "note"), ([False, False], "error")])
def test_a_step_without_a_legal_action_is_an_error_only_if_the_episode_goes_on(ends, severity):
    mask = np.array([[[False, False]], [[True, False]]])  # [T=2, B=1, 2]
    never = np.zeros((2, 1), bool)
    play: Any = SimpleNamespace(
        observation={"action_mask": mask}, terminated=np.array(ends)[:, None], truncated=never
    )
    findings = list(contract_play._check_masks(counting(), play))
    assert [each.severity for each in findings] == [severity]
    assert "in 50.00% of the steps" in findings[0].what


def test_a_host_that_has_moved_on_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = counting()

    def transition(key, state, action, params):
        observation, state, reward, *rest = plain.transition(key, state, action, params)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        paid = jax.pure_callback(lambda x: np.float32(x), shape, reward, vmap_method="sequential")
        return observation, state, paid, *rest

    def moved(*_: Any) -> Any:
        raise ValueError("INTERNAL: CpuCallback error")

    hosted = counting(transition=transition)
    assert found(hosted) == [contract.CALLS_HOST]
    monkeypatch.setattr(contract_play, "findings", moved)
    last = found(hosted)[-1]
    assert (last.severity, last.remedy) == ("error", contract.MOVED)
    assert "CpuCallback error" in last.what
    with pytest.raises(ValueError, match="CpuCallback"):
        found(plain)


def dealing(cards: int) -> Environment:
    """The counting environment, whose reward is a card of a deck outside of the program."""
    deck = list(range(cards))
    plain = counting()

    def deal(reward: Any) -> Any:
        if not deck:
            raise RuntimeError("no cards\nare left")
        return np.float32(reward + 0 * deck.pop())

    def transition(key, state, action, params):
        observation, state, reward, *rest = plain.transition(key, state, action, params)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        paid = jax.pure_callback(deal, shape, reward, vmap_method="sequential")
        return observation, state, paid, *rest

    return counting(transition=transition)


@pytest.mark.parametrize(
    "cards, what, remedy",
    [
        (100, "a vmapped, compiled rollout of it fails with RuntimeError: no cards", contract.MEND),
        (
            2 * 64 * 8,
            "a second step from a stored state fails with RuntimeError: no cards",
            contract.MOVED,
        ),
    ],
)
def test_an_error_of_python_that_is_called_is_a_finding_with_its_own_line(
    cards: int, what: str, remedy: str, capfd: pytest.CaptureFixture
) -> None:
    assert found(dealing(cards)) == [contract.CALLS_HOST, contract.Finding("error", what, remedy)]
    assert "Traceback" not in capfd.readouterr().err
    assert found(dealing(10**5)) == [contract.CALLS_HOST]


def test_an_error_without_a_traceback_is_quoted_by_its_first_line() -> None:
    finding = contract._fails("it", ValueError("first\nsecond"))
    assert finding.what == "it fails with ValueError: first"


class Numbers(NamedTuple):
    """Parameters of which the program reads three, each in another place."""

    start: Any = 0.0
    pay: Any = 1.0
    age: Any = 0.5
    idle: Any = 3
    max_steps_in_episode: Any = 20
    table: Any = (1.0, 2.0)


def numbered(**changes: Any) -> Environment:
    def reset(key, params):
        return jax.random.uniform(key, (2,)) + params.start, Count(jnp.int32(0))

    def transition(key, state, action, params):
        time, unread = state.time + 1, params.idle * 2.0
        observation = jnp.stack([time / 10, jnp.float32(jnp.sum(action))])
        info = {"age": params.age * time, "unread": unread}
        paid = params.pay * params.table[1] * observation[1]
        return observation, Count(time), paid, time >= 10, jnp.bool_(False), info

    numbers = {"default_params": parameters.as_numbers(Numbers()), **changes}
    made = counting(reset=reset, transition=transition)
    return made._replace(metrics=lambda info: {"age": info["age"]}, **numbers)


def test_parameters_that_nothing_depends_on_are_a_note() -> None:
    (note,) = found(numbered(max_episode_steps=parameters.time_limit))
    assert note == contract.Finding(
        "note",
        "neither reset nor transition reads idle, max_steps_in_episode, table.0: --env.idle, "
        "--env.max_steps_in_episode, --env.table.0 would do nothing",
        "read each of them there, or leave it out of the parameters; declare the time limit that "
        "is kept as max_episode_steps",
    )
    (note,) = found(numbered(max_episode_steps=15))
    assert note.remedy == "read each of them there, or leave it out of the parameters"


def test_a_parameter_that_moves_the_bounds_of_actions_alone_has_an_effect() -> None:
    space = Box((1,), np.zeros(1, np.float32), np.ones(1, np.float32))
    bounded = numbered()._replace(
        action_space=space, action_bounds=lambda params: (jnp.zeros(1), params.idle * jnp.ones(1))
    )
    assert contract._without_effect(bounded) == ["max_steps_in_episode", "table.0"]


def test_large_numbers_are_warned_about_unless_a_bound_scales_them() -> None:
    def shown(function: Any) -> Any:
        return lambda *given: ((found := function(*given))[0] * 500, *found[1:])

    plain = counting()
    large = counting(reset=shown(plain.reset), transition=shown(plain.transition))
    (warning,) = found(large)
    assert "observations reach 500" in warning.what
    assert found(large._replace(integers=(("observation", 0, 500),))) == []


def test_the_speed_is_that_of_a_compiled_random_play() -> None:
    def paused(x: Any) -> Any:
        time.sleep(0.002)
        return np.float32(x)

    def transition(key, state, action, params):
        observation, state, reward, *rest = plain.transition(key, state, action, params)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        paid = jax.pure_callback(paused, shape, reward, vmap_method="sequential")
        return observation, state, paid, *rest

    plain, key = counting(), jax.random.key(0)
    slow = contract.examine(counting(transition=transition), key, 8).steps_per_second
    assert slow is not None
    assert 0 < slow <= 1 / 0.002
    assert (contract.examine(plain, key, 64).steps_per_second or 0) > 1 / 0.002


@pytest.mark.parametrize("odd", [0.5, np.nan, 2.0])
def test_a_flag_that_is_neither_0_nor_1_is_an_error(odd: float) -> None:
    ended, never = np.zeros((20, 1), bool), np.zeros((20, 1))
    ended[9], flags = True, never.copy()
    flags[9] = odd
    play: Any = SimpleNamespace(terminated=ended, truncated=never.astype(bool))
    findings = list(contract_play._check_ends(counting(), play, (None, flags, never)))
    assert [each.severity for each in findings] == ["error"]
    assert f"terminated is {odd:.3g} at 5.00% of the steps" in findings[0].what
    flags[9] = 1.0
    assert list(contract_play._check_ends(counting(), play, (None, flags, never))) == []


def test_numbers_of_python_that_change_with_each_trace_are_found() -> None:
    calls = iter(range(9))

    def transition(key, state, action, params):
        return jnp.full(2, next(calls)), state, jnp.ones(()), jnp.bool_(False), jnp.bool_(False), {}

    (finding,) = contract._check_programs(counting(transition=transition))
    assert (finding.severity, "transition is another program" in finding.what) == ("error", True)
    assert list(contract._check_programs(counting())) == []


def test_a_play_that_does_not_fit_is_refused_before_it_takes_memory(monkeypatch) -> None:
    monkeypatch.setattr(contract.devices, "free_memory_bytes", lambda: 2000)
    assert contract.check(counting(), jax.random.key(0)) == [contract.TOO_LARGE]
