"""The rooms of the house: a file imports lower rows only (docs/design.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "ppo_jax"

# Row -> files. Rows "2a" and "2b" are one row in which later letters may import earlier ones.
ROWS: dict[str, tuple[str, ...]] = {
    "0": (
        *(
            "backend",
            "columns",
            "exchange",
            "types",
            "config",
            "options",
            "settings",
            "loading",
            "envs.interface",
            "bench_options",
        ),
        *("sweeping", "sweeping.options", "sweeping.axes"),
    ),
    "1a": ("surrogates", "advantages", "densities", "trust_region", "moments", "stats"),
    "1c": ("sweeping.samplers", "sweeping.plan"),
    "1d": ("sweeping.pruning",),
    "1b": ("distributions", "packing", "permutations", "pieces", "products", "schedules"),
    "2a": (
        "own_network",
        "actor_critic",
        "envs.parameters",
        "envs.registry",
        "envs.render",
        "envs.play",
    ),
    "2b": ("networks", "envs.gymnax", "envs.probes", "envs.contract"),
    "2c": ("envs",),
    "3a": ("rollout", "batches", "objectives"),
    "3b": ("evaluation",),
    "4a": ("improve",),
    "4b": ("natural_gradient",),
    "5": ("trainer",),
    "6a": ("layouts",),
    "6a2": ("parallel",),
    "7a": (
        "compiling",
        *("background", "checkpoint_files", "fingerprint", "lock", "signals"),
        *("blame", "export_target", "numpy_policy", "stablehlo_policy", "flags", "host", "log"),
        *("first_ratio", "plots", "presets", "progress", "rows"),
        *("video", "wording"),
    ),
    "7a2": ("beginning", "checkpoint", "plain_policy", "run_folder"),
    "7a3": ("onnx_policy", "services"),
    "7b": ("evaluating", "freezing", "story_plot"),
    "7b2": ("loop",),
    "7b3": ("conclusion", "resuming"),
    "7c": (
        *("exporting", "policies", "replaying", "debugging", "runner", "reproduce", "explain"),
        *("doctor", "timing"),
    ),
    "7c2": ("bench",),
    "7d1": ("reproduce.references",),
    "7d2": ("reproduce.cells",),
    "7d2b": ("reproduce.specs",),
    "7d3": ("reproduce.scoring", "reproduce.store", "reproduce.training"),
    "7d4": ("reproduce.records", "reproduce.tables"),
    "7d5": ("reproduce.drawing",),
    "7d6": ("reproduce.running",),
    "7d": ("sweeping.folder", "sweeping.table", "sweeping.engine", "sweeping.pictures"),
    "7e": ("sweeping.population", "sweeping.planning"),
    "7f": ("sweeping.conclude",),
    "7g": ("sweeping.slots", "sweeping.study"),
    "7h": ("sweeping.halving", "sweeping.pbt", "sweeping.tpe"),
    "7i": ("sweeping.driver",),
    "7j1": ("reporting", "reporting.markup", "reporting.runs", "reporting.animation"),
    "7j2": ("reporting.svg", "reporting.suites"),
    "7j3": ("reporting.charts",),
    "7j4": ("reporting.parts",),
    "7j5": ("reporting.run_setting", "reporting.suite_cells"),
    "7j6": ("reporting.run_page", "reporting.suite_setting"),
    "7j7": ("reporting.suite_page",),
    "7j8": ("reporting.writing",),
    "8a": ("commands.interface", "commands.run_argument"),
    "8b": (
        *("commands.train", "commands.evaluate", "commands.explain", "commands.envs"),
        *("commands.presets", "commands.doctor", "commands.resume", "commands.replay"),
        *("commands.export", "commands.debug", "commands.reproduce"),
        "commands.report",
    ),
    "8b2": ("commands.sweep", "commands.bench"),
    "8c": ("commands",),
    "8d": ("cli",),
    "8e": ("__main__",),
}
ROW_OF = {name: row for row, names in ROWS.items() for name in names}
FACADE = ""  # ppo_jax/__init__.py, which may import everything
QUIET_ROWS = tuple(row for row in ROWS if row[0] < "7")
LOUD_CALLS = {"open", "print", "input"}
LOUD_MODULES = {"time", "datetime", "os", "pathlib", "shutil", "logging"}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
KNOWN = set(FILES) | set(ROW_OF)


def imported_modules(module: str, tree: ast.AST) -> set[str]:
    """Modules of the package that a file imports, anywhere in it; "" is the facade."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head, _, rest = alias.name.partition(".")
                if head == "ppo_jax":
                    found.add(rest)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the row of what they import"
            head, _, rest = (node.module or "").partition(".")
            if head == "ppo_jax":
                for alias in node.names:
                    longer = f"{rest}.{alias.name}".lstrip(".")
                    found.add(longer if longer in KNOWN else rest)
    return found


def violations(module: str, tree: ast.AST) -> list[str]:
    """Every sentence to be said against the imports of one file."""
    said = []
    for other in sorted(imported_modules(module, tree)):
        if other == FACADE:
            said.append(f"{module} imports the facade ppo_jax")
        elif other not in ROW_OF:
            said.append(f"{module} imports {other}, which has no row")
        elif not may_import(module, other):
            said.append(f"{module} ({ROW_OF[module]}) imports {other} ({ROW_OF[other]})")
    return said


def may_import(module: str, other: str) -> bool:
    """Lower rows; within the letters of a row, and in row 0, also what stands before."""
    row, row_other = ROW_OF[module], ROW_OF[other]
    if row == row_other:
        return row == "0"
    return row_other < row


def noises(tree: ast.AST) -> list[str]:
    """Files, clocks and screens that a syntax tree touches."""
    said = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in LOUD_CALLS:
            said.append(f"line {node.lineno}: {node.func.id}()")  # type: ignore[attr-defined]
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        said += [f"import {name}" for name in names if name.split(".")[0] in LOUD_MODULES]
    return said


@pytest.mark.parametrize("module", [name for name in FILES if name != FACADE])
def test_file_imports_lower_rows_only(module: str) -> None:
    assert module in ROW_OF, f"{module} has no row: add it here and in docs/design.md"
    tree = ast.parse(FILES[module].read_text("utf-8"))
    assert violations(module, tree) == []


@pytest.mark.parametrize("module", [name for name in FILES if ROW_OF.get(name) in QUIET_ROWS])
def test_file_below_the_host_touches_no_file_clock_or_screen(module: str) -> None:
    assert noises(ast.parse(FILES[module].read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "module, code",
    [
        ("rollout", "import ppo_jax"),
        ("rollout", "from ppo_jax import Config"),
        ("rollout", "def f():\n    from ppo_jax.trainer import iterate"),
        ("rollout", "from ppo_jax import trainer"),
        ("rollout", "import ppo_jax.runner as r"),
        ("rollout", "from ppo_jax.objectives import OBJECTIVES"),
        ("networks", "from ppo_jax.envs.gymnax import make"),
        ("checkpoint", "from ppo_jax.runner import run"),
        ("config", "from ppo_jax.surrogates import ratio"),
    ],
)
def test_import_of_a_higher_or_equal_row_is_seen(module: str, code: str) -> None:
    assert len(violations(module, ast.parse(code))) == 1


@pytest.mark.parametrize(
    "module, code",
    [
        ("runner", "from ppo_jax.checkpoint import save"),
        ("envs", "from ppo_jax.envs import gymnax"),
        ("types", "from ppo_jax.config import Hyper"),
        ("__main__", "from ppo_jax.cli import main"),
        ("rollout", "import jax"),
    ],
)
def test_import_of_a_lower_row_is_allowed(module: str, code: str) -> None:
    assert violations(module, ast.parse(code)) == []


@pytest.mark.parametrize("code", ["print(1)", "open('x')", "import time", "from os import path"])
def test_noise_is_seen(code: str) -> None:
    assert len(noises(ast.parse(code))) == 1
