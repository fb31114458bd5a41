"""Whatever a file holds, what is shown of it moves, hides and runs nothing."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eddy_bench.errors import EddyError, UnknownName, unknown
from eddy_bench.results.io import escaped
from eddy_bench.shown import FORMULA, HIDDEN, markdown_text, shown, shown_json, text_of_cell
from tests.conftest import Result
from tests.makers.runs import SHORT
from tests.makers.score_files import of
from tests.makers.scored_runs import make_run

Cli = Callable[..., Result]
CONTROLS = "\x1b[2J\x1b]0;title\x07\x9b31m\u202eabc\u2066\ufffe"
MARKUP = "<img src=x onerror=alert(1)> [a](http://x) ![b](http://y) `"
EVIL = f"{CONTROLS}{MARKUP}"


@given(st.text())
def test_every_character_of_a_text_shows(text: str) -> None:
    assert not HIDDEN.search(shown(text))
    assert shown(shown(text)) == shown(text)
    ElementTree.fromstring(f"<a>{shown(text).replace('&', '').replace('<', '')}</a>")
    assert not HIDDEN.search(str(EddyError(text)))
    assert json.loads(shown_json(json.dumps(text, ensure_ascii=False))) == text
    assert not HIDDEN.search(shown_json(json.dumps(text, ensure_ascii=False)))


@pytest.mark.parametrize("text", ["a dress", "Kleid für 10 €", "कपड़ा", "👩‍🎨 ✂️", "لباس", "x\ny"])
def test_text_of_any_language_stays(text: str) -> None:
    assert shown(text) == text


@given(st.text())
def test_markdown_has_neither_tags_nor_links_nor_ends_of_cells(text: str) -> None:
    line = markdown_text(text)
    plain = re.sub(r"\\.", "", line)
    assert not re.search(r"[<|`\n]|\][(\[:]", plain)


@given(st.lists(st.text(), min_size=1), st.text(min_size=1))
def test_a_spreadsheet_runs_no_text_of_any_column(cells: list[str], name: str) -> None:
    table = pd.DataFrame({name: cells})
    assert not any(cell.startswith(tuple(set(FORMULA) - {"'"})) for cell in escaped(table)[name])
    assert [text_of_cell(cell) for cell in escaped(table)[name]] == cells


def test_an_unknown_name_is_cut() -> None:
    assert len(str(UnknownName(unknown("method", "x" * 10**6, ["iid"])))) < 400


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored run whose method, metric and prompts are called as an attacker may call them."""
    folder = make_run(tmp_path_factory.mktemp("scored") / "run")
    path = folder / "scores.csv"
    table = pd.read_csv(path, keep_default_na=False)
    table["method"] = table["method"].replace("pg:strength=2", f"pg:strength=2{EVIL}")
    table["prompt"] = table["prompt"] + EVIL
    theirs = table[of(table, "vendi")].assign(
        metric="=cmd()\x9b31m\u202e<img src=x>", signature="theirs|source=0|aspect=diversity"
    )
    pd.concat([table, theirs]).to_csv(path, index=False)
    return folder


def is_harmless(text: str) -> bool:
    """Whether a text shows as it is; a terminal's colours, of ours, may be in it."""
    return not HIDDEN.search(re.sub(r"\x1b\[[\d;]*m", "", text))


@pytest.mark.parametrize("full", [[], ["--full"]])
@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_a_comparison_shows_what_it_was_given(
    cli: Cli, run: Path, form: str, full: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = cli("compare", run, "--format", form, *full)
    assert done.code == 0, done.err
    assert "cmd()" in done.out
    assert is_harmless(done.out + done.err)
    if form == "markdown":
        assert "<img" not in done.out
        assert "](" not in done.out
    if form == "csv":
        cells = [cell for row in csv.reader(io.StringIO(done.out)) for cell in row]
        assert not any(cell.startswith(("=", "@")) for cell in cells)
    if form == "json":
        assert any("\u202e" in item["method"] for item in json.loads(done.out)["differences"])


def test_a_gates_summary_holds_no_markup(cli: Cli, run: Path, tmp_path: Path) -> None:
    gate, summary, junit = (tmp_path / name for name in ("g.yaml", "s.md", "j.xml"))
    gate.write_text(yaml.safe_dump({"checks": [{"metric": "vendi[fmnist-clip]", "test": "equal"}]}))
    call = [
        "compare",
        run,
        "--against",
        run,
        "--gate",
        gate,
        "--summary",
        summary,
        "--junit",
        junit,
    ]
    done = cli(*call)
    assert done.code == 0, done.err
    assert "<img" not in summary.read_text()
    assert is_harmless(summary.read_text() + done.out + done.err)
    ElementTree.parse(junit)
    gate.write_text(yaml.safe_dump({"checks": [{"metric": EVIL, "test": "equal"}]}))
    done = cli(*call)
    assert done.code == 2
    assert "<img" not in summary.read_text()
    assert is_harmless(summary.read_text() + done.out + done.err)


def test_a_page_and_its_plots_are_valid_and_show_what_they_hold(cli: Cli, run: Path) -> None:
    done = cli("report", run)
    assert done.code == 0, done.err
    pages = [*run.glob("*.html"), *run.rglob("*.svg")]
    assert len(pages) > 1
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not HIDDEN.search(text), page
        assert "<img src=x" not in text
        for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
            linked = "" if "xmlns:xlink" in svg else 'xmlns:xlink="x" '
            ElementTree.fromstring(svg.replace("<svg ", f"<svg {linked}", 1))
    assert is_harmless(done.out + done.err)


def test_what_is_typed_is_shown_as_it_was_typed(cli: Cli, tmp_path: Path) -> None:
    for call in (
        ("run", "--method", EVIL),
        ("run", "--metric", EVIL),
        ("run", EVIL),
        ("run", "--prompts", EVIL),
        ("run", "--model", f"./{EVIL}"),
        ("compare", tmp_path / "none", "--baseline", EVIL),
        (EVIL,),
        ("list", EVIL),
    ):
        done = cli(*call)
        assert done.code == 2
        assert is_harmless(done.err + done.out), call


def test_prompts_of_others_are_shown_as_they_are(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(f"a hat {EVIL}\n", encoding="utf-8")
    done = cli(*SHORT, "--prompts", tmp_path / "p.txt", "--out", tmp_path / "r")
    assert done.code == 0, done.err
    assert is_harmless(done.out + done.err)
