"""A run small enough for tests, on an environment whose start is always the same.

With one start and no chance in its transitions, a deterministic policy has one return, which any
loop over its steps must find.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from ppo_jax.apps.run.runner import RunResult, run
from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed import population, programs

START, LENGTH = 0.3, 6


@struct.dataclass
class WalkState(environment.EnvState):
    x: jax.Array
    time: jax.Array


@struct.dataclass
class WalkParams(environment.EnvParams):
    max_steps_in_episode: int = LENGTH
    speed: float = 0.5


class Walk(environment.Environment):
    """Left or right on a line; costs the distance from 0, ends beyond 2 or after 6 steps."""

    name = "Walk"

    @property
    def default_params(self) -> WalkParams:
        return WalkParams()

    def reset_env(self, key: jax.Array, params: WalkParams) -> tuple[jax.Array, WalkState]:
        state = WalkState(x=jnp.float32(START), time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: Any, action: Any, params: WalkParams) -> tuple:
        x = state.x + params.speed * (2 * action - 1)
        state = WalkState(x=x, time=state.time + 1)
        return self.get_obs(state), state, -jnp.abs(x), self.is_terminal(state, params), {}

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> jax.Array:
        return jnp.stack([state.x, state.time / LENGTH])

    def is_terminal(self, state: Any, params: WalkParams) -> jax.Array:
        return jnp.abs(state.x) > 2.0

    def is_truncated(self, state: Any, params: WalkParams) -> jax.Array:
        return state.time >= params.max_steps_in_episode

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: Any) -> spaces.Box:
        return spaces.Box(-4.0, 4.0, (2,))


# 7 iterations of 32 steps, as 200 is no multiple of 32.
CONFIG = Config(
    env="tiny:Walk",
    total_env_steps=200,
    num_envs=4,
    rollout_length=8,
    num_epochs=2,
    num_minibatches=2,
    hidden_sizes=(8,),
    normalize_observations=True,
)
HYPER = Hyper(learning_rate=0.01, env={"speed": 0.5})
BATCH, STEPS = 32, 224


@contextmanager
def programs_are_kept() -> Iterator[None]:
    """Runs with equal settings share their compiled programs, which saves the tests minutes."""
    make_chunk, make_evaluation = programs.make_chunk, programs.make_evaluation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(population, "make_init", lru_cache(population.make_init))
        patch.setattr(programs, "make_chunk", lru_cache(lambda *given: Kept(make_chunk(*given))))
        played = lru_cache(lambda *given: Kept(make_evaluation(*given)))
        patch.setattr(programs, "make_evaluation", played)
        yield


class Kept:
    """A program that is traced and compiled for its first arguments only."""

    def __init__(self, jitted: Any) -> None:
        self._jitted, self._lowered, self._compiled = jitted, None, None

    def lower(self, *given: Any) -> Kept:
        self._lowered = self._lowered or self._jitted.lower(*given)
        return self

    def compile(self) -> Any:
        self._compiled = self._compiled or self._lowered.compile()
        return self._compiled


def tiny_run(folder: Path, config: Config = CONFIG, hyper: Hyper = HYPER, **options: Any) -> Any:
    """A run of 3 seeds, which 2 devices have to fill up; the default budget is 224 steps."""
    settled = {"seeds": 3, "quiet": True, "eval_episodes": 4, "log_every": 2 * BATCH, **options}
    result: RunResult = run(config, hyper, out=str(folder), **settled)
    return result


class Doors(environment.Environment):
    """One step: shows one of the numbers 2, 3 and 4, and pays for the action (number - 2)."""

    name = "Doors"

    @property
    def default_params(self) -> environment.EnvParams:
        return environment.EnvParams(max_steps_in_episode=1)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, DoorState]:
        number = jax.random.randint(key, (), 2, 5)
        return number, DoorState(time=0, number=number)

    def step_env(self, key: jax.Array, state: Any, action: Any, params: Any) -> tuple:
        reward = jnp.where(action == state.number - 2, 1.0, 0.0)
        after = DoorState(time=state.time + 1, number=state.number)
        return state.number, after, reward, jnp.array(True), {}

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(3)

    def observation_space(self, params: Any) -> Any:
        return From(3, 2)


@struct.dataclass
class DoorState(environment.EnvState):
    number: jax.Array


class From(spaces.Discrete):
    """`num_categories` whole numbers from `start` on."""

    def __init__(self, num_categories: int, start: int) -> None:
        super().__init__(num_categories)
        self.start = start


class Level(Walk):
    """Walk, whose observation is one number of shape ()."""

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> jax.Array:
        return state.x

    def observation_space(self, params: Any) -> spaces.Box:
        return spaces.Box(-4.0, 4.0, ())
