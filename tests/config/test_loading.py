"""module:attribute, and the sentences where there is none."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.config.loading import load_attribute, require_own


def helper(*sizes: int) -> None:
    """A factory of the user's."""


class Thing:
    """An object of the user's that makes environments."""

    def __call__(self) -> None: ...


def test_attribute_of_a_module_is_found_dotted_or_not() -> None:
    assert load_attribute("numpy:pi") == math.pi
    assert load_attribute("numpy.linalg:LinAlgError.mro").__name__ == "mro"


def test_module_in_the_current_directory_is_found_and_the_path_restored(
    tmp_path, monkeypatch
) -> None:
    (tmp_path / "module_of_a_user.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load_attribute("module_of_a_user:answer") == 42
    assert sys.path == before


@pytest.mark.parametrize(
    "path, words",
    [
        ("numpy", ("'numpy'", "write module:attribute")),
        (":pi", ("write module:attribute",)),
        ("numpy:", ("write module:attribute",)),
        ("no_such_module:thing", ("no module 'no_such_module'", "install it")),
        ("numpy.deeper:thing", ("numpy.deeper",)),
        ("numpy:sqr", ("no attribute 'sqr'", "Nearest: sqrt")),
        ("os:abort", ("'os:abort'", "os is a part of Python itself")),
        ("antigravity:fly", ("a part of Python itself",)),
    ],
)
def test_what_cannot_be_loaded_is_told_in_a_sentence(path: str, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as refused:
        load_attribute(path)
    assert all(word in str(refused.value) for word in words)


def test_failure_inside_the_users_module_is_told_in_a_sentence(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_one.py").write_text("1 / 0\n")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(4)\n")
    (tmp_path / "broken_two.py").write_text("import missing_dependency\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="importing broken_one failed with ZeroDivisionError"):
        load_attribute("broken_one:thing")
    with pytest.raises(InputError, match="importing ends failed with SystemExit: 4"):
        load_attribute("ends:thing")
    with pytest.raises(InputError, match=r"failed with ModuleNotFoundError.*missing_dependency"):
        load_attribute("broken_two:thing")


@pytest.mark.parametrize("value", [helper, functools.partial(helper, 1), Thing, Thing()])
def test_what_the_module_defines_may_be_called(value: object) -> None:
    require_own(f"{__name__}:value", value, "environment")


@pytest.mark.parametrize(
    "value", [os.abort, subprocess.Popen, functools.partial(os.system, "exit"), np.sum, 5]
)
def test_what_lies_in_the_module_only_by_import_is_not_called(value: object) -> None:
    with pytest.raises(InputError, match=r"is not called, because it is no environment|cannot be"):
        require_own(f"{__name__}:value", value, "environment")
