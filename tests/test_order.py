"""Folders import earlier folders only, and each keeps what belongs to it (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "ppo_jax"
ORDER = (
    *("config", "kernels", "rl", "envs", "models", "training", "distributed", "analysis"),
    *("storage", "runtime", "apps", "cli"),
)
PURE = ORDER[:7]  # no file, clock or screen; `config` reads the user's files
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
    if path.name != "__init__.py"
}
MAX_FILES = 12
MAX_LINES, MAX_PARAMETERS = 45, 6  # of a function of rl/ and training/
MAX_CHAIN = 22
LOUD = {"open", "print", "input"} | {"time", "datetime", "os", "pathlib", "shutil", "logging"}
APPS = {("report", "reproduce"), ("diagnose", "run")}  # the arrows between families of commands


def imports(tree: ast.AST) -> set[str]:
    """Modules of the package that a syntax tree imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ppo_jax":
            base = (node.module or "").partition(".")[2]
            names = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
            found |= {name if name in FILES else base for name in names}
        elif isinstance(node, ast.Import):
            names = [alias.name.partition(".") for alias in node.names]
            found |= {rest for head, _, rest in names if head == "ppo_jax"}
    return found


def problems(module: str, tree: ast.AST) -> list[str]:
    """Imports of one file that the order forbids."""
    folder, *rest = module.split(".")
    found = []
    for other in sorted(imports(tree)):
        there, *other_rest = other.split(".")
        if there not in ORDER:
            found.append(f"{module} imports {other or 'the facade ppo_jax'}")
        elif ORDER.index(there) > ORDER.index(folder):
            found.append(f"{module} imports {other}, which is in a later folder")
        elif folder == there == "apps" and not may_share(rest[0], other_rest[0]):
            found.append(f"{module} imports {other}, another family of commands")
    return found


def may_share(family: str, other: str) -> bool:
    """Check whether one family of commands may import another."""
    return family == other or (family, other) in APPS


def loud_names(tree: ast.AST) -> set[str]:
    """Names of files, clocks and screens that a syntax tree calls or imports."""
    calls = {getattr(n.func, "id", "") for n in ast.walk(tree) if isinstance(n, ast.Call)}
    plain = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    sources = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    return LOUD & (calls | {name.split(".")[0] for name in plain | sources})


TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in FILES.items()}
IN_FOLDERS = [name for name in FILES if "." in name]


@pytest.mark.parametrize("module", IN_FOLDERS)
def test_a_file_imports_earlier_folders_only(module: str) -> None:
    assert problems(module, TREES[module]) == []


@pytest.mark.parametrize("module", [name for name in IN_FOLDERS if name.split(".")[0] in PURE])
def test_pure_folders_touch_no_file_clock_or_screen(module: str) -> None:
    allowed = {"config.loading": {"os", "pathlib"}, "config.data": {"pathlib"}}
    allowed |= {"config.presets": {"pathlib"}, "config.layers": {"pathlib"}}
    allowed |= {"config.reading": {"os", "pathlib"}}
    allowed |= {"config.trust": {"os", "pathlib"}}
    allowed |= {"kernels.backend": {"os"}}
    # Hosted steps are timed, and cores counted, to choose between workers and this process.
    allowed |= {"envs.suites.gymnasium": {"time"}, "envs.suites.gymnasium_lanes": {"os"}}
    assert loud_names(TREES[module]) <= allowed.get(module, set())


def test_no_cycle_and_a_short_chain() -> None:
    @cache
    def depth(module: str) -> int:  # a cycle never ends: RecursionError
        return 1 + max((depth(other) for other in imports(TREES[module]) & set(FILES)), default=0)

    assert max(depth(module) for module in IN_FOLDERS) <= MAX_CHAIN


@pytest.mark.parametrize(
    "pattern, home",
    [
        (r"default_backend|platform ==", ("kernels/backend.py",)),
        (r"\bMesh\b|shard_map|donate_argnums|NamedSharding", ("distributed/",)),
        (r"jax\.(local_)?devices\(", ("distributed/layout.py",)),
        (r"device_get|device_put|addressable|allgather", ("distributed/", "envs/render.py")),
        (r"process_(index|count)|(?<!ppo_)jax\.distributed|multihost", ("distributed/",)),
        (r"os\.replace|os\.rename", ("storage/",)),
    ],
)
def test_one_place_for(pattern: str, home: tuple[str, ...]) -> None:
    """Decisions by backend, shardings, devices and writes each have one home."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in FILES.values()
        if re.search(pattern, path.read_text("utf-8"))
    }
    assert {name for name in found if not name.startswith(home)} == set()


@pytest.mark.parametrize("module", [n for n in IN_FOLDERS if n.startswith(("rl.", "training."))])
def test_functions_of_the_core_fit_on_a_screen(module: str) -> None:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert (node.end_lineno or 0) - node.lineno < MAX_LINES, node.name
            assert len(arguments) <= MAX_PARAMETERS, node.name


def test_folders_are_small() -> None:
    by_kind = {ROOT / "cli" / "commands", ROOT / "envs" / "suites"}  # a file a command, a suite
    for folder in {path.parent for path in FILES.values()} - by_kind:
        files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MAX_FILES, f"{folder.relative_to(ROOT)}: {len(files)} files"


@pytest.mark.parametrize(
    "module, code",
    [
        ("training.rollout", "import ppo_jax"),
        ("training.rollout", "from ppo_jax import Config"),
        ("training.rollout", "def f():\n    from ppo_jax.distributed.programs import spread"),
        ("training.rollout", "from ppo_jax.distributed import programs"),
        ("training.rollout", "import ppo_jax.apps.run.runner as r"),
        ("config.config", "from ppo_jax.rl.surrogates import clipped"),
        ("apps.sweep.plan", "from ppo_jax.apps.run.loop import train"),
    ],
)
def test_an_import_against_the_order_is_seen(module: str, code: str) -> None:
    assert len(problems(module, ast.parse(code))) == 1


@pytest.mark.parametrize("code", ["print(1)", "open('x')", "import time", "from os import path"])
def test_a_loud_name_is_seen(code: str) -> None:
    assert len(loud_names(ast.parse(code))) == 1
