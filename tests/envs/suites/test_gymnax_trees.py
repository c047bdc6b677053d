"""Trees of gymnax's spaces: leaves and their dtypes, actions in their own form, masks, refusals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from workshop import DIALS, DRAWERS, From, Locked, LockedLeaf, Workshop

from ppo_jax.config.errors import InputError
from ppo_jax.envs import leaves, registration
from ppo_jax.envs.actions import box_of, counts_and_reals, dials_of
from ppo_jax.envs.interface import Box, MultiDiscrete, Product, action_mask

KEY = jax.random.key(0)


def started(env: Any) -> tuple[Any, Any, Any]:
    made = registration.make(env)
    return made, *made.reset(KEY, made.default_params)


# Observations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form, prefix",
    [("dict", ""), ("named tuple", ""), ("tuple", None), ("nested", "near.1")],
)
def test_each_leaf_is_stored_in_a_dtype_of_its_own(form: str, prefix: str | None) -> None:
    made, stored, _ = started(Workshop(form))
    assert jax.tree.structure(stored) == jax.tree.structure(made.observation)
    found = {name: (leaf.shape, leaf.dtype.name) for name, leaf in leaves.named(stored).items()}
    number, aim = ((3,), "bool"), ((2,), "float32")
    board, lamp = ((4, 4, 2), "uint8"), ((1,), "bool")
    assert found == {
        "tuple": {"0": number, "1": aim, "2": board, "3": lamp},
        "nested": {"near.0": number, "near.1": aim, "far.board": board},
    }.get(form, {"number": number, "aim": aim, "board": board, "lamp": lamp})
    seen = Workshop().observed(KEY)
    own = {"tuple": "0", "nested": "near.0"}.get(form, "number")
    row = np.asarray(leaves.named(stored)[own])
    assert row.tolist() == [int(seen["number"]) - 2 == i for i in range(3)]


def test_one_array_stays_one_array_beside_a_mask() -> None:
    made, stored, _ = started(Locked("array"))
    assert {name: leaf.shape for name, leaf in stored.items()} == {
        "observation": (2,),
        "action_mask": (sum(DIALS),),
    }
    assert list(leaves.shown(made)) == ["observation"]


def test_what_an_environment_shows_is_stored_as_in_training() -> None:
    for env in (Workshop(), Workshop("nested"), LockedLeaf(), Locked("tuple")):
        made, stored, _ = started(env)
        assert made.raw is not None
        shown = leaves.named(made.raw.reset(KEY, made.default_params))
        again = leaves.to_stored(made, shown)
        assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), stored, again))


# Actions ------------------------------------------------------------------------------------------


def test_joint_and_real_actions_become_dials_and_one_box() -> None:
    made = registration.make(Workshop())
    assert isinstance(made.action_space, Product)
    assert dials_of(made.action_space) == DIALS
    box = box_of(made.action_space)
    assert box is not None
    np.testing.assert_array_equal([box.low, box.high], [[-1, -1], [2, 2]])


def test_an_environment_receives_actions_in_its_own_form() -> None:
    """Drawer 5 + 2, screws 1 and (1 + 0, 4 + 3), and the turn as it is."""
    made, _, state = started(Workshop())
    action = (jnp.array([2, 1, 0, 3]), jnp.array([0.5, -0.25]))
    _, state, *_ = made.transition(KEY, state, action, made.default_params)
    taken = state.action
    assert sorted(taken) == ["drawer", "screws", "turn"]
    assert (int(taken["drawer"]), int(taken["screws"][0])) == (7, 1)
    np.testing.assert_array_equal(taken["screws"][1], [1, 7])
    assert taken["screws"][1].dtype == jnp.int8
    np.testing.assert_array_equal(taken["turn"], [0.5, -0.25])
    assert made.raw is not None
    assert made.raw.action_form is not None
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], taken)
    counts, reals = counts_and_reals(made.raw.action_form, batch)
    assert (counts.tolist(), reals.tolist()) == ([[2, 1, 0, 3]], [[0.5, -0.25]])


@pytest.mark.parametrize(
    "space, ours, action, own",
    [
        (spaces.Box(3, 5, (2, 2), jnp.int32), MultiDiscrete((3,) * 4), [0, 1, 2, 0],
         [[3, 4], [5, 3]]),
        (spaces.Box(0, 1, (), jnp.bool_), MultiDiscrete((2,)), [1], True),
        (spaces.Tuple((From(2, -1), spaces.Discrete(4))), MultiDiscrete((2, 4)), [0, 3], (-1, 3)),
    ],
)  # fmt: skip
def test_whole_numbers_count_from_their_lowest(
    space: Any, ours: Any, action: list, own: Any
) -> None:
    made, _, state = started(Workshop("array", lambda p: space))
    assert made.action_space == ours
    after = made.transition(KEY, state, jnp.array(action), made.default_params)[1]
    assert jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), after.action) == own


def test_two_boxes_are_one_and_their_bounds_follow_the_parameters() -> None:
    made, _, state = started(
        Workshop(
            "array",
            lambda p: spaces.Dict(
                {"b": spaces.Box(0.0, 9.0, ()), "a": spaces.Box(-p.reach, p.reach, (2,))}
            ),
        )
    )
    assert isinstance(made.action_space, Box)
    assert made.action_bounds is not None
    params = made.override(made.default_params, {"reach": 4.0})
    np.testing.assert_array_equal(made.action_bounds(params), [[-4, -4, 0], [4, 4, 9]])
    traced = jax.jit(lambda x: made.action_bounds(made.override(params, {"reach": x})))(3.0)
    np.testing.assert_array_equal(traced, [[-3, -3, 0], [3, 3, 9]])
    after = made.transition(KEY, state, jnp.array([1.0, 2.0, 3.0]), params)[1]
    assert after.action["b"].shape == ()
    np.testing.assert_array_equal(after.action["a"], [1.0, 2.0])


# Masks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [Locked(), LockedLeaf()])
def test_a_mask_comes_from_a_method_or_a_leaf(env: Any) -> None:
    made, stored, state = started(env)
    action = (jnp.zeros(4, jnp.int32), jnp.zeros(2))
    later = made.transition(KEY, state, action, made.default_params)[0]
    for time, observation in enumerate((stored, later)):
        mask = np.asarray(action_mask(observation))
        assert mask[:DRAWERS].tolist() == [i in (1, time) for i in range(DRAWERS)]
        assert mask.dtype == np.bool_
    assert list(leaves.shown(made)) == ["aim", "board", "lamp", "number"]
    assert leaves.mask_size(made) == sum(DIALS)


# Refusals -----------------------------------------------------------------------------------------


def masked(flags: Any) -> type:
    return type("Masked", (Workshop,), {"action_mask": lambda self, state, params: flags})


def changing(env: Any, change: Any) -> Any:
    """An environment whose step shows something else than its reset."""

    class Changing(type(env)):  # type: ignore[misc]
        def step_env(self, *given: Any) -> Any:
            observation, *rest = super().step_env(*given)
            return change(observation), *rest

    return Changing(env.form)


LAMP = jnp.array(True)
REFUSED = [
    (masked(jnp.ones(10, bool))(), r"action_mask of bool\[10\] and its actions need bool\[11\]"),
    (masked(jnp.ones(11, jnp.int8))(), r"action_mask of int8\[11\] and its actions need bool"),
    (masked([True] * 11)(), "action_mask returns a list: return one array of flags"),
    (
        masked(jnp.ones(2, bool))("array", lambda p: spaces.Box(0.0, 1.0, (2,))),
        "has an action_mask and real actions only",
    ),
    (changing(Workshop(), lambda o: {**o, "more": LAMP}), "leaf 'more' is missing from reset_env"),
    (changing(Workshop(), lambda o: {**o, "aim": LAMP}), r"leaf 'aim' is of shape \(2,\) from res"),
    (
        changing(Workshop("tuple"), lambda o: o[:2]),
        r"leaf '2' is of shape \(4, 4, 2\) from reset_env and missing from step_env",
    ),
    (Workshop("dict", space=spaces.Box(0.0, 1.0, (2,))), "returns a tree with the leaves"),
    (Workshop("array", space=spaces.Dict({"aim": spaces.Box(0, 1, (2,))})), "lacks 'aim'"),
    (
        Workshop("dict", space=spaces.Dict({"aim": spaces.Box(0, 1, (2,))})),
        "has 'board, lamp, number' besides",
    ),
    (Workshop("array", lambda p: spaces.Tuple(())), "which is empty: leave it out"),
    (Workshop("array", lambda p: spaces.Box(0, 10**6, (1,), jnp.int32)), "too many to count"),
    (Workshop("array", lambda p: object()), "only Discrete, Box, and a Tuple or Dict of them"),
]  # fmt: skip


@pytest.mark.parametrize("env, sentence", REFUSED, ids=[words[:30] for _, words in REFUSED])
def test_spaces_that_do_not_fit_are_refused_in_one_sentence(env: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        registration.make(env)
    assert "\n" not in str(refused.value)
