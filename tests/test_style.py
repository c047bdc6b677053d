"""Plain English: docstrings and comments begin with a verb or a noun (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "ppo_jax"
# No sentence begins with these: the subject comes first.
OPENINGS = {"of", "what", "where", "whether", "which"}
# A docstring says what a thing is or does, so it begins with neither a question nor a condition.
OF_DOCSTRINGS = OPENINGS | {"who", "whose", "how", "that", "if", "when", "why"}
FILES = sorted(ROOT.rglob("*.py"))
TESTS = sorted(Path(__file__).resolve().parent.rglob("*.py"))


def first_word(text: str) -> str:
    words = text.strip().lstrip("#").split()
    return words[0].strip(".,:;").lower() if words else ""


def docstrings(source: str) -> list[str]:
    """Docstrings of a module and of its classes and functions."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(n) for n in ast.walk(ast.parse(source)) if isinstance(n, nodes)]
    return [text for text in found if text]


def comments(source: str) -> list[str]:
    """Comments, without the lines that go on with the one above."""
    found: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            stands_alone = token.line.lstrip().startswith("#")
            if not (stands_alone and token.start[0] == last + 1):
                found.append(token.string)
            last = token.start[0] if stands_alone else -1
    return found


def problems(source: str) -> list[str]:
    """Docstrings and comments of a file that begin with a forbidden word."""
    return [
        *(text for text in docstrings(source) if first_word(text) in OF_DOCSTRINGS),
        *(text for text in comments(source) if first_word(text) in OPENINGS),
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstrings_and_comments_begin_with_a_verb_or_a_noun(path: Path) -> None:
    assert problems(path.read_text("utf-8")) == []


def test_docstrings_of_tests_do_so_too() -> None:
    found = {path: docstrings(path.read_text("utf-8")) for path in TESTS}
    every = [(path, text) for path, texts in found.items() for text in texts]
    assert [each for each in every if first_word(each[1]) in OF_DOCSTRINGS] == []


@pytest.mark.parametrize(
    "source",
    [
        '"""Whether it ended."""',
        'def f():\n    """What it does."""',
        "x = 1  # of the flags",
        "# Where it is none.\nx = 1",
    ],
)
def test_a_forbidden_beginning_is_seen(source: str) -> None:
    assert len(problems(source)) == 1


@pytest.mark.parametrize(
    "source", ['"""A number\nof things."""', "# A number\n# of things.\nx = 1  # shape [N]"]
)
def test_plain_beginnings_pass(source: str) -> None:
    assert problems(source) == []
