"""`eddy-bench report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from eddy_bench.cli.console import console
from eddy_bench.cli.progress import growing_bar
from eddy_bench.report.page import write_report


def report_runs(folders: Sequence[Path], out: Path | None, baseline: str, partly: bool) -> None:
    """Write the page and say where it is."""
    with growing_bar("Writing") as progress:
        path = write_report(folders, out, baseline, partly, progress)
    console().print(
        escape(f"report   {path} ({(path.stat().st_size or 0) / 1e6:.1f} MB)"), soft_wrap=True
    )
