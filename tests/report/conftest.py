"""The system's Chromium, for pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

Browser = Any  # playwright's, which need not be installed


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs the Python package playwright"
    )
    path = next(
        (
            done
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (done := shutil.which(name))
        ),
        None,
    )
    if path is None:
        pytest.skip("needs Chromium on the system")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
