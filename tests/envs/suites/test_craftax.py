"""The adapter of Craftax beside its own functions."""

from __future__ import annotations

from pathlib import Path

import beside
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration
from ppo_jax.envs.interface import time_limit
from ppo_jax.storage import jsonl

pytest.importorskip("craftax", reason="pip install -e '.[craftax]'")
CLASSIC = "Craftax-Classic-Symbolic-v1"
NAME = f"craftax/{CLASSIC}"
NOOP = 0


@pytest.fixture(scope="module")
def environment():
    return registration.make(NAME)


def require_own_play(name: str, **sizes: int) -> beside.Steps:
    """Require that random play is that of Craftax's own functions; its steps."""
    from craftax.craftax_env import make_craftax_env_from_name

    env = make_craftax_env_from_name(name, auto_reset=False)
    params = env.default_params

    def step(key, state, action):
        observation, state, reward, done, _ = env.step_env(key, state, action, params)
        return observation, state, reward, done, False  # 200 steps are far from its 10,000

    environment = registration.make(f"craftax/{name}")
    reset = lambda key: env.reset_env(key, params)  # noqa: E731
    _, ours, own = beside.play(environment, reset, step, **sizes)
    beside.require_equal(ours, own)
    return own


def test_random_play_is_the_suites_own():
    assert require_own_play(CLASSIC).terminated.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Craftax-Symbolic-v1", "Craftax-Classic-Pixels-v1"])
def test_random_play_of_the_full_game_and_of_pixels_is_the_suites_own(name):
    observation = require_own_play(name, steps=50, envs=1).observation
    assert observation.shape[2:] == ((8268,) if "Symbolic" in name else (63, 63, 3))
    assert observation.std() > 0


@pytest.mark.slow
def test_a_picture_shows_the_player_in_the_middle(environment):
    params = environment.default_params
    _, state = jax.jit(environment.reset)(jax.random.key(0), params)
    sleeping = state.replace(is_sleeping=jnp.bool_(True))
    awake, asleep = (environment.render(each, params) for each in (state, sleeping))
    assert (awake.dtype, awake.shape) == ("uint8", (144, 144, 3))
    changed = (awake != asleep).any(axis=-1)
    assert changed[48:64, 64:80].any()  # of 9 x 9 fields of 16 pixels, the lowest two the inventory


def test_the_limit_is_exact_and_a_death_on_the_last_step_is_no_truncation(environment):
    beside.require_steady_types(environment)
    assert time_limit(environment, environment.default_params) == 10_000
    params = environment.override(environment.default_params, {"max_timesteps": 3})
    assert time_limit(environment, params) == 3
    step, key = jax.jit(environment.transition), jax.random.key(0)
    _, state = jax.jit(environment.reset)(key, params)
    found = []
    for _ in range(3):
        before = state
        _, state, _, *flags, _ = step(key, state, NOOP, params)
        found.append([bool(flag) for flag in flags])
    assert found == [[False, False], [False, False], [False, True]]
    dying = before.replace(player_health=jnp.zeros_like(before.player_health))
    assert [bool(flag) for flag in step(key, dying, NOOP, params)[3:5]] == [True, False]


def test_parameters_lie_on_a_vmap_axis(environment):
    def cows(health):
        params = environment.override(environment.default_params, {"cow_health": health})
        return environment.reset(jax.random.key(0), params)[1].cows.health

    found = jax.vmap(cows)(jnp.array([3, 9]))
    assert int(found[0].max()) == 3
    assert int(found[1].max()) == 9


def test_a_parameter_that_is_no_number_is_refused_and_a_factory_may_set_it(environment):
    with pytest.raises(InputError, match=r"Classic-Symbolic-v1', fractal_noise_angles=\(1, 2, 3"):
        environment.override(environment.default_params, {"fractal_noise_angles": (1, 2, 3, 4)})
    from ppo_jax.envs.suites import craftax as adapter

    params = adapter.make(CLASSIC, day_length=5).default_params
    assert (params.day_length, params.max_timesteps) == (5, 10_000)


def test_angles_are_not_offered_and_are_four_in_the_call_of_their_refusal():
    environment = registration.make(NAME)
    with pytest.raises(InputError, match=r"it has max_timesteps, .*spawn_skeleton_chance.$"):
        environment.override(environment.default_params, {"xyz": 1})
    call = rf"craftax.make\('{CLASSIC}', fractal_noise_angles=\(0.1, 0.2, 0.3, 0.4\)\)"
    with pytest.raises(InputError, match=call):
        environment.override(environment.default_params, {"fractal_noise_angles": 1})


def test_angles_decide_the_terrain_and_one_stands_for_all_points_of_its_noise():
    from ppo_jax.envs.suites import craftax as adapter

    def water(first):
        angles = (first, 0.2, None, 0.4)
        environment = adapter.make(CLASSIC, fractal_noise_angles=angles)
        keys = jax.random.split(jax.random.key(0), 2)
        states = jax.jit(jax.vmap(environment.reset, (0, None)))(keys, environment.default_params)
        return np.isin(np.asarray(states[1].map), 3)  # BlockType.WATER

    one, two = water(0.1), water(0.35)
    assert one.any()
    assert (one != two).any()
    np.testing.assert_array_equal(water(np.full((5, 5), 0.1)), one)


def test_textures_that_a_killed_process_left_are_a_sentence(tmp_path: Path, monkeypatch):
    from craftax.craftax_classic import constants

    from ppo_jax.envs.suites import craftax as adapter

    file = tmp_path / "textures.pbz2"
    file.write_bytes(b"")
    monkeypatch.setattr(constants, "TEXTURE_CACHE_FILE", str(file))
    with pytest.raises(InputError, match=r"textures.pbz2 cannot be read \(EOFError\).*delete that"):
        adapter._renderer("craftax_classic")(None, None)


@pytest.mark.usefixtures("kept_programs")
def test_the_command_line_trains_stops_and_exports_it(environment, tmp_path: Path, capsys):
    summary = beside.trained(NAME, tmp_path, capsys, "--env.max_timesteps", "30")
    assert summary["episode_length_mean"] <= 30
    assert summary["policy_mode"] == "sampled"
    rows = list(jsonl.stream_jsonl(tmp_path / "run" / "metrics.jsonl"))
    shares = [row["env/achievements/place_plant"][0] for row in rows if row["num_episodes"][0]]
    assert shares
    assert all(0 <= share <= 100 for share in shares)
    beside.require_stops_and_exports(environment, tmp_path)


def test_metrics_are_the_achievements_of_the_state_after_the_step(environment):
    from craftax.craftax_classic.constants import Achievement

    params, key = environment.default_params, jax.random.key(0)
    _, state = jax.jit(environment.reset)(key, params)
    done = state.achievements.at[Achievement.COLLECT_COAL.value].set(True)
    *_, info = jax.jit(environment.transition)(key, state.replace(achievements=done), NOOP, params)
    found = environment.metrics(info)
    assert len(found) == 22
    unlocked = {name for name, share in found.items() if share == 100}
    assert "achievements/collect_coal" in unlocked
    assert len(unlocked) == 1
