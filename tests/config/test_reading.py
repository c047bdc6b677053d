"""Files at the door: whatever they hold, a reader gets plain data or a sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ppo_jax.config import reading
from ppo_jax.config.errors import InputError

DEEP = "[" * 200_000
LONG = "9" * 400


@pytest.mark.parametrize(
    "text, words",
    [
        (DEEP, "nested too deeply"),
        ('{"a":' * 60 + "1" + "}" * 60, "nested too deeply"),
        (f'{{"a": {LONG}}}', "too many digits"),
        (f"[-{LONG}]", "too many digits"),
        ("[1" + "0" * 5000 + "]", "digits"),
        ("[1e400]", "too large"),
        ('["\\ud800"]', "half a character"),
        ('{"\\ud800": 1}', "half a character"),
        ('["\\u0000"]', "zero byte"),
        ("[NaN]", "NaN is no JSON"),
        (b'"\xff"', "utf-8"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "it has 'c' twice"),
        ("", "Expecting value"),
    ],
)
def test_json_that_no_reader_can_use_is_a_value_error(text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        reading.parse_json(text)


def test_toml_is_read_with_the_same_care(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    for text, words in ((f"a = {DEEP}", "nested too deeply"), (f"a = {LONG}", "too many digits")):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            reading.read_toml(path)
    path.write_text("\ufeffa = inf\n[b]\nc = [1, 2]\n", "utf-8")  # as an editor of Windows saves it
    assert reading.read_toml(path) == {"a": float("inf"), "b": {"c": [1, 2]}}


def test_yaml_means_what_its_reader_sees(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    text = "a: 1:0\nb: 010\nc: 0x10\nd: 2.5\ne: 1e-3\nf: [-8, 1_000]\ng: .inf\nh: 0.9:1\ni: true\n"
    path.write_text(text, "utf-8")
    assert reading.read_yaml(path) == {
        **{"a": "1:0", "b": "010", "c": 16, "d": 2.5, "e": "1e-3", "f": [-8, 1000]},
        **{"g": float("inf"), "h": "0.9:1", "i": True},
    }
    path.write_text("a: 1\nb: {c: 1, c: 2}\n", "utf-8")
    with pytest.raises(ValueError, match="it has 'c' twice: leave one out"):
        reading.read_yaml(path)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match=r"no regular file|Is a directory"):
            reading.read_bytes(path)


SHAPE = {"n": int, "x?": (float, None), "of": [{"name": str}], "ends?": ([float, float], None)}


@pytest.mark.parametrize(
    "value",
    [
        {"n": 1, "of": []},
        {"n": 1, "of": [{"name": "a", "more": 1}], "x": 2, "ends": [1, 2.5]},
        {"n": 0, "of": [], "x": None, "ends": None},
    ],
)
def test_what_has_the_shape_passes(value: Any) -> None:
    assert reading.expect(value, SHAPE) is value


@pytest.mark.parametrize(
    "value, words",
    [
        ([], "its content must be a table"),
        ({"of": []}, "lacks 'n'"),
        ({"n": True, "of": []}, "n must be a whole number, and is True"),
        ({"n": 1.0, "of": []}, "n must be a whole number"),
        ({"n": 1, "of": {}}, "of must be a list"),
        ({"n": 1, "of": [{"name": 3}]}, r"of\[0\]\.name must be a text, and is 3"),
        ({"n": 1, "of": [], "x": "1"}, "x must be a number or null"),
        ({"n": 1, "of": [], "ends": [1]}, "ends must have 2 parts, and has 1"),
    ],
)
def test_the_first_difference_is_named(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        reading.expect(value, SHAPE)


def test_a_record_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json' cannot be read: No such file"):
        reading.read_record(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"n": "x"}')
    with pytest.raises(InputError, match=r"a\.json' is damaged: n must be a whole number"):
        reading.read_record(tmp_path / "a.json", {"n": int})
