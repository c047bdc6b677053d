"""Axes of a sweep: their reading, their refusals, and the settings that they give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ppo_jax.apps.sweep import axes, driver, rules, samplers
from ppo_jax.apps.sweep.axes import Axis, Range
from ppo_jax.apps.sweep.options import SweepOptions, parse_bytes, validate_sweep, with_changes
from ppo_jax.cli.commands.sweep import read_options
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError

RANDOM = SweepOptions(sampler="random", settings=4)


def one(word: str) -> Axis:
    return axes.parse([word])[0]


def test_a_list_has_commas_and_a_range_two_points() -> None:
    assert one("clip_epsilon=0.1,0.2") == Axis("clip_epsilon", (0.1, 0.2))
    assert one("gamma=0.9..0.99") == Axis("gamma", (), Range(0.9, 0.99, False))
    assert one("lr=1e-4..1e-2:log") == Axis("learning_rate", (), Range(1e-4, 1e-2, True))
    assert one("hidden_sizes=64x64,128") == Axis("hidden_sizes", ((64, 64), (128,)))
    assert one("objective=clip,kl") == Axis("objective", ("clip", "kl"))
    assert one("env.length=1,2.5") == Axis("env.length", (1, 2.5))
    assert one("learning-rate=1e-3:0,1e-4") == Axis("learning_rate", (Schedule(1e-3, 0.0), 1e-4))


def test_a_number_of_points_makes_a_list_of_a_range() -> None:
    assert one("gamma=0.5..1:3").choices == (0.5, 0.75, 1.0)
    np.testing.assert_allclose(one("learning_rate=1e-4..1e-2:3:log").choices, (1e-4, 1e-3, 1e-2))
    assert one("learning_rate=1e-4..1e-2:log:3") == one("learning_rate=1e-4..1e-2:3:log")
    assert one("num_envs=8..16:3").choices == (8, 12, 16)


@pytest.mark.parametrize(
    "word, words",
    [
        ("learning_rat=1,2", "Nearest: learning_rate"),
        ("ent_coef=0,1", "Its name here: entropy_coef"),
        ("gamma=0.9..0.9", "is empty"),
        ("gamma=1..0", "is empty"),
        ("learning_rate=0..1:log", "logarithm of 0"),
        ("learning_rate=-1..1:log", "logarithm of -1"),
        ("learning_rate=..1", "'nothing' is not a finite number"),
        ("learning_rate=1..inf", "'inf' is not a finite number"),
        ("learning_rate=1..2:three", "is not a range"),
        ("gamma=0.1..0.9:1", "at least 2 points"),
        ("num_envs=8..64", "list the values"),
        ("objective=clip..kl", "is not a number"),
        ("gamma=0.9,,0.8", "empty place"),
        ("gamma=0.9,0.9", "names 0.9 twice"),
        ("gamma=high", "is not a number"),
        ("num_envs=8,9.5", "must be a whole number"),
        ("seeds=1,2", "--seeds"),
        ("total_env_steps=1,2", "--total-env-steps"),
        ("env=A,B", "env is not an axis"),
        ("gamma", "is not an axis"),
    ],
)
def test_a_bad_axis_is_refused_with_a_sentence(word: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        one(word)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"gamma": 0.99}, "axis gamma=0.99 is no list of values: write them as [0.9, 0.99]"),
        ({"gamma": None}, "axis gamma=None is no list of values"),
        ({"gamma": np.array(0.9)}, "is no list of values"),
        ({"gamma": np.array([[0.9, 0.99]])}, "gamma=[0.9, 0.99] must be a number or a schedule"),
        ({"num_envs": np.array([[8, 16]])}, "num_envs=[8, 16] must be a whole number"),
        ({3: [1.0]}, "'3' is not a field that a sweep can vary"),
        (["gamma=0.9,0.99"], "must map names to values, such as {'gamma': [0.9, 0.99]}"),
        ("gamma=0.9,0.99", "must map names to values"),
        (None, "axes=None must map names to values"),
        (np.zeros((3, 2)), "axes=array([[0., 0.], [0., 0.], [0., 0.]]) must map names"),
    ],
)
def test_axes_of_the_wrong_kind_are_refused_in_python(given: Any, words: str) -> None:
    with pytest.raises(InputError) as error:
        driver.sweep(Config(), given)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_of_an_array_are_widths_of_layers_and_axes_may_be_read_before() -> None:
    (axis,) = axes.from_python({"hidden_sizes": np.array([[64, 64], [32, 16]])})
    assert axis.choices == ((64, 64), (32, 16))
    assert axes.from_python([axis]) == (axis,)


def test_a_path_is_a_name_of_the_folder() -> None:
    for given in (SweepOptions(out=Path("a/b")), SweepOptions()):
        assert with_changes(given, {"out": Path("a/b")}).out == "a/b"
        assert with_changes(given, {}).out in ("a/b", None)


def test_an_axis_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="given twice"):
        axes.parse(["lr=1,2", "learning_rate=3,4"])


def test_grid_refuses_a_range_and_names_the_number_of_points() -> None:
    with pytest.raises(InputError, match=r"gamma=0.5..0.9:5 \(or choose --sampler random "):
        axes.check([one("gamma=0.5..0.9")], SweepOptions())
    axes.check([one("gamma=0.5..0.9")], RANDOM)


@pytest.mark.parametrize("sampler", ["halving", "pbt"])
def test_one_population_takes_no_axis_that_changes_the_program(sampler: str) -> None:
    options = SweepOptions(sampler=sampler, settings=4)
    with pytest.raises(InputError, match="num_envs changes the compiled program"):
        axes.check([one("num_envs=8,16")], options)
    axes.check([one("gamma=0.5..0.9"), one("env.length=1..2")], options)


@pytest.mark.parametrize("word", ["gamma=0.5,1.5", "gamma=0.5..1.5", "learning_rate=-1..1"])
def test_a_value_that_no_run_can_have_is_refused_before_anything_starts(word: str) -> None:
    with pytest.raises(InputError, match="must be"):
        axes.check_values([one(word)], Config(), Hyper())


def test_a_word_that_is_no_choice_is_refused_and_a_number_that_other_axes_may_fit_is_not() -> None:
    for word in ("objective=clip,foo", "activation=tanh,foo", "shuffle=foo"):
        with pytest.raises(InputError, match="='foo' is not one of"):
            axes.check_values([one(word)], Config(), Hyper())
    fine = axes.parse(["num_envs=5,8", "num_minibatches=5,4", "objective=clip,drift,spo"])
    axes.check_values(fine, Config(), Hyper())


def test_the_grid_is_every_combination_and_the_last_axis_changes_fastest() -> None:
    found = axes.grid(axes.parse(["gamma=0.1,0.2", "objective=clip,kl"]))
    assert found == [
        {"gamma": 0.1, "objective": "clip"},
        {"gamma": 0.1, "objective": "kl"},
        {"gamma": 0.2, "objective": "clip"},
        {"gamma": 0.2, "objective": "kl"},
    ]


def test_halving_without_a_number_of_settings_takes_every_point_in_random_order() -> None:
    known = axes.parse(["gamma=0.1,0.2,0.3,0.4", "clip_epsilon=0.1,0.2"])
    found = samplers.shuffled_grid(known, (0, 1))
    assert found != axes.grid(known)
    assert sorted(found, key=str) == sorted(axes.grid(known), key=str)
    with pytest.raises(InputError, match="is a range"):
        axes.check([one("gamma=0.5..0.9")], SweepOptions(sampler="halving"))


def test_values_go_where_they_belong() -> None:
    values = {"gamma": 0.5, "num_envs": 4, "env.length": 2}
    config, hyper = axes.apply(Config(), Hyper(env={"force": 1}), values)
    assert (config.num_envs, hyper.gamma, hyper.env) == (4, 0.5, {"force": 1, "length": 2})


def test_random_settings_are_uniform_on_their_scale_and_prefixes_of_more() -> None:
    known = axes.parse(["learning_rate=1e-4..1e-2:log", "gamma=0..1", "objective=clip,kl"])
    many = samplers.random(known, 4000, np.random.default_rng(0))
    assert samplers.random(known, 10, np.random.default_rng(0)) == many[:10]
    rates = np.log10([values["learning_rate"] for values in many])
    # The mean of n uniform numbers of width w is off by w / sqrt(12 n) at one standard deviation.
    assert abs(rates.mean() + 3.0) < 4 * 2.0 / np.sqrt(12 * 4000)
    assert rates.min() >= -4.0 - 1e-9
    assert rates.max() <= -2.0 + 1e-9
    assert abs(np.mean([values["gamma"] for values in many]) - 0.5) < 4 / np.sqrt(12 * 4000)
    clips = sum(values["objective"] == "clip" for values in many)
    assert abs(clips - 2000) < 4 * np.sqrt(1000)


def test_whole_parameters_of_an_environment_stay_whole() -> None:
    class Params(NamedTuple):
        limit: Any = np.int32(100)
        length: Any = np.float32(0.5)

    known = axes.parse(["env.limit=1.5..4.2", "env.length=1..2"])
    limit, length = samplers.whole_env_ranges(known, Params())
    assert limit.choices == (2, 3, 4)
    assert length.range == Range(1.0, 2.0, False)
    with pytest.raises(InputError, match="no whole number"):
        samplers.whole_env_ranges([one("env.limit=1.2..1.8")], Params())
    with pytest.raises(InputError, match="holds 1000000000 whole numbers"):
        samplers.whole_env_ranges([one("env.limit=1..1e9")], Params())
    (few,) = samplers.whole_env_ranges([one("env.limit=3..5:3")], Params())
    assert few.choices == (3, 4, 5)
    assert all(isinstance(choice, int) for choice in few.choices)


def test_a_log_range_of_whole_numbers_stays_logarithmic() -> None:
    (axis,) = samplers.whole_env_ranges([one("env.limit=1..1e6:log")], {"limit": np.int32(1)})
    drawn = [each["env.limit"] for each in samplers.random([axis], 4000, np.random.default_rng(0))]
    assert all(isinstance(value, int) and 1 <= value <= 10**6 for value in drawn)
    # Half of a log-uniform draw lies below the square root of (1 - 1/2) x (10^6 + 1/2), 707.
    assert abs(np.mean(np.array(drawn) < 707.1) - 0.5) < 4 * 0.5 / np.sqrt(4000)
    assert drawn.count(1) > 200  # log(3) / log(2e6), 0.076 of all
    generators = [np.random.default_rng(seed) for seed in range(40)]
    moved = {rules.explore([axis], {"env.limit": 2}, g)["env.limit"] for g in generators}
    assert {1, 3} < moved
    assert all(isinstance(value, int) for value in moved)


def test_lists_and_truths_are_values_of_an_environments_axis() -> None:
    assert one("env.wind=[1,2],[3,4.5]") == Axis("env.wind", ((1, 2), (3, 4.5)))
    assert one("env.flag=true,false") == Axis("env.flag", (True, False))
    (rows,) = axes.from_mapping({"env.wind": np.array([[1, 2], [3, 4]])})
    assert rows == Axis("env.wind", ((1, 2), (3, 4)))
    assert samplers.whole_env_ranges([rows], {"wind": np.zeros(2, np.int32)}) == (rows,)
    plain, changes = samplers.from_arrays(Hyper(env={"wind": [1.0, 2.0], "mass": np.ones(3)}))
    assert plain.env == {"wind": [1.0, 2.0], "mass": 1.0}
    assert changes == [{"env.mass": 1.0}] * 3


def test_arrays_in_hyper_are_settings() -> None:
    hyper = Hyper(learning_rate=np.array([1e-3, 1e-4]), gamma=0.9, env={"length": np.array([1, 2])})
    plain, changes = samplers.from_arrays(hyper)
    assert (plain.learning_rate, plain.gamma, plain.env) == (1e-3, 0.9, {"length": 1})
    assert changes == [
        {"learning_rate": 1e-3, "env.length": 1},
        {"learning_rate": 1e-4, "env.length": 2},
    ]
    with pytest.raises(InputError, match="one length"):
        samplers.from_arrays(Hyper(learning_rate=np.ones(2), gamma=np.ones(3)))


def test_the_budget_in_all_gives_what_is_left_open() -> None:
    config = Config(total_env_steps=1024, num_envs=8, rollout_length=32)  # 4 iterations of 256
    same, count = samplers.settle_budget(config, "random", 10_000, None, 2)
    assert (same.total_env_steps, count) == (1024, 4)  # 10,000 / (2 x 1,024)
    shorter, count = samplers.settle_budget(config, "grid", 3 * 2 * 512 + 5, 3, 2)
    assert (shorter.total_env_steps, count) == (512, 3)
    with pytest.raises(InputError, match="is less than 2048"):
        samplers.settle_budget(config, "random", 2047, None, 2)


def test_grids_of_millions_of_points_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="at most 100000"):
        axes.parse(["learning_rate=1e-4..1:1000000000"])
    known = axes.parse([f"{name}=0.1..0.9:3000" for name in ("gamma", "gae_lambda")])
    with pytest.raises(InputError, match="has 9000000 points, and a sweep takes at most 100000"):
        axes.check(known, SweepOptions())
    axes.check(known, SweepOptions(sampler="random", settings=10))


def test_a_long_list_is_read_without_comparing_all_pairs() -> None:
    rates = [0.1 / (i + 1) for i in range(100_000)]
    assert len(axes.from_mapping({"learning_rate": rates})[0].choices) == 100_000
    with pytest.raises(InputError, match="has 100001 values: give at most 100000"):
        axes.from_mapping({"learning_rate": [*rates, 1.0]})


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"sampler": "gird"}, "Nearest: grid"),
        ({"sampler": "random"}, "needs --settings"),
        ({"settings": 3}, "tries every point"),
        ({"batch": 4}, "belongs to sampler tpe"),
        ({"packs": 4, "sampler": "halving"}, "belongs to sampler grid and random"),
        ({"storage": "a.log"}, "choose --sampler tpe, or --join"),
        ({"join": True}, "give --out DIR"),
        ({"ray_gpus": 0.5}, "needs --engine ray"),
        ({"hosts": "auto", "engine": "ray"}, "each pack together, and engine ray"),
        ({"hosts": "auto", "join": True, "out": "x"}, "each pack together, and --join"),
        ({"hosts": "auto", "sampler": "pbt"}, "this sweep's is pbt: leave the hosts out."),
        ({"coordinator": "a:1"}, "give all three"),
        ({"engine": "ray", "ray_gpus": -1.0}, "0 or more"),
        ({"engine": "ray", "join": True, "out": "a"}, "leave one of them out"),
        ({"join": True, "sampler": "tpe", "settings": 3, "out": "a"}, "leave --join out"),
        ({"sampler": "halving", "settings": 4, "eta": 1}, "at least 2"),
        ({"device_memory": "lots"}, "512M or 8G"),
        ({"seeds": 0}, "at least 1"),
        ({"sampler": "random", "settings": 10**9}, "at most 100000"),
        ({"layout": "envs"}, "auto, measure, map, vmap"),
    ],
)
def test_bad_options_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        validate_sweep(SweepOptions(**changes))


def test_ray_is_given_its_own_word_auto() -> None:
    given = {"engine": "ray", "ray_address": "auto", "devices": "auto"}
    found = read_options(given)
    assert (found.ray_address, found.devices) == ("auto", None)


def test_sizes_of_memory_are_read() -> None:
    assert [parse_bytes(text) for text in ("1", "2K", "1.5M", "8G", "1GiB")] == [
        *(1, 2048, 1_572_864, 8 * 2**30, 2**30)
    ]


@pytest.mark.parametrize(
    "word, words",
    [
        ("learning_rate=0..1:log", "logarithm of 0"),
        ("objective=clip,foo", "objective='foo' is not one of clip"),
    ],
)
def test_the_command_refuses_bad_axes_without_jax_and_writes_nothing(
    word: str, words: str, tmp_path
) -> None:
    code = (
        "import sys; from ppo_jax.cli.main import main; "
        f"code = main(['sweep', 'CartPole-v1', {word!r}, '--out', 'made']); "
        "assert 'jax' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_axis_that_nothing_reads_is_named() -> None:
    swept = axes.parse(["kl_coef=1,2", "momentum=0.5,0.9", "learning_rate=1,2"])
    assert axes.without_readers(swept, Config(), Hyper()) == [
        "kl_coef has no effect with objective clip",
        "momentum has no effect with optimizer adam",
    ]
    assert axes.without_readers(swept[2:], Config(), Hyper()) == []
    assert axes.without_readers(swept[:1], Config(objective="kl"), Hyper()) == []
    both = axes.parse(["kl_coef=1,2", "objective=clip,kl"])
    assert axes.without_readers(both, Config(), Hyper()) == []
