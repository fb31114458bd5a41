"""The page to vote on: what it hides, and that votes made in a browser are read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eddy_bench.compare.preference import drawn_groups, opinions, read_votes, study_items
from eddy_bench.ids import IID
from tests.conftest import Browser, Result
from tests.makers.runs import change_a_byte
from tests.makers.scored_runs import EFFECTS, EVIL, make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "made")


def test_the_page_names_no_method(cli: Callable[..., Result], run: Path) -> None:
    done = cli("report", run, "--blind")
    assert done.code == 0, done.err
    assert "8 pairs" in done.out
    text = (run / "blind.html").read_text()
    assert EVIL not in text
    words = text[: text.index('id="pairs"')] + "".join(
        part[:20] for part in text.split("data:image")
    )
    for label in EFFECTS:
        assert label not in words
        assert label.partition(":")[0] + '"' not in text


def test_pairs_that_cannot_be_read_are_left_out_and_counted(
    cli: Callable[..., Result], run: Path
) -> None:
    broken = next(group for group in drawn_groups(run).values() if group.group.name == "iid")
    change_a_byte(broken.folder / "0.png")
    done = cli("report", run, "--blind")
    assert "7 pairs" in done.out
    assert "left out 1 pair with images that cannot be read" in done.err


def test_the_next_command_names_the_baseline(cli: Callable[..., Result], run: Path) -> None:
    done = cli("report", run, "--blind", "--baseline", "eddy-exact")
    assert done.code == 0, done.err
    assert "--baseline eddy-exact --votes votes.csv" in " ".join(done.err.split())
    assert "--baseline" not in cli("report", run, "--blind").err


def test_large_images_stay_under_five_megabytes(cli: Callable[..., Result], tmp_path: Path) -> None:
    run = make_run(tmp_path / "large", side=700, prompts=30)
    assert cli("report", run, "--blind", "--pairs", "500").code == 0
    assert (run / "blind.html").stat().st_size < 5e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pairs", "3"), "Add --blind"),
        (("--blind", "--allow-missing"), "one run folder"),
        (("--blind", "--baseline", "lhs"), "'lhs'"),
        (("--blind", "--baseline", "idd"), "Did you mean 'iid'"),
        (("--blind", "--pairs", "0"), "--pairs"),
        (("--blind", "--shuffle", str(2**53)), "--shuffle"),
    ],
)
def test_bad_options_are_refused(
    cli: Callable[..., Result], run: Path, options: tuple[str, ...], message: str
) -> None:
    done = cli("report", run, *options)
    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_images_that_cannot_be_read_make_no_ballot(cli: Callable[..., Result], run: Path) -> None:
    for image in (run / "samples").rglob("*.png"):
        image.write_bytes(bytes(image.stat().st_size))
    done = cli("report", run, "--blind")
    assert (done.code, done.err.count("Error:")) == (2, 1)
    assert "none that can be read" in " ".join(done.err.split())
    assert not (run / "blind.html").exists()


@pytest.mark.parametrize("width", [1280, 390])
def test_votes_made_in_a_browser_are_read_back(
    browser: Browser, cli: Callable[..., Result], run: Path, tmp_path: Path, width: int
) -> None:
    cli("report", run, "--blind", "--pairs", "5", "--shuffle", "3")
    page: Any = browser.new_page(viewport={"width": width, "height": 844})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append("a prompt ran as a script"))
    page.goto((run / "blind.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#progress").inner_text() == "Pair 1 of 5, 0 answered"
    page.locator("label:has(input[name=different][value=left])").click()
    page.locator("label:has(input[name=better][value=same])").click()
    page.locator("#next").click()
    page.keyboard.press("3")
    page.keyboard.press("1")
    page.wait_for_function("document.getElementById('progress').innerText.startsWith('Pair 3')")
    for _ in range(10):  # a busy browser writes down what a page keeps a moment later
        page.reload()
        if page.locator("#progress").inner_text() == "Pair 3 of 5, 2 answered":
            break
        page.wait_for_timeout(200)
    assert page.locator("#progress").inner_text() == "Pair 3 of 5, 2 answered"
    page.locator("#voter").fill('=ann, "a"')
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(tmp_path / "votes.csv")
    page.close()
    assert problems == []
    votes = read_votes([tmp_path / "votes.csv"])
    items = study_items(drawn_groups(run), IID, 3)
    assert [vote.item for vote in votes] == [item.id for item in items[:2]]
    assert [(vote.different, vote.better) for vote in votes] == [
        ("left", "same"),
        ("right", "left"),
    ]
    assert not votes[0].voter.startswith("=")
    found, lost = opinions(run, votes, IID)
    assert lost == 0
    assert found[0].value == float(items[0].method_left)
    assert found[2].value == float(not items[1].method_left)
