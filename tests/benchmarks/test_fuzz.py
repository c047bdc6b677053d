"""A small sample of benchmarks/faults/fuzz.py: mutated files and random command lines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "faults"))

import fuzz
import mutations


def test_mutated_files_and_random_words_end_in_results_or_sentences(tmp_path: Path) -> None:
    found = fuzz.results(tmp_path, files=60, lines=150, seed=20)
    for part in found.values():
        assert part["examples"] == []
        assert part["results"] > 5
        assert part["sentences"] > 20


def test_the_files_that_are_mutated_pass_every_door_as_they_are(tmp_path: Path) -> None:
    fuzz.make_inputs(tmp_path)
    found = fuzz.Counts({}, [])
    doors = [(n, door) for n, all_of in fuzz.DOORS.items() for door in all_of if "metrics" not in n]
    with fuzz.contextlib.chdir(tmp_path), fuzz.nothing_compiles(draws=False):
        for name, door in doors:
            fuzz.tried(door, name, found)
    # The arrays of its checkpoint are of no run, so eval and watch (twice) and export refuse it.
    assert found.counts == {"results": len(doors) - 5, "sentences": 5}


@pytest.mark.parametrize("name", fuzz.DOORS)
def test_a_file_of_any_nasty_value_is_refused_at_every_door(name: str, tmp_path: Path) -> None:
    fuzz.make_inputs(tmp_path)
    found = fuzz.Counts({}, [])
    nasty = ("[" * mutations.DEEP, '{"a": 1}', "9" * 400, '"\\ud800"', "n" * 300, "[1, 2]", "null")
    with fuzz.contextlib.chdir(tmp_path), fuzz.nothing_compiles(draws=False):
        for text in nasty:
            Path(name).write_text(text)
            fuzz.tried(fuzz.DOORS[name][0], text[:20], found)
    assert found.examples == []


def test_a_traceback_and_a_hang_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang() -> None:
        while True:
            pass

    monkeypatch.setattr(fuzz, "HANG_SECONDS", 0.05)
    found = fuzz.Counts({}, [])
    fuzz.tried(hang, "a loop", found)
    fuzz.tried(lambda: 1 / 0, "a division", found)
    assert found.counts == {"hangs": 1, "tracebacks": 1}
    assert [example[:4] for example in found.examples] == ["hang", "Zero"]
