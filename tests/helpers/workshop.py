"""An environment of gymnax's API whose spaces are chosen: trees of observations, actions, masks.

Each step shows a number, an aim, a board and a lamp, and asks for a drawer, a turn and two screws.
Its state keeps the action as it came, so that a test can look at it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces


class From(spaces.Discrete):
    """`num_categories` whole numbers from `start` on."""

    def __init__(self, num_categories: int, start: int) -> None:
        super().__init__(num_categories)
        self.start = start


class Shown(NamedTuple):
    """The observation as a named tuple; its fields are not in the order of the alphabet."""

    number: Any
    aim: Any
    board: Any
    lamp: Any


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 4
    reach: float = 1.0


@struct.dataclass
class State(environment.EnvState):
    key: Any
    action: Any


OBSERVATIONS = {
    "number": From(3, 2),
    "aim": spaces.Box(-2.0, 2.0, (2,)),
    "board": spaces.Box(0, 4, (4, 4, 2), jnp.uint8),  # kinds of parts
    "lamp": spaces.Box(0, 1, (), jnp.bool_),
}
DRAWERS = 3
ACTIONS = {  # in another order than the alphabet's
    "turn": lambda p: spaces.Box(-p.reach, 2.0 * p.reach, (2,)),
    "drawer": lambda p: From(DRAWERS, 5),
    "screws": lambda p: spaces.Tuple(
        (spaces.Discrete(2), spaces.Box(np.array([1, 4]), np.array([2, 7]), (2,), jnp.int8))
    ),
}
DIALS = (DRAWERS, 2, 2, 4)  # drawer, then screws: sorted keys


class Workshop(environment.Environment):
    """Pays for the drawer `number` and for a turn that meets the aim."""

    name = "Workshop"

    def __init__(self, form: str = "dict", actions: Any = None, space: Any = None) -> None:
        self.form = form
        self.actions = actions or (lambda p: spaces.Dict({k: f(p) for k, f in ACTIONS.items()}))
        self.space = space

    @property
    def default_params(self) -> Params:
        return Params()

    def observed(self, key: Any) -> dict[str, Any]:
        keys = jax.random.split(key, 4)
        return {
            "number": jax.random.randint(keys[0], (), 2, 5),
            "aim": jax.random.uniform(keys[1], (2,), minval=-1.0),
            "board": jax.random.randint(keys[2], (4, 4, 2), 0, 5).astype(jnp.uint8),
            "lamp": jax.random.bernoulli(keys[3]),
        }

    def shown(self, key: Any) -> Any:
        seen = self.observed(key)
        if self.form == "named tuple":
            return Shown(**seen)
        if self.form == "nested":
            return {"near": (seen["number"], seen["aim"]), "far": {"board": seen["board"]}}
        return {"dict": seen, "tuple": tuple(seen.values()), "array": seen["aim"]}[self.form]

    def reset_env(self, key: Any, params: Any) -> Any:
        example = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(lambda: self.action_space(params).sample(jax.random.key(0))),
        )
        plain = dict(example) if isinstance(example, dict) else example
        return self.shown(key), State(time=0, key=key, action=plain)

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        seen = self.observed(state.key)
        reward = jnp.float32(0.0)
        if isinstance(action, dict) and "drawer" in action:
            reward += action["drawer"] - 5 == seen["number"] - 2
            reward -= jnp.mean(jnp.square(action["turn"] - seen["aim"]))
        after = State(time=state.time + 1, key=key, action=action)
        return self.shown(key), after, reward, jnp.array(False), {}

    def action_space(self, params: Any) -> Any:
        return self.actions(params)

    def observation_space(self, params: Any) -> Any:
        if self.space is not None:
            return self.space
        parts = OBSERVATIONS
        if self.form == "nested":
            near = spaces.Tuple((parts["number"], parts["aim"]))
            return spaces.Dict({"near": near, "far": spaces.Dict({"board": parts["board"]})})
        if self.form == "tuple":
            return spaces.Tuple(tuple(parts.values()))
        return parts["aim"] if self.form == "array" else spaces.Dict(parts)


class Locked(Workshop):
    """Drawers and screws are locked by turns; a method says which are open."""

    def action_mask(self, state: Any, params: Any) -> Any:
        flags = jnp.zeros(sum(DIALS), bool).at[jnp.array([1, 4, 5, 6, 9])].set(True)
        return flags.at[state.time % DRAWERS].set(True)


class LockedLeaf(Locked):
    """The same with the mask as a leaf of the observation."""

    action_mask = None  # type: ignore[assignment]

    def reset_env(self, key: Any, params: Any) -> Any:
        observation, state = super().reset_env(key, params)
        return {**observation, "action_mask": Locked.action_mask(self, state, params)}, state

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        observation, state, *rest = super().step_env(key, state, action, params)
        return {**observation, "action_mask": Locked.action_mask(self, state, params)}, state, *rest

    def observation_space(self, params: Any) -> Any:
        flags = spaces.Box(0, 1, (sum(DIALS),), jnp.bool_)
        return spaces.Dict({**OBSERVATIONS, "action_mask": flags})
