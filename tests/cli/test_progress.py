"""Progress where there is no terminal."""

from __future__ import annotations

import time

import pytest

from eddy_bench.cli import progress


def test_a_line_at_every_interval_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.02)
    with progress.progress_bar("Drawing", 4) as advance:
        advance(1, "[a] cat")
        time.sleep(0.2)
    lines = [line for line in capsys.readouterr().err.splitlines() if " after 0:00" in line]
    assert len(lines) >= 2
    assert lines[-1] == "Drawing [a] cat: 25% after 0:00, a second left"


def test_work_that_is_estimated_ends_at_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar("Auditing", 1.0, percent=True) as advance:
        advance(0.9999, "a")
    assert "100%" in capsys.readouterr().err


def test_nothing_but_the_bar_s_end_before_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar("Drawing", 1) as advance:
        advance(1, "a")
    assert " after " not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "a second"),
        (4.4, "about 4 seconds"),
        (47, "about 50 seconds"),
        (701, "about 12 minutes"),
        (9000, "about 2.5 hours"),
    ],
)
def test_durations_are_rounded_as_estimates_are(seconds: float, text: str) -> None:
    assert progress.about(seconds) == text
