"""The adapter of MuJoCo Playground beside its own functions."""

from __future__ import annotations

import inspect
import os
import shlex
from pathlib import Path

import beside
import jax
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration
from ppo_jax.envs.interface import time_limit
from ppo_jax.envs.suite_table import SUITES

os.environ.setdefault("MUJOCO_GL", "egl")  # before MuJoCo is imported
pytest.importorskip("mujoco_playground", reason="pip install -e '.[playground]'")
NAME = "playground/CartpoleBalance"


@pytest.fixture(scope="module")
def environment():
    return registration.make(NAME)


def test_the_table_has_the_ids_that_the_suite_registers():
    from mujoco_playground import registry

    assert sorted(SUITES["playground"].ids) == sorted(registry.ALL_ENVS)


def test_random_play_is_the_suites_own(environment):
    from mujoco_playground import registry

    env = registry.load("CartpoleBalance", config_overrides={"impl": "jax"})

    def reset(key):
        state = env.reset(key)
        return state.obs, state

    def step(key, state, action):
        state = env.step(state, action)
        return state.obs, state, state.reward, state.done > 0, False

    _, ours, own = beside.play(environment, reset, step, envs=2)
    beside.require_equal(ours, own, rtol=1e-4)


def test_types_are_steady_and_the_limit_is_that_of_its_configuration(environment):
    beside.require_steady_types(environment)
    assert time_limit(environment, environment.default_params) == 1000
    space = environment.action_space
    assert (space.low.tolist(), space.high.tolist()) == ([-1.0], [1.0])


def test_what_a_factory_sets_is_refused_with_its_call(environment):
    from ppo_jax.envs.suites import playground as adapter

    params = environment.default_params
    with pytest.raises(InputError, match=r"make\('CartpoleBalance', sim_dt=0.005\)"):
        environment.override(params, {"sim_dt": 0.005})
    with pytest.raises(InputError, match=r"\*\*{'vision_config.nworld': 8}\)"):
        environment.override(params, {"vision_config.nworld": 8})
    with pytest.raises(InputError, match=r"'dt' is no parameter.* it has max_steps_in_episode.$"):
        environment.override(params, {"dt": 0.005})
    found = adapter.make("CartpoleBalance", **{"sim_dt": 0.005, "vision_config.nworld": 8})
    assert found.observation_shape == environment.observation_shape


def test_a_download_is_refused_before_it_begins(monkeypatch: pytest.MonkeyPatch):
    from mujoco_playground._src import mjx_env

    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("it fetches something"))
    monkeypatch.setattr(mjx_env, "MENAGERIE_PATH", Path("/a folder/menagerie"))
    with pytest.raises(InputError, match="needs MuJoCo Menagerie, which is not") as caught:
        registration.make("playground/Go1JoystickFlatTerrain")
    command = str(caught.value).split("`")[1]
    clone, checkout = command.split(" && ")
    address = shlex.split(clone)[2]
    assert address in inspect.getsource(mjx_env)  # that from which Playground downloads it
    assert shlex.split(clone) == ["git", "clone", address, "/a folder/menagerie"]
    wanted = ["/a folder/menagerie", "checkout", mjx_env.MENAGERIE_COMMIT_SHA]
    assert shlex.split(checkout) == ["git", "-C", *wanted]


def test_an_observation_for_the_critic_is_a_part_of_its_own():
    from ppo_jax.envs.suites.playground import _seen

    assert _seen({"state": 1, "privileged_state": 2, "pixels": 3}) == {"actor": 1, "critic": 2}
    assert _seen({"state": 1, "pixels": 3}) == 1
    assert _seen(5) == 5


@pytest.mark.usefixtures("kept_programs")
def test_the_command_line_trains_stops_and_exports_it(environment, tmp_path: Path, capsys):
    # One device: see docs/environments.md
    words = ["--env.max_steps_in_episode", "20", "--devices", "1"]
    summary = beside.trained(NAME, tmp_path, capsys, *words)
    assert summary["episode_length_mean"] == 20
    beside.require_stops_and_exports(environment, tmp_path)


def test_the_limit_cuts_a_step_that_shows_its_true_successor(environment):
    params = environment.override(environment.default_params, {"max_steps_in_episode": 3})
    push = np.ones(1, np.float32)
    assert beside.ages_at_the_cut(environment, params, push, 4) == [3, 4]
    step = jax.jit(environment.transition)
    _, state = jax.jit(environment.reset)(jax.random.key(0), params)
    seen = []
    for _ in range(4):  # it goes on, so the third observation lies between the others
        observation, state, *_ = step(jax.random.key(0), state, push, params)
        seen.append(observation[0])  # the cart's place, pushed to the right
    assert seen == sorted(seen)


def test_a_state_is_drawn_where_opengl_is(environment):
    _, state = jax.jit(environment.reset)(jax.random.key(0), environment.default_params)
    try:
        picture = environment.render(state, environment.default_params)
    except InputError as error:
        assert "install libegl1 and set MUJOCO_GL=egl" in str(error)  # noqa: PT017
        pytest.skip(str(error))
    assert (picture.dtype, picture.shape) == (np.uint8, (240, 320, 3))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20  # floor, cart and pole
