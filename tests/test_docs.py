"""The site of docs/: whole, without a call to another host, and readable at two widths."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Browser

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
# What readers look for, by the words of the navigation
WANTED = {
    "Start here",
    "How it works",
    "All methods",
    "Metrics",
    "Headroom: what marginal-preserving methods can gain",
    "Is the gain real?",
    "Gates in CI",
    "Models",
    "Samplers",
    "Scale",
    "Reliability",
    "From Python",
    "Questions",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as CI builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def page_of(site: Path, name: str) -> Path:
    return site / "index.html" if name == "index" else site / name / "index.html"


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    text = (site / "start" / "index.html").read_text()
    navigation = text[text.index("md-nav--primary") : text.index("md-sidebar--secondary")]
    linked = {path.strip("./") or "index" for path in re.findall(r'href="([^"#]+)"', navigation)}
    assert all(page_of(site, name).is_file() for name in PAGES)
    assert set(PAGES) - {"start"} <= linked, "the page itself is linked by its parts"
    words = set(map(str.strip, re.findall(r'"md-ellipsis">\s*(.*?)\s*</span>', navigation, re.S)))
    assert {re.sub(r"<.*?>", "", word).strip() for word in words} >= WANTED


def test_the_api_shows_docstrings_of_all_that_it_names(site: Path) -> None:
    named = re.findall(r"^::: (\S+)", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    text = page_of(site, "api").read_text()
    assert "eddy_bench.notebook.load_run" in named
    for name in named:
        assert f'id="{name}"' in text, name
    for words in ("Draw prompts with several methods", "Return the N images of a group"):
        assert words in text


def test_no_page_calls_another_host(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text()
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]+src=[\"']?([^\"'\s>]+)", text)
        fetched += re.findall(r"<link[^>]+rel=[\"']?stylesheet[^>]+href=[\"']?([^\"'\s>]+)", text)
        assert not [address for address in fetched if re.match("https?:|//", address)], path
        assert 'class="mermaid"' not in text, f"{path}: its script would come from elsewhere"


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_their_width_and_wide_tables_scroll(
    site: Path, browser: Browser, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    for name in PAGES:
        page.goto(page_of(site, name).as_uri())
        sizes = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert sizes[0] <= sizes[1], name
        broken = page.evaluate(
            """[...document.querySelectorAll(".md-content img")].filter(
                image => !image.complete || image.naturalWidth === 0
            ).map(image => image.src)"""
        )
        assert not broken, name
        loose = page.evaluate(
            """[...document.querySelectorAll(".md-content table:not(.highlighttable)")].filter(
                table => !table.closest(".md-typeset__scrollwrap, .highlight")
            ).length"""
        )
        assert loose == 0, f"{name}: tables that do not scroll"
    page.close()
