"""Write the project's public address wherever a reader outside of a checkout needs it.

`python scripts/set_address.py https://github.com/OWNER/ppo_jax`, once, when the project has an
address. Links and pictures of README.md become absolute, so that they work on a package index; the
notebooks' badges and install cells, CONTRIBUTING.md, mkdocs.yml and pyproject.toml get the address.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")
LINK = re.compile(r"(!?\[[^\]]*\]\()(?!\w+:|#)([^)\s]+\))")
UNKNOWN = "OWNER/ppo_jax"


def main() -> None:
    """Change the files of this checkout."""
    if len(sys.argv) != 2 or not ADDRESS.fullmatch(sys.argv[1]):
        raise SystemExit(f"usage: {sys.argv[0]} https://github.com/OWNER/NAME")
    set_address(Path(__file__).resolve().parent.parent, sys.argv[1])


def set_address(root: Path, address: str) -> None:
    """Change the files of a checkout."""
    name = address.removeprefix("https://github.com/")
    raw = f"https://raw.githubusercontent.com/{name}/main/"

    def absolute(link: re.Match[str]) -> str:
        is_picture = link[1].startswith("!")
        return link[1] + (raw if is_picture else f"{address}/blob/main/") + link[2]

    def change(file: Path, text: str) -> None:
        file.write_text(text, "utf-8")

    readme = root / "README.md"
    change(readme, LINK.sub(absolute, readme.read_text("utf-8")))
    guide = root / "CONTRIBUTING.md"
    change(guide, guide.read_text("utf-8").replace("REPOSITORY", address))
    for notebook in root.glob("docs/notebooks/*.ipynb"):
        change(notebook, notebook.read_text("utf-8").replace(UNKNOWN, name))
    site = root / "mkdocs.yml"
    change(site, site.read_text("utf-8").replace("docs_dir:", f"repo_url: {address}\ndocs_dir:", 1))
    project = root / "pyproject.toml"
    urls = f'[project.urls]\nRepository = "{address}"\n\n[project.scripts]'
    change(project, project.read_text("utf-8").replace("[project.scripts]", urls, 1))


if __name__ == "__main__":
    main()
