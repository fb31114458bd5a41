"""The page: what it says, that it is one file, and how it behaves in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from eddy_bench.report.strips import make_strip
from eddy_bench.storage.run_folder import RunFolder
from tests.conftest import Browser, Result
from tests.makers.scored_runs import EVIL, make_run, many_methods

HOLLOW = "fill: var(--paper)"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "made")


def test_the_page_is_one_file_that_says_what_was_found(
    cli: Callable[..., Result], run: Path
) -> None:
    done = cli("report", run)
    assert done.code == 0, done.err
    page = (run / "report.html").read_text()
    assert "More diverse than iid" in page
    assert "Less faithful" in page
    assert "No significant difference in diversity" in page
    assert EVIL not in page
    assert "&lt;script&gt;alert" in page
    addresses = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)""", page)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"url\((?!#)|@import", page)
    assert (run / "plots" / "pareto.svg").is_file()
    with Image.open(run / "plots" / "pareto.png") as plot:
        assert plot.size[0] > 800


def test_large_images_stay_under_five_megabytes(cli: Callable[..., Result], tmp_path: Path) -> None:
    run = make_run(tmp_path / "large", side=700, prompts=30)
    assert cli("report", run, "--out", tmp_path / "page.html").code == 0
    assert (tmp_path / "page.html").stat().st_size < 5e6


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "most"), [(48, 5e6), (500, 12e6)])
def test_pages_of_24_methods_stay_small(
    cli: Callable[..., Result], tmp_path: Path, prompts: int, most: float
) -> None:
    run = make_run(tmp_path / "many", prompts=prompts, effects=many_methods(24))
    assert cli("report", run, "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert len(page) < most
    left = re.search(r"(\d+) more prompts are left out", page)
    assert left is not None
    assert prompts - int(left[1]) >= 16  # prompts whose images are there


def test_long_prompts_are_shortened(cli: Callable[..., Result], run: Path) -> None:
    rows = pd.read_csv(run / "scores.csv", keep_default_na=False)
    rows.assign(
        prompt=rows["prompt"].where(rows["prompt"] == "", rows["prompt"] + " very" * 4000)
    ).to_csv(run / "scores.csv", index=False)
    assert cli("report", run, "--out", run / "long.html").code == 0
    assert (run / "long.html").stat().st_size < 1e6
    assert "…</h3>" in (run / "long.html").read_text()
    assert (run / "long-plots" / "pareto.svg").is_file(), (
        "two pages in a folder keep their own plots"
    )


@pytest.mark.parametrize("blind", [(), ("--blind",)])
def test_a_page_that_cannot_be_written_is_named_itself(
    cli: Callable[..., Result], run: Path, tmp_path: Path, blind: tuple[str, ...]
) -> None:
    """Not its plots, which stand in a folder beside it."""
    (tmp_path / "file").write_text("")
    page = tmp_path / "file" / "folder" / "page.html"
    done = cli("report", run, "--out", page, *blind)
    assert done.code == 2
    assert f"Error: {page} cannot be written: " in done.err
    assert "plots" not in done.err


def test_one_method_alone_is_shown_without_a_comparison(
    cli: Callable[..., Result], run: Path
) -> None:
    rows = pd.read_csv(run / "scores.csv", keep_default_na=False)
    rows[rows["method"] == "iid"].to_csv(run / "scores.csv", index=False)
    assert cli("report", run).code == 0
    assert "nothing to compare" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda run: run / "scores.csv", "Expected a run folder"),
        (lambda run: run / "nowhere", "Expected a run folder"),
        (lambda run: (run / "scores.csv").unlink() or run, "eddy-bench score"),
    ],
)
def test_what_is_no_run_is_refused(
    cli: Callable[..., Result], run: Path, prepare: Callable[[Path], Path], message: str
) -> None:
    done = cli("report", prepare(run))
    assert (done.code, done.err.splitlines()[-1].count("Error:")) == (2, 1)
    assert message in done.err


def test_broken_pictures_are_left_out(run: Path) -> None:
    groups = list(RunFolder(run).finished())
    (groups[0].folder / "0.png").write_bytes(b"x" * groups[0].files["0.png"].size)
    assert make_strip(groups[0], "iid") is None
    strip = make_strip(groups[1], "iid")
    assert strip is not None
    assert (strip.width, strip.height, strip.count) == (2 * 32 + 2, 32, 2)


def test_groups_that_are_left_out_are_counted(cli: Callable[..., Result], run: Path) -> None:
    """One whose picture is damaged, and one whose record is."""
    first, second, *_ = RunFolder(run).finished()
    (first.folder / "0.png").write_bytes(b"x" * first.files["0.png"].size)
    (second.folder / "group.json").write_text("{")
    assert cli("report", run).code == 0
    assert "2 groups could not be read." in (run / "report.html").read_text()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_real_browser(
    browser: Browser, cli: Callable[..., Result], run: Path, width: int, scheme: str
) -> None:
    cli("report", run)
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    problems: list[str] = []
    requests: list[str] = []
    page.on(
        "console",
        lambda message: (
            problems.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append("a prompt ran as a script"))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((run / "report.html").as_uri())
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#parts", "the points can be skipped"
    page.evaluate("scrollTo(0, 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert Axe().run(page).response["violations"] == []
    for part in (".lead", f"svg.{'wide' if width > 700 else 'narrow'}", ".few img"):
        box = page.locator(part).first.bounding_box()  # on the first screen
        assert box["y"] + box["height"] <= 844, part
    assert page.locator(".few .row").first.locator(".name").inner_text() == "iid"
    assert not page.locator("svg.narrow" if width > 700 else "svg.wide").is_visible()
    images = page.locator(".viewer .prompt.current img")
    assert images.count() == 4
    for k in range(images.count()):
        images.nth(k).scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('.current img')]"
        ".every(image => image.complete && image.naturalWidth > 0)"
    )
    assert page.evaluate(
        "[...document.querySelectorAll('.current img')].every(i => Math.abs("
        "i.width / i.height / (i.naturalWidth / i.naturalHeight) - 1) < 0.1)"
    )
    assert (
        page.evaluate(  # the same noise in the same column, names that do not wrap
            "new Set([...document.querySelectorAll('.current img')].map(i => i.x)).size"
        )
        == 1
    )
    assert page.evaluate(
        "[...document.querySelectorAll('.current .name')].every(n => n.clientHeight < 30)"
    )
    assert not page.locator("dialog").is_visible()
    page.locator(".current [data-zoom]").first.click()
    assert page.locator("dialog").is_visible()
    assert page.evaluate("document.querySelector('dialog img').naturalWidth") > 0
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    first = page.locator(".current h3").inner_text()
    page.locator("#after").click()
    assert page.locator(".current h3").inner_text() != first
    page.locator("#sorting").select_option("-pg:strength=2")
    losses = page.evaluate("JSON.parse(document.getElementById('data').textContent).gains")
    shown = int(page.locator(".prompt.current").get_attribute("data-index"))
    assert losses["pg:strength=2"][shown] == min(losses["pg:strength=2"])
    page.locator(".choosing summary").click()
    page.locator("#choice input").nth(1).uncheck()
    assert page.locator(".current .row:not([hidden])").count() == 3
    point = page.locator(".point:visible").nth(2)
    point.focus()
    assert page.locator("#peek").is_visible()
    assert page.locator("#peek").inner_text().startswith(point.get_attribute("data-method"))
    assert page.locator("#peek img").count() == 3
    page.mouse.move(0, 0)
    for point in page.locator(".point:visible").all():  # those that others cover, too
        box = point.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert page.locator("#peek").inner_text().startswith(point.get_attribute("data-method"))
    page.mouse.move(0, 0)
    assert not page.locator("#peek").is_visible()
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in requests) == 1
    assert problems == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (scheme == "light")


def test_it_reads_without_javascript(browser: Any, cli: Callable[..., Result], run: Path) -> None:
    cli("report", run)
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((run / "report.html").as_uri())
    assert page.locator("dl.verdicts dt").count() == 3
    assert page.locator("svg.wide").is_visible()
    assert page.locator(".viewer .prompt:visible").count() == 8
    assert not page.locator(".controls").is_visible()
    assert page.locator(".differences [role=rowheader]").count() == 3
    assert page.locator("section.prompt").count() == 8
    assert page.locator("[data-zoom]:enabled, .hint:visible").count() == 0, "nothing to press"


def test_printing_leaves_the_controls_out(
    browser: Browser, cli: Callable[..., Result], run: Path
) -> None:
    cli("report", run)
    page = browser.new_page(viewport={"width": 800, "height": 1100})
    page.goto((run / "report.html").as_uri())
    page.emulate_media(media="print")
    assert not page.locator(".controls").is_visible()
    assert not page.locator("nav").is_visible()
    assert page.locator(".lead").is_visible()
    assert page.locator("svg.wide, svg.narrow").locator("visible=true").count() == 1
    assert page.locator(".prompt.current").is_visible()


def test_two_questions_with_one_answer_make_one_sentence(
    cli: Callable[..., Result], run: Path
) -> None:
    cli("report", run)
    page = (run / "report.html").read_text()
    lead = re.sub("<[^>]*>", "", page[page.index('id="use"') :].partition("</p>")[0])
    assert lead.count("pg:strength=1") == 1
    assert "at any time" in lead


def lead_of(run: Path) -> str:
    page = (run / "report.html").read_text()
    return re.sub("<[^>]*>", "", page[page.index('class="lead"') :].partition("</p>")[0])


def strips_of(run: Path) -> set[str]:
    page = (run / "report.html").read_text()
    return set(re.findall(r"images of ([^ ]+) for", page[: page.index("On this page")]))


def test_answers_and_the_baseline_are_named_at_their_points_at_every_width(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "many", prompts=20, effects=many_methods(24))
    assert cli("report", run).code == 0
    page = (run / "report.html").read_text()
    for prefix in ("wide", "narrow"):
        plot = page[page.index(f'<svg class="{prefix}"') :].partition("</svg>")[0]
        assert {"iid", "pg:strength=23"} <= set(re.findall(r">([^<>]+)</text>", plot))


def test_points_that_lose_more_than_is_allowed_are_hollow(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    effects = {
        "iid": {"vendi": 0.0, "clip": 0.0, "align": 0.0},
        "pg:strength=1": {"vendi": 0.3, "clip": 0.0, "align": 0.0},
        "pg:strength=2": {"vendi": 0.6, "clip": 0.0, "align": -5.0},
    }
    run = make_run(tmp_path / "r", prompts=20, effects=effects)
    assert cli("report", run).code == 0
    page = (run / "report.html").read_text()
    points = page[page.index('<svg class="wide"') :].partition("</svg>")[0].split('class="point"')
    hollow = {
        point.split('data-method="')[1].split('"')[0] for point in points[1:] if HOLLOW in point
    }
    assert hollow == {"pg:strength=2"}, "its clip is right of the dotted line"
    assert "Use pg:strength=1" in lead_of(run)


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ("vendi", "stay with iid, fidelity was not scored"),
        ("clip", "No metric of diversity was scored"),
    ],
)
def test_what_was_not_scored_is_said(
    cli: Callable[..., Result], tmp_path: Path, measured: str, said: str
) -> None:
    effects = {"iid": {measured: 0.0}, "lhs": {measured: 0.0}, "pg": {measured: 1.0}}
    run = make_run(tmp_path / "r", effects=effects)
    assert cli("report", run).code == 0
    assert said in lead_of(run)
    assert {"iid", "lhs"} <= strips_of(run)
    assert 'id="differences"' in (run / "report.html").read_text()
    done = cli("compare", run)
    assert ("fidelity was not scored" in done.out) == (measured == "vendi")
    assert ("no metric of diversity" in done.err) == (measured == "clip")
