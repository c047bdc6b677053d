"""The documents as data: their code blocks, their `ppo-jax` commands, the files that they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md")
DOCUMENTS = (*READMES, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`(ppo-jax [^`]+)`")


class Block(NamedTuple):
    """A fenced block of a document."""

    language: str
    code: str


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def blocks(document: str, language: str) -> list[str]:
    """Code of the fenced blocks in this language, in their order."""
    found = (Block(*match.groups()) for match in _FENCED.finditer(text_of(document)))
    return [block.code for block in found if block.language == language]


def shell_commands(document: str) -> list[list[str]]:
    """Words behind `ppo-jax` of each command in a shell block: fenced `sh`, or indented."""
    outside = _FENCED.sub("", text_of(document))
    lines = [line for line in outside.splitlines() if line.startswith("    ppo-jax ")]
    lines += [line for code in blocks(document, "sh") for line in code.splitlines()]
    return [words(line) for line in lines if line.strip().startswith("ppo-jax ")]


def inline_commands(document: str) -> list[list[str]]:
    """Words behind `ppo-jax` of each command within a sentence or a table."""
    return [words(line) for line in _INLINE.findall(text_of(document)) if "…" not in line]


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)[1:]


def prose(document: str) -> list[str]:
    """Paragraphs and list items as single lines, without code, tables and generated blocks."""
    text = re.sub(r"<!-- ([\w-]+) -->.*?<!-- /\1 -->", "", text_of(document), flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in text.splitlines() if not re.match(r"#|\||    |<!--", line)]
    text = re.sub(r"\n(?=\s*([-*]|\d+\.) )", "\n\n", "\n".join(lines))
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return [re.sub(r"^([-*]|\d+\.) ", "", each) for each in paragraphs if each]
