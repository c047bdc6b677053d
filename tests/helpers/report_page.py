"""A report page as a reader without a browser sees it, and run folders made up for it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.analysis import stats
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.options import RunOptions
from ppo_jax.storage import run_folder
from ppo_jax.storage.files import write_json

LINKS = ("src", "href", "srcset", "action", "data", "poster")


class Page(HTMLParser):
    """The parts of a page that tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.numbers: list[tuple[str, str, str]] = []  # JSON pointer, all digits, shown
        self.cells: list[str] = []  # text of table cells without their <data>
        self.ids: list[str] = []
        self.references: list[str] = []  # ids that pictures refer to
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._inside: list[str] = []
        self._number: list[str] = []
        self._script = ""
        self.feed(text)
        self.data: dict[str, Any] = json.loads(self._script)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "source", "wbr"):
            self._inside.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        for key, value in given.items():
            self.references += re.findall(r"url\(#([^)]+)\)", value)
            if key in LINKS:
                (self.references if value.startswith("#") else self.links).append(
                    value.removeprefix("#")
                )
        if tag == "data":
            self._number = [given["data-at"], given["value"], ""]
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag, f"</{tag}> closes another element"
        if tag == "data":
            self.numbers.append((self._number[0], self._number[1], self._number[2]))

    def handle_data(self, text: str) -> None:
        if "script" in self._inside:
            self._script += text
        elif "style" not in self._inside:
            self.text += text + " "
            if "data" in self._inside:
                self._number[2] += text
            elif "td" in self._inside:
                self.cells[-1] += text


def at(data: Any, pointer: str) -> Any:
    """The value that a JSON pointer (RFC 6901) names."""
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


def is_rounded(shown: str, value: Any) -> bool:
    """Check that a text is a number's digits, cut somewhere by rounding."""
    if isinstance(value, str):
        return shown == value
    plain = shown.replace("−", "-").replace(",", "").replace("+", "")
    share = plain.endswith("%")
    plain = plain.removesuffix("%")
    digits = plain.partition("e")[0].partition(".")[2]
    exponent = int(plain.partition("e")[2] or 0)
    unit = 10.0 ** (exponent - len(digits))
    return abs(float(plain) - (100 * value if share else value)) <= 0.5000001 * unit


def false_numbers(page: Page) -> list[tuple[str, str, str]]:
    """The shown numbers that are not those of the data, or are rounded too far."""
    wrong = []
    for pointer, digits, shown in page.numbers:
        value = at(page.data, pointer)
        if json.loads(digits) != value or not is_rounded(shown, value):
            wrong.append((pointer, digits, shown))
    return wrong


def make_run(
    folder: Path,
    env: str = "CartPole-v1",
    seeds: int = 4,
    points: int = 40,
    objective: str = "clip",
    shift: float = 0.0,
    seed: int = 3,
) -> dict[str, Any]:
    """A run folder without checkpoints, with smooth curves and a known end; its summary."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seeds)
    config = Config(env=env, objective=objective, total_env_steps=points * 1024, num_envs=8)
    options = RunOptions(seeds=seeds, seed=seed)
    described = run_folder.describe_run(config, Hyper(learning_rate=0.0007), options)
    write_json(folder / "config.json", described)
    write_json(
        folder / "manifest.json",
        {
            "started": "2026-01-02T03:04:05Z",
            "versions": {"ppo-jax": "0.1.0", "jax": "0.10.2"},
            "python": "3.11.7",
            "machine": "x86_64",
            "cores": 2,
            "devices": ["cpu:cpu", "cpu:cpu"],
            "xla_flags": "",
            "git": None,
            "command": ["ppo-jax", "train", env],
        },
    )
    rows, timing = [], []
    for point in range(1, points + 1):
        returns = 100 * (1 - np.exp(-point / 10)) + shift + generator.normal(size=seeds)
        rows.append(
            {
                "env_steps": point * 1024,
                "episode_return": list(returns),
                "kl_old_new": list(np.abs(generator.normal(size=seeds)) / 100),
                "entropy": list(np.full(seeds, 0.7 - point / 200)),
                "learning_rate": [0.0007] * seeds,
            }
        )
        timing.append({"env_steps": point * 1024, "env_steps_per_second": 40_000.0 + point})
    for name, lines in (("metrics", rows), ("timing", timing)):
        text = "".join(json.dumps(row) + "\n" for row in lines)
        (folder / f"{name}.jsonl").write_text(text, "utf-8")
    scores = stats.summarise(list(100 + shift + generator.normal(size=seeds)))
    summary = {
        "env": env,
        "objective": objective,
        "num_seeds": seeds,
        "env_steps": points * 1024,
        "num_failed": scores.pop("num_failed"),
        "final_return": scores,
        "policy_mode": "deterministic",
        "episodes_per_seed": 128,
        "episodes_cut": 0,
        "episode_length_mean": 123.25,
        "compile_seconds": 3.125,
        "train_seconds": 12.5,
        "env_steps_per_second": 54_321,
        "stopped_early": False,
        "stopped_by": None,
        "run": str(folder),
        "learning_curve": None,
    }
    write_json(folder / "summary.json", summary)
    return summary
