"""`ppo-jax report` from folders to one file: what is on the page, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import report_page
from report_page import Page, false_numbers, make_run

from ppo_jax.apps.report import write
from ppo_jax.cli.main import main
from ppo_jax.config.errors import InputError

EVIL = "<script>alert(1)</script>&\"'"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three runs on two environments."""
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "first")
    make_run(root / "second", objective="kl", shift=-20.0)
    make_run(root / "third", env="Pendulum-v1", seeds=1)
    return root


def page_of(*sources: Path, **given: Any) -> Page:
    out = sources[0].parent / f"{len(sources)}.html"
    write.report(sources, out, force=True, animate=False, **given)
    return Page(out.read_text("utf-8"))


def test_every_number_shown_is_one_of_the_data_and_these_are_those_of_the_files(made: Path) -> None:
    names = ("first", "second", "third")
    page = page_of(*(made / name for name in names))
    assert false_numbers(page) == []
    for name, run in zip(names, page.data["runs"], strict=True):
        for file in ("summary", "manifest"):
            assert run[file] == json.loads((made / name / f"{file}.json").read_text("utf-8"))
    shown = {pointer for pointer, _, _ in page.numbers}
    for i, seeds in enumerate((4, 4, 1)):
        at = f"/runs/{i}/summary"
        wanted = {f"{at}/final_return/{name}" for name in ("iqm", "mean")}
        wanted |= {f"{at}/final_return/per_seed/{k}" for k in range(seeds)}
        wanted |= {f"{at}/{name}" for name in ("episodes_per_seed", "num_seeds", "train_seconds")}
        wanted |= {f"/runs/{i}/env_steps", f"/runs/{i}/total_env_steps"}
        assert wanted <= shown
    row = "/comparisons/0/groups/1"
    assert {f"{row}/difference", f"{row}/probability", f"{row}/iqm"} <= shown
    assert "/comparisons/0/margin" in shown
    assert {"/improvements/0/probability/0/1", "/runs/0/summary/final_return/ci95/1"} <= shown


def test_no_number_stands_in_a_table_but_as_one_of_the_data(made: Path) -> None:
    page = page_of(made / "first", made / "second")
    loose = [cell for cell in page.cells if re.search(r"\d", cell)]
    words = {"64, 64", "float32", "0.003:0.0"}  # hidden_sizes, precision, the step size's schedule
    assert set(loose) == words


def test_a_number_that_is_not_that_of_the_data_is_found(made: Path) -> None:
    page = page_of(made / "first")
    pointer, digits, shown = page.numbers[0]
    for wrong in ((pointer, digits, "3.14"), (pointer, "3.14", shown)):
        page.numbers = [wrong]
        assert false_numbers(page) == [wrong]


def test_the_page_needs_nothing_but_itself(made: Path) -> None:
    page = page_of(made / "first", made / "third")
    assert all(link.startswith("data:") for link in page.links)
    assert page.tags.count("script") == 1  # the data
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert page.tags.count("svg") > 6


def test_runs_of_one_environment_are_compared_and_others_are_not(made: Path) -> None:
    page = page_of(made / "first", made / "second", made / "third")
    assert [found["runs"] for found in page.data["improvements"]] == [[0, 1]]
    assert page.data["improvements"][0]["probability"] == [[None, 1.0], [0.0, None]]
    assert "2 environments" in page.text
    assert page.text.index("P(better)") < page.text.index("Learning curves")  # it leads
    assert "Pendulum-v1" in page.text


def test_names_and_settings_cannot_become_markup(tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert(2)<"
    make_run(folder, env=EVIL)
    make_run(tmp_path / "b", env=EVIL)
    content = json.loads((folder / "config.json").read_text("utf-8"))
    content["hyper"]["env"] = {EVIL: 1.5}
    content["config"]["network"] = EVIL
    (folder / "config.json").write_text(json.dumps(content), "utf-8")
    for page in (page_of(folder), page_of(folder, tmp_path / "b")):
        assert page.tags.count("script") == 1
        assert EVIL in page.text
        assert page.data["runs"][0]["env"] == EVIL
        assert false_numbers(page) == []
        assert page.data["runs"][0]["label"] in page.text


def test_the_same_runs_give_the_same_page(made: Path) -> None:
    texts = []
    for name in ("x.html", "y.html"):
        write.report(made / "first", made / name, animate=False)
        texts.append((made / name).read_bytes())
    assert texts[0] == texts[1]


def test_a_run_that_was_not_evaluated_says_so(made: Path, tmp_path: Path) -> None:
    killed = Path(shutil.copytree(made / "first", tmp_path / "killed"))
    (killed / "summary.json").unlink()
    stopped = Path(shutil.copytree(made / "first", tmp_path / "stopped"))
    summary = json.loads((stopped / "summary.json").read_text("utf-8"))
    summary["final_return"] = {"per_seed": [None] * 4, "iqm": None, "ci95": None}
    summary |= {"episodes_per_seed": 0, "stopped_by": "SIGTERM"}
    (stopped / "summary.json").write_text(json.dumps(summary), "utf-8")
    assert "still running, or killed" in page_of(killed).text
    assert "Stopped by SIGTERM; not evaluated" in page_of(stopped).text
    both = page_of(killed, stopped)
    assert both.cells.count("not evaluated") == 2
    assert false_numbers(both) == []


def test_a_run_whose_seeds_all_failed_is_reported(made: Path, tmp_path: Path) -> None:
    failed = Path(shutil.copytree(made / "first", tmp_path / "failed"))
    summary = json.loads((failed / "summary.json").read_text("utf-8"))
    summary["final_return"] = {"per_seed": [None] * 4, "iqm": None, "mean": None, "ci95": None}
    summary["num_failed"] = 4
    (failed / "summary.json").write_text(json.dumps(summary), "utf-8")
    page = page_of(failed)
    assert "every seed turned non-finite" in page.text
    assert ("/runs/0/summary/num_failed", "4", "4") in page.numbers


def test_a_page_of_as_many_runs_as_fit_stays_below_3_mb(made: Path, tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(made / "first", tmp_path / f"run-{i}")) for i in range(24)]
    done = write.report(folders, tmp_path / "all.html", animate=False)
    assert done["bytes"] < 3_000_000
    page = Page((tmp_path / "all.html").read_text("utf-8"))
    assert false_numbers(page) == []
    assert len(page.ids) == len(set(page.ids))


def test_the_command_writes_beside_a_single_run_and_says_where(made: Path, capsys) -> None:
    folder = made / "first"
    assert main(["report", str(folder), "--no-animation", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["out"] == str(folder / "report.html")
    assert told["bytes"] == (folder / "report.html").stat().st_size
    assert (told["kind"], told["notes"]) == ("runs", [])
    assert main(["report", str(folder), "--no-animation"]) == 2
    assert "exists already: name a new file, or give --force" in capsys.readouterr().err
    assert main(["report", str(folder), "--no-animation", "--force"]) == 0
    (folder / "report.html").unlink()


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([], "There is no run in 'runs'"),
        (["firts"], r"'firts' is no run's folder .* and no suite \(brax, bsuite, .*Nearest: first"),
        (["clasic"], "Nearest: classic"),
        (["first", "classic"], "A page has runs or one suite"),
        (["classic", "minatar"], "A page has runs or one suite"),
        (["first", "--quick"], "belong to suites"),
        (["first", "-o", "nowhere/a.html"], "is no writable folder"),
        (["first", "-o", "second"], "is a folder: name a file"),
        (["first", "--ouput", "x"], "--ouput is no option"),
        (["craftax", "--quick"], "There are no results of 'craftax'"),
        (["classic", "--results", "nowhere"], "is no folder"),
        (["classic", "--results", "second"], "holds no result of classic that can be used"),
        (["missing.toml"], "cannot be read"),
        (["first", "first"], "is named twice"),
        (["first,third", "second"], "'first, third' has several environments"),
        (["first,none"], "'none' is no run's folder"),
        (["first,classic"], "'classic' is a suite, and 1 more were given"),
    ],
)
def test_what_cannot_be_reported_is_refused_and_nothing_is_written(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(made)
    before = sorted(made.rglob("*"))
    assert main(["report", *words]) == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert sorted(made.rglob("*")) == before


def test_a_sweep_is_told_from_a_run(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}", "utf-8")
    with pytest.raises(InputError, match="is a sweep's folder"):
        write.recognise([str(tmp_path)])


def test_a_disk_that_refuses_leaves_nothing_half_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "old.html").write_text("old", "utf-8")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device"):
        write.report(made / "first", tmp_path / "old.html", force=True, animate=False)
    assert [(p.name, p.read_text("utf-8")) for p in tmp_path.iterdir()] == [("old.html", "old")]


def test_a_page_is_replaced_in_one_move(made: Path, tmp_path: Path) -> None:
    page, kept = tmp_path / "page.html", tmp_path / "kept.html"
    page.write_text("old", "utf-8")
    os.link(page, kept)  # writing into the old file would change it under both names
    write.report(made / "first", page, force=True, animate=False)
    assert kept.read_text("utf-8") == "old"
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_a_page_that_is_too_large_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MAX_BYTES", 50_000)
    with pytest.raises(InputError, match=r"leave the animations out \(--no-animation\)"):
        write.report(made / "first", made / "large.html", animate=False)
    assert not (made / "large.html").exists()


def test_without_animations_no_jax_is_loaded(made: Path) -> None:
    code = (
        "import sys; from ppo_jax.cli.main import main;"
        f"code = main(['report', {str(made / 'first')!r}, '--no-animation', '-o', "
        f"{str(made / 'nojax.html')!r}]); sys.exit(code or 10 * ('jax' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_reader_of_these_tests_finds_unbalanced_markup() -> None:
    with pytest.raises(AssertionError, match="closes another element"):
        Page('<p><b></p><script type="application/json">{}</script>')
    assert report_page.is_rounded("−1,234.5", -1234.46)
    assert not report_page.is_rounded("1.23", 1.236)
