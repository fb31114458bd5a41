"""Fixtures of several rooms: the command line, a finished run to compare with, a browser."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

Browser = Any  # playwright's, which need not be installed
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # default tests run offline
os.environ.pop("COLUMNS", None)  # a test that wants a width sets it


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what `slow.txt` lists, which `python -m tests.makers.durations` writes."""
    slow = set((Path(__file__).parent / "slow.txt").read_text("utf-8").split())
    for item in items:
        if item.nodeid.partition("[")[0] in slow:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later search for garbage, which takes a second each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _temporary(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put whatever `tempfile` makes where pytest tidies up."""
    tempfile.tempdir = str(tmp_path_factory.mktemp("temporary"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Give every test the same global random numbers, whatever ran before it.

    `make test-luck` varies them: what a test asserts must not hang on one draw.
    """
    torch.manual_seed(int(os.environ.get("EDDY_BENCH_TEST_SEED", "0")))


@pytest.fixture(autouse=True)
def _said_as_usual() -> None:
    """Let no test inherit another's -q or -v."""
    from eddy_bench.cli.console import VERBOSITY

    VERBOSITY.set(0)


class Result:
    """What a command did: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """The command line, in this process; a traceback is a failure of the test."""
    from eddy_bench.cli.app import main

    def call(*arguments: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(stop.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed; tests copy it, and change the copy."""
    from tests.makers.runs import RUN

    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    done = subprocess.run(
        [sys.executable, "-m", "eddy_bench.cli", *RUN, "--out", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium; where it is to be there, in CI, a test does not pass without."""
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
    if path is None and os.environ.get("CI"):
        pytest.fail("CI lacks Chromium, without which nothing of the pages is tested")
    if path is None:
        pytest.skip("needs Chromium on the system")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
