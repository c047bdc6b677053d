"""Hooks of mkdocs.yml: pages and files of the site that lie outside of docs/, and notebooks."""

from __future__ import annotations

import dataclasses
import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# File of the repository -> its page on the site.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "README.md": "index.md",
}
# Pages of wide tables have no table of contents beside them.
WIDE = ("results.md", "lab-notebook.md", "settings.md", "coming-from.md")
SHOWN = (".svg", ".png", ".gif")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the repository's own documents and of the notebooks, and linked files."""
    texts = {
        f"docs/{file.src_uri}": file.content_string
        for file in files
        if file.is_documentation_page()
    }
    for source, page in PAGES.items():
        if source != "README.md":
            texts[source] = (ROOT / source).read_text("utf-8")
            files.append(File.generated(config, page, content=rewritten(texts[source], source)))
    for path in sorted((ROOT / "docs").glob("notebooks/*.ipynb")):
        source = path.relative_to(ROOT).as_posix()
        page = source.removeprefix("docs/").replace(".ipynb", ".md")
        texts[source] = notebook_text(path)
        files.append(File.generated(config, page, content=rewritten(texts[source], source)))
    for target in sorted({t for source, text in texts.items() for t in outside(text, source)}):
        place = site_place(target)
        files.append(File.generated(config, place, content=(ROOT / target).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave docs/ at their place on the site."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    if page.file.generated_by:  # rewritten as it was made
        return markdown
    markdown = markdown.replace("<!-- all-settings -->", all_settings())
    return rewritten(markdown, f"docs/{page.file.src_uri}")


def all_settings() -> str:
    """Tables of all settings: name, default and meaning."""
    sys.path.insert(0, str(ROOT))
    from ppo_jax.config.config import Config, Hyper
    from ppo_jax.config.options import RunOptions

    lines = []
    for table, owner in (("config", Config), ("hyper", Hyper), ("options", RunOptions)):
        lines += [f"### `[{table}]`: `{owner.__name__}`", "", "| name | default | meaning |"]
        lines += ["|---|---|---|"]
        for field in dataclasses.fields(owner):
            meaning = field.metadata["help"].replace("|", "\\|")
            default = "–" if field.default is dataclasses.MISSING else f"`{field.default}`"
            lines.append(f"| `{field.name}` | {default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def notebook_text(path: Path) -> str:
    """A notebook as Markdown: text as it is, code as fenced blocks, results below their code."""
    parts = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        parts += [result for output in cell.get("outputs", ()) if (result := shown(output))]
    return "\n\n".join(parts)


def shown(output: dict[str, Any]) -> str:
    """A cell's output as Markdown: its picture within the page, else its text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![Plot of the cell above](data:image/png;base64,{data['image/png'].strip()})"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```" if text else ""


def resolve(target: str, source: str) -> str:
    """The place in the repository that a relative link means."""
    place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    readme = f"{place}/README.md"
    return readme if (ROOT / readme).exists() else place


def outside(text: str, source: str) -> set[str]:
    """Files of the repository that a text links to and that are no pages of the site."""
    places = {resolve(link[3], source) for link in LINK.finditer(text)}
    found = {place for place in places if place not in PAGES and (ROOT / place).is_file()}
    return {place for place in found if not place.startswith("docs/")}


def site_place(target: str) -> str:
    """The place of a copied file on the site: browsers show `.txt`, and would load the others."""
    return f"files/{target}" + ("" if target.endswith(SHOWN) else ".txt")


def rewritten(text: str, source: str) -> str:
    """A text whose links lead to pages and copied files, seen from its own page."""
    here = posixpath.dirname(PAGES.get(source, source.removeprefix("docs/")))

    def move(link: re.Match[str]) -> str:
        mark, label, target, anchor = link.groups()
        place = resolve(target, source)
        if place in PAGES:
            place = PAGES[place]
        elif place.startswith("docs/"):
            place = place.removeprefix("docs/").replace(".ipynb", ".md")
        elif (ROOT / place).is_file():
            place = site_place(place)
        else:  # a folder
            return label
        return f"{mark}[{label}]({posixpath.relpath(place, here or '.')}{anchor or ''})"

    return LINK.sub(move, text)
