"""The public Python API, used as a reader of the README would."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_network import OWN_NETWORK
from tiny import CONFIG, HYPER, STEPS, Walk, programs_are_kept

import ppo_jax
from ppo_jax.storage import checkpoint_list

TINY: dict[str, Any] = {
    "num_envs": 2,
    "rollout_length": 4,
    "total_env_steps": 16,
    "num_epochs": 1,
    "num_minibatches": 1,
    "hidden_sizes": (8,),
}


def test_every_public_name_is_there_and_no_other_is() -> None:
    assert ppo_jax.__version__
    assert set(ppo_jax.__all__) <= set(dir(ppo_jax))
    for name in ppo_jax.__all__:
        assert getattr(ppo_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = ppo_jax.trian


def test_importing_the_package_does_not_start_jax() -> None:
    code = "import sys, ppo_jax; ppo_jax.Config(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_is_one_pure_function_to_jit_and_vmap_over_seeds_and_settings() -> None:
    config = dataclasses.replace(CONFIG, env="CartPole-v1", total_env_steps=96)

    def train(key: jax.Array, learning_rate: jax.Array) -> Any:
        hyper = ppo_jax.Hyper(learning_rate=learning_rate)
        # The start in the same program: two programs round it apart.
        return ppo_jax.init(config, hyper, key).params, *ppo_jax.train(config, hyper, key)

    grid = jax.jit(jax.vmap(jax.vmap(train, (0, None)), (None, 0)))
    keys, rates = jax.random.split(jax.random.key(0), 3), jnp.array([0.0, 0.01])
    start, state, metrics = grid(keys, rates)
    assert metrics["entropy"].shape == (2, 3, 3)  # settings, seeds, iterations
    np.testing.assert_array_equal(state.iteration, np.full((2, 3), 3))
    for before, after in zip(*map(jax.tree.leaves, (start, state.params)), strict=True):
        np.testing.assert_allclose(after[0], before[0], rtol=1e-6)
        assert not np.array_equal(after[1], before[1])


def test_a_preset_is_a_setting_to_train_with_or_to_change() -> None:
    config, hyper = ppo_jax.preset("CartPole-v1")
    assert (config.env, config.objective) == ("CartPole-v1", "clip")
    changed = dataclasses.replace(config, num_envs=16)
    assert (changed.num_envs, changed.rollout_length) == (16, config.rollout_length)
    assert isinstance(hyper, ppo_jax.Hyper)
    with pytest.raises(ppo_jax.InputError, match="Nearest: CartPole-v1"):
        ppo_jax.preset("CartPole")


def test_own_objects_are_trained_and_then_asked_for_again(tmp_path: Path) -> None:
    walk = Walk()
    config = dataclasses.replace(CONFIG, env=walk, network=OWN_NETWORK)
    folder = tmp_path / "own"
    options = ppo_jax.RunOptions(seeds=2, quiet=True, eval_episodes=2)
    with programs_are_kept():
        result = ppo_jax.run(config, HYPER, options, out=folder)
        assert (result.summary["env"], result.summary["env_steps"]) == ("Walk", STEPS)
        with pytest.raises(ppo_jax.InputError, match=r"env as a Python object.*env=\.\.\."):
            ppo_jax.evaluate(folder)
        found = ppo_jax.evaluate(folder, episodes=2, env=walk, network=OWN_NETWORK)
        assert found["final_return"] == result.summary["final_return"]
        policy = ppo_jax.load_policy(folder, seed_index=1, env=walk, network=OWN_NETWORK)
        assert policy(jnp.zeros(2)) in (0, 1)
        # A second run in the same process starts from the first one's policies.
        still = dataclasses.replace(HYPER, learning_rate=0.0)
        again = ppo_jax.run(config, still, options, out=tmp_path / "2", init_from=folder)
    for mine, other in zip(*map(jax.tree.leaves, (again.state.params, result.state.params))):
        np.testing.assert_array_equal(mine, other)


def test_environment_and_network_may_be_named_by_module_and_attribute() -> None:
    named = dataclasses.replace(CONFIG, env="tiny:Walk", network="own_network:OWN_NETWORK")
    given = dataclasses.replace(CONFIG, env=Walk(), network=OWN_NETWORK)
    states = [ppo_jax.init(config, HYPER, jax.random.key(0)) for config in (named, given)]
    for one, other in zip(*(jax.tree.leaves(state.params) for state in states)):
        np.testing.assert_array_equal(one, other)


def test_a_run_works_where_jax_has_started_with_one_device(tmp_path: Path) -> None:
    code = (
        "import sys, jax; jax.random.key(0); assert len(jax.devices()) == 1;"
        "import tiny; r = tiny.tiny_run(sys.argv[1]);"
        "assert r.exit_code == 0 and r.summary['num_seeds'] == 3"
    )
    env = {**os.environ, "XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": "1"}
    words = [sys.executable, "-c", code, str(tmp_path / "a")]
    here = Path(__file__).parent / "helpers"
    done = subprocess.run(words, cwd=here, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    newest, _ = checkpoint_list.latest(tmp_path / "a")
    assert newest is not None


@pytest.mark.parametrize(
    "env, observation_shape",
    [
        ("FrozenLake-misc", (16,)),  # whole numbers, one-hot
        ("Catch-bsuite", (10, 5)),  # a matrix that is no picture
        ("Pendulum-v1", (3,)),  # real actions
        ("Breakout-MinAtar", (10, 10, 4)),  # a grid of bits, a CNN
    ],
)
def test_gymnax_environments_train_by_name(env: str, observation_shape: tuple[int, ...]) -> None:
    config = ppo_jax.Config(env=env, **TINY)
    assert ppo_jax.make(env).observation_shape == observation_shape
    train = jax.jit(lambda key: ppo_jax.train(config, ppo_jax.Hyper(), key))
    state, metrics = train(jax.random.key(0))
    assert int(state.iteration) == 2
    assert bool(state.alive)
    assert all(np.isfinite(value).all() for value in metrics.values())


WRONG_CALLS: dict[str, Any] = {
    "folder=5 must be a path": lambda run: ppo_jax.resume(5),
    "run=None must be a path": lambda run: ppo_jax.evaluate(None),
    "run=b'x' must be a path": lambda run: ppo_jax.export(b"x"),
    "run=1.5 must be a path": lambda run: ppo_jax.debug(1.5),
    "run=() must be a path": lambda run: ppo_jax.replay(()),
    "path=5 must be a path": lambda run: ppo_jax.load_policy(5),
    "sources=None must be a path": lambda run: ppo_jax.report(None),
    "out=5 must be a path": lambda run: ppo_jax.report(run, out=5),
    "video=5 must be a path": lambda run: ppo_jax.evaluate(run, video=5),
    "seed='' must be a whole number": lambda run: ppo_jax.evaluate(run, seed=""),
    "seed=array([1, 2]) must be a": lambda run: ppo_jax.evaluate(run, seed=np.array([1, 2])),
    "member=array([0, 1]) must be": lambda run: ppo_jax.evaluate(run, member=np.array([0, 1])),
    "trust=5 must be True, False or": lambda run: ppo_jax.evaluate(run, trust=5),
    "must be a RunOptions": lambda run: ppo_jax.run(CONFIG, HYPER, {"seeds": 2}),
    "name=5 must be a preset's name": lambda run: ppo_jax.preset(5),
    "key=0 must be one typed PRNG key": lambda run: ppo_jax.train(CONFIG, HYPER, 0),
    "key=Array([0, 7], dtype=uint32) must": lambda run: ppo_jax.init(
        CONFIG, HYPER, jax.random.PRNGKey(7)
    ),
    "in this order": lambda run: ppo_jax.init(HYPER, CONFIG, jax.random.key(0)),
    "and not a tuple: give such": lambda run: ppo_jax.iterate(CONFIG, HYPER, ((), {})),
    "and not a tuple: train returns": lambda run: ppo_jax.make_policy(CONFIG, HYPER, ((), {})),
    "key=5 must be a PRNG key": lambda run: ppo_jax.load_policy(run)(np.zeros(2), 5),
}


@pytest.mark.parametrize("words", WRONG_CALLS)
def test_a_value_of_a_wrong_type_is_refused_by_one_sentence(walked: Any, words: str) -> None:
    with pytest.raises(ppo_jax.InputError, match=re.escape(words)) as caught:
        WRONG_CALLS[words](walked.folder)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_paths_and_numbers_of_numpy_are_taken_as_pythons(walked: Any) -> None:
    one = ppo_jax.evaluate(str(walked.folder), episodes=2, member=1, seed=3)
    numpys: dict[str, Any] = {"episodes": np.int64(2), "member": np.int32(1), "seed": np.uint8(3)}
    assert ppo_jax.evaluate(walked.folder, **numpys) == one
    policy = ppo_jax.load_policy(walked.folder, seed_index=np.int64(1))
    assert policy(np.zeros(2)).shape == ()
