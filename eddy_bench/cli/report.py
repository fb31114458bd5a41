"""Options of `eddy-bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.cli.arguments import PATH
from eddy_bench.storage.paths import reachable


def report(
    folders: Annotated[
        list[Path], typer.Argument(parser=reachable, metavar="RUN", help="Run folders.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(**PATH, help="The page. [default: RUN/report.html]", show_default=False),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            help="The method that the others are compared with, with its parameters if any."
        ),
    ] = "iid",
    partly: Annotated[
        bool, typer.Option("--partly", help="Compare what all runs have where they differ.")
    ] = False,
) -> None:
    """Write one self-contained HTML page about a run: verdicts, plots, images, cost."""
    from eddy_bench.cli.reporting import report_runs

    report_runs(folders, out, baseline, partly)
