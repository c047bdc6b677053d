"""Names of suites: each slip ends in one sentence, and nothing is imported to find it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ppo_jax.cli.main import main
from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration
from ppo_jax.envs import suite_table as table
from ppo_jax.envs.suites.gymnax import names as gymnax_names

FOLDER = Path(table.__file__).parent / "suites"
NOWHERE = table.Suite("nowhere", "no_such_package", "a suite that is not installed", ("Walk-v0",))
NEWER = NOWHERE._replace(name="newer", python=(9, 9))


@pytest.fixture(autouse=True)
def _more_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SUITES", {**table.SUITES, "nowhere": NOWHERE, "newer": NEWER})


@pytest.mark.parametrize(
    "name, words",
    [
        ("nowhere/Wolk-v0", "no environment of the suite nowhere: `ppo-jax envs nowhere` lists"),
        ("nowhere/Wolk-v0", "Nearest: nowhere/Walk-v0."),
        ("nowhere/my:Walk", "no environment of the suite nowhere"),  # no module:attribute
        ("nowere/Walk-v0", "write nowhere/Walk-v0 or newer/Walk-v0."),
        ("nowere/Wolk-v0", "'nowere' is no suite of environments"),
        ("nowere/Wolk-v0", "Nearest: nowhere/Walk-v0, newer/Walk-v0."),
        ("nowere/Quux-v0", "Nearest: nowhere, newer."),
        ("NoWhere/walk-v1", "write nowhere/Walk-v0."),  # in that suite alone
        ("/walk", "write nowhere/Walk-v0 or newer/Walk-v0."),
        ("NoWhere", "is a suite: name one of its environments, which `ppo-jax envs nowhere` l"),
        ("nowhere/", "is a suite: name one of its environments, which `ppo-jax envs nowhere` l"),
        ("gymnax", "which `ppo-jax envs gymnax` lists"),
        ("craftax", "which `ppo-jax envs craftax` lists"),
        ("probe", "which `ppo-jax envs probe` lists"),
        ("gymnax/CartPole-v1", "names of gymnax have none: write CartPole-v1."),
        ("gymnax/CartPol-v1", "`ppo-jax envs gymnax` lists them. Nearest: CartPole-v1."),
        ("probe/time-limit", "names of probe have none: write probe:time-limit."),
        ("dm_control/CartpoleBalance", "write playground/CartpoleBalance."),
        ("mujoco/HalfCheetah", "write gymnasium/HalfCheetah-v5 or brax/halfcheetah."),
        ("xland/MiniGrid-Empty-5x5", "write xminigrid/MiniGrid-Empty-5x5."),
        ("brax/CartpoleBalance", "Nearest: playground/CartpoleBalance."),
        ("BRAX/Ant", "write brax/ant."),
        ("/ant", "write brax/ant or gymnasium/Ant-v5."),
        ("ant", "write brax/ant or gymnasium/Ant-v5."),
        ("breakout", "Nearest: Breakout-MinAtar, pgx/minatar-breakout."),
        ("Gymnasium/cartpole", "write gymnasium/CartPole-v1."),
        ("pgx/bridge_bidding", "is left out, as bridge needs tables that are downloaded apart: "),
        ("popgym", "'.[popgym]', and write gymnasium/popgym:popgym-RepeatPreviousEasy-v0."),
        ("popgym/CountRecallHard", "write gymnasium/popgym:popgym-CountRecallHard-v0."),
        ("popgym/popgym-CountRecallHard-v0", "write gymnasium/popgym:popgym-CountRecallHard-v0."),
        ("ALE/Breakout-v5", "ale-py, and write gymnasium/ale_py:ALE/Breakout-v5."),
        ("atari/Breakout", "ale-py, and write gymnasium/ale_py:ALE/Breakout-v5."),
        ("./env.py:Walk", "package.module:attribute"),
        ("nowhere:Walk-v0", "has a slash, nowhere/Walk-v0."),
        ("nowhere:Wolk-v0", "has a slash, nowhere/ID. Nearest: nowhere/Walk-v0."),
        ("walk-V0", "write nowhere/Walk-v0 or newer/Walk-v0."),
        ("MiniGrid-Empty-5x5", "write xminigrid/MiniGrid-Empty-5x5."),
        ("MiniGrid-Emty-5x5", "Nearest: xminigrid/MiniGrid-Empty-5x5"),
        ("nowhere/Walk-v0", "pip install -e '.[nowhere]'"),
        ("newer/Walk-v0", "Python 9.9 or later, and there pip install -e '.[newer]'"),
    ],
)
@pytest.mark.parametrize("ask", [registration.check_name, registration.make])
def test_a_slip_in_a_name_is_a_sentence_with_the_remedy(ask, name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        ask(name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "word, words",
    [
        ("brx", "Nearest: brax."),
        ("probes", "Nearest: probe."),
        ("brax/ant", "an environment and no suite: `ppo-jax doctor brax/ant` checks and describes"),
        ("CartPole-v1", "no suite: `ppo-jax doctor CartPole-v1` checks and describes it."),
        ("brax/ent", "Nearest: brax/ant."),
        ("popgym", "write gymnasium/popgym:popgym-RepeatPreviousEasy-v0."),
    ],
)
def test_a_word_that_is_no_suite_is_a_sentence_with_the_remedy(word, words, capsys) -> None:
    assert main(["envs", word]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, words",
    [
        (
            ModuleNotFoundError("No module named 'bodies'", name="bodies"),
            "needs the module 'bodies', which is missing: pip install -e '.[nowhere]'.",
        ),
        (
            ImportError("cannot import name 'leg' from 'bodies'"),
            "whose import fails (cannot import name 'leg' from 'bodies'): pip install -e '.[",
        ),
    ],
)
def test_a_suite_whose_import_fails_is_a_sentence(error, words, monkeypatch) -> None:
    def fail(name: str) -> None:
        assert name == "ppo_jax.envs.suites.nowhere"
        raise error

    monkeypatch.setattr(table, "is_installed", lambda suite: True)
    monkeypatch.setattr(registration.importlib, "import_module", fail)
    with pytest.raises(InputError) as caught:
        registration.make("nowhere/Walk-v0")
    assert words in str(caught.value)
    assert caught.value.__cause__ is error


def test_names_that_are_right_pass() -> None:
    for name in ("CartPole-v1", "probe:time-limit", "tiny:Walk"):
        registration.check_name(name)


def test_every_row_has_its_adapter_its_extra_and_ids_of_its_own() -> None:
    extras = (FOLDER.parents[2] / "pyproject.toml").read_text("utf-8")
    names = [name for suite in table._ROWS for name in suite.names]
    assert len(set(names)) == len(names)
    known = set(gymnax_names.GYMNAX_NAMES)
    assert not {name.partition("/")[2] for name in table.all_names()} & known
    for suite in table._ROWS:
        assert set(suite.shared) <= known
        assert (FOLDER / f"{suite.name}.py").is_file()
        assert suite.is_ours or f"\n{suite.name} = [" in extras


def test_a_folder_of_that_name_is_no_installed_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not table.is_installed(NOWHERE)


def test_the_list_of_a_suite_marks_the_environments_with_a_preset(capsys) -> None:
    assert main(["envs", "nowhere"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == [
        "nowhere/Walk-v0",
        "",
        "nowhere is not installed: pip install -e '.[nowhere]'",
    ]
    assert main(["envs", "brax"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert "brax/reacher                   preset" in listed
    assert "brax/swimmer" in listed
    further = next(line for line in listed if line.startswith("further presets (--preset NAME): "))
    assert "brax/google-ant" in further
    assert "brax/reacher" not in further


def test_the_lists_of_gymnax_and_of_the_probes_are_parts_of_the_whole(capsys) -> None:
    found = []
    for words in ([], ["gymnax"], ["probe"]):
        assert main(["envs", *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        found.append(lines[1 : lines.index("")] if "" in lines else lines[1:])
    whole, gymnax, probes = found
    assert gymnax + probes == whole
    assert {line.split()[0] for line in gymnax} >= set(gymnax_names.GYMNAX_NAMES)
    assert all(line.startswith("probe:") for line in probes)
    assert len(probes) > 5


@pytest.mark.parametrize(
    "command",
    [
        *("envs xminigrid", "train xminigrid/MiniGrid-Empty-5x6", "train xminigrid:Empty"),
        "train xland/MiniGrid-Empty-5x5",
    ],
)
def test_no_package_is_imported_to_answer(command: str) -> None:
    code = (
        "import sys; from ppo_jax.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'jax', 'numpy', 'gymnax', 'xminigrid'} & set(sys.modules);"
        "sys.exit(99 if heavy else code)"
    )
    words = [sys.executable, "-c", code, *command.split()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if command.startswith("envs") else 2)
    assert "xminigrid/MiniGrid-Empty-5x5" in done.stdout + done.stderr or "Empty" in command
