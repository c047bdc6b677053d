"""The commands of `ppo-jax` on the small environments of tests/cases."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ppo_jax.cli import main
from ppo_jax.envs import registration
from ppo_jax.models import agent

FOLDER = Path(__file__).resolve().parent.parent / "cases"

# A training of a second or two.
FAST = (
    *("--total-env-steps", "16384", "--num-envs", "16", "--rollout-length", "16"),
    *("--hidden-sizes", "16", "--learning-rate", "3e-3", "--eval-episodes", "16"),
)
ONCE = (*FAST[2:], "--total-env-steps", "256")  # one iteration


class Shell(NamedTuple):
    """Commands in a case's folder; `runs` is where they may write."""

    capsys: pytest.CaptureFixture[str]
    runs: Path

    def __call__(self, *words: Any) -> Answer:
        self.capsys.readouterr()
        code = main.main([str(word) for word in words])
        out, err = self.capsys.readouterr()
        return Answer(code, out, err)

    def train(self, env: str, *words: Any, out: str = "run") -> Answer:
        """`train env:NAME`, into a folder that must not be there yet."""
        return self("train", f"env:{env}", *words, "--out", self.runs / out)

    def rows(self, out: str = "run") -> list[dict[str, Any]]:
        """The rows of a run's metrics.jsonl."""
        text = (self.runs / out / "metrics.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def returns(self) -> list[float | None]:
        """The final return of every seed of a command with --json."""
        return json.loads(self.out)["final_return"]["per_seed"]

    def is_refused(self, words: str) -> bool:
        """Check that it ended with one sentence that holds `words`, and exit code 2."""
        sentence = self.err.strip()
        assert sentence.count("\n") == 0, self.err
        assert sentence.startswith("ppo-jax: "), self.err
        assert words in sentence, sentence
        return self.code == 2 and "Traceback" not in self.out + self.err


@contextmanager
def in_case(name: str) -> Iterator[None]:
    """The case's folder as the working directory, its `env` as the module of that name."""
    before = os.getcwd()
    _forget()
    os.chdir(FOLDER / name)
    try:
        yield
    finally:
        os.chdir(before)
        _forget()


def _forget() -> None:
    """Every case has a module `env`, and environments are kept by their names."""
    sys.modules.pop("env", None)
    registration._made.cache_clear()
    agent._assemble.cache_clear()
