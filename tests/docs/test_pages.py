"""The pages: files and links that they name exist; README is short; sentences open plainly."""

from __future__ import annotations

import re

import pytest
from documents import DOCUMENTS, ROOT, prose, text_of

# Places in a user's folders, and places with a letter to fill in.
USERS = r"runs/|packs/|winner/|checkpoints/|RUN/|frozen-K/|specs/SUITE"
OPENINGS = {"Of", "Where", "What", "Whether", "Which"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    text = text_of(document)
    named = re.findall(r"`([\w-]+(?:/[\w-]+)*/(?:[\w-]+\.\w+)?)`", text)
    named += re.findall(r"python ([\w-]+/[\w/-]+\.py)", text)
    named = [name for name in named if not re.match(USERS, name)]
    missing = [n for n in named if not any((ROOT / top / n).exists() for top in ("", "ppo_jax"))]
    assert not missing, f"{document} names {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_of_a_document_leads_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(document))
    places = [link for link in links if not re.match(r"\w+:", link)]
    missing = [each for each in places if not ((ROOT / document).parent / each).exists()]
    assert not missing, f"{document} links to {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_list_begins_behind_an_empty_line(document: str) -> None:
    """Without it the site shows the list as a part of the paragraph above."""
    text = re.sub(r"^```.*?^```", "", text_of(document), flags=re.DOTALL | re.MULTILINE)
    pattern = r"^(?![ *|#>-]|\d+\. |<!--).+\n(?:\* |- |\d+\. ).*"
    assert re.findall(pattern, text, re.MULTILINE) == []


def test_the_architecture_page_has_a_row_for_every_folder_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)/` \|", text_of("docs/architecture.md"), re.MULTILINE)
    folders = {path.name for path in (ROOT / "ppo_jax").iterdir() if path.is_dir()}
    assert set(rows) == folders - {"data", "__pycache__"}
    assert len(rows) == len(set(rows))


def test_every_test_that_the_list_of_faults_names_exists() -> None:
    rows = re.findall(
        r"^\| ([A-DR]\d+) \| .+ \| (.+) \|$", text_of("tests/faults.md"), re.MULTILINE
    )
    numbered = {"A": 18, "B": 8, "C": 13, "D": 9, "R": 17}
    wanted = [f"{letter}{n + 1}" for letter, last in numbered.items() for n in range(last)]
    wanted.remove("D8")
    assert [row for row, _ in rows] == wanted
    for row, tests in rows:
        names = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert names, row
        for file, name in names:
            text = (ROOT / "tests" / file).read_text("utf-8")
            assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{row}: {file}::{name}"


def test_the_readme_is_read_in_five_minutes() -> None:
    text = text_of("README.md")
    assert len(text.splitlines()) <= 120
    assert len(text.split()) <= 800


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_sentence_opens_with_a_word_that_puts_the_subject_last(document: str) -> None:
    sentences = [s for each in prose(document) for s in re.split(r"(?<=[.:!]) ", each)]
    inverted = [s for s in sentences if re.match(r"\w+", s) and s.split()[0] in OPENINGS]
    assert not inverted
