"""The report page in headless Chromium: it loads alone, without an error, and shows its data."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_page import Page, false_numbers, make_run

from ppo_jax.apps.report import write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
STORED = Path(__file__).parents[3] / "benchmarks/results/ppo-table-1_cpu_2026-11-30"
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", "--enable-logging=stderr"),
)


def browse(path: Path, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page with a new profile."""
    assert CHROMIUM is not None
    words = [CHROMIUM, *_FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, path.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """One run, two runs with an evil name, and a suite."""
    root = tmp_path_factory.mktemp("pages")
    make_run(root / "first")
    make_run(root / "<script>x<", env="<img src=http://localhost:9/a.png onerror=alert(1)>")
    found = {name: root / f"{name}.html" for name in ("run", "runs", "suite")}
    write.report(root / "first", found["run"], animate=False)
    write.report([root / "first", root / "<script>x<"], found["runs"], animate=False)
    write.report(STORED, found["suite"])
    return found


@pytest.mark.parametrize("name", ["run", "runs", "suite"])
def test_the_page_loads_without_errors_or_requests_and_shows_its_data(
    pages: dict[str, Path], tmp_path: Path, name: str
) -> None:
    log = tmp_path / "net.json"
    done = browse(pages[name], tmp_path, "--dump-dom", f"--log-net-log={log}")
    assert "CONSOLE" not in done.stderr, done.stderr
    assert requests(log) == []
    rendered = Page(done.stdout)
    assert false_numbers(rendered) == []
    written = Page(pages[name].read_text("utf-8"))
    assert rendered.data == written.data
    assert rendered.numbers == written.numbers
    assert len(rendered.numbers) > 50
    assert rendered.tags.count("script") == 1
    assert rendered.tags.count("img") == 0


def requests(log: Path) -> list[str]:
    """Requests of a page to the network; those of the browser itself have no origin."""
    events = json.loads(log.read_text("utf-8"))["events"]
    known = [event["params"] for event in events if "initiator" in event.get("params", {})]
    asked = [given["url"] for given in known if given["initiator"] != "not an origin"]
    return [url for url in asked if not url.startswith(("file:", "data:"))]


def test_an_error_and_a_request_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://localhost:9/a.png'><script>missing()</script>", "utf-8")
    log = tmp_path / "net.json"
    done = browse(bad, tmp_path, "--dump-dom", f"--log-net-log={log}")
    assert "missing is not defined" in done.stderr
    assert "http://localhost:9/a.png" in requests(log)


@pytest.mark.parametrize("name", ["run", "suite"])
@pytest.mark.parametrize("is_dark", [False, True])
def test_the_page_is_drawn_in_the_scheme_that_is_preferred(
    pages: dict[str, Path], tmp_path: Path, name: str, is_dark: bool
) -> None:
    scheme = [f"--blink-settings=preferredColorScheme={0 if is_dark else 1}"]
    picture = tmp_path / "a.png"
    browse(pages[name], tmp_path, *scheme, "--window-size=800,900", f"--screenshot={picture}")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("L"), np.float64)
    paper = np.median(pixels)
    assert paper < 60 if is_dark else paper > 240
    assert 0.01 < np.mean(np.abs(pixels - paper) > 60) < 0.5  # ink is there, and can be seen


@pytest.mark.parametrize("name", ["runs", "suite"])
@pytest.mark.parametrize("width", [360, 820, 1280])
def test_nothing_but_tables_is_wider_than_the_window(
    pages: dict[str, Path], tmp_path: Path, name: str, width: int
) -> None:
    # A page that may run a script says how wide it has become within a frame of this width.
    text = pages[name].read_text("utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    inner = tmp_path / "inner.html"
    tell = "parent.postMessage(document.documentElement.scrollWidth, '*')"
    inner.write_text(text.replace("</body>", f"<script>{tell}</script></body>"), "utf-8")
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<script>onmessage = e => document.title = e.data</script>"
        f'<iframe src="inner.html" style="border: 0; width: {width}px; height: 800px"></iframe>',
        "utf-8",
    )
    done = browse(outer, tmp_path, "--dump-dom", "--virtual-time-budget=5000")
    found = re.search(r"<title>(\d+)</title>", done.stdout)
    assert found is not None
    assert int(found[1]) <= width
