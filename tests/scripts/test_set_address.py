"""The address of the project reaches README, notebooks, guide, site and package."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ("README.md", "CONTRIBUTING.md", "mkdocs.yml", "pyproject.toml")
ADDRESS = "https://github.com/somebody/ppo"


def test_no_relative_link_and_no_placeholder_is_left(tmp_path: Path) -> None:
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "docs/notebooks", tmp_path / "docs/notebooks")
    spec = importlib.util.spec_from_file_location("set_address", ROOT / "scripts/set_address.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.set_address(tmp_path, ADDRESS)
    readme = (tmp_path / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert f"{ADDRESS}/blob/main/docs/api.md" in links
    raw = "https://raw.githubusercontent.com/somebody/ppo/main/docs/images/first_run.gif"
    assert f"]({raw})" in readme
    assert all(link.startswith("https://") for link in links)
    texts = [path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert not any("OWNER" in text or "clone REPOSITORY" in text for text in texts)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["urls"] == {"Repository": ADDRESS}
    assert f"repo_url: {ADDRESS}\n" in (tmp_path / "mkdocs.yml").read_text("utf-8")
