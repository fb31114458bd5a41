"""Options of `eddy-bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.cli.arguments import PATH
from eddy_bench.errors import ParameterError
from eddy_bench.storage.paths import reachable


def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            parser=reachable,
            metavar="RUN",
            help="Run folders. [default: the last run]",
            show_default=False,
        ),
    ] = None,
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
    blind: Annotated[
        bool,
        typer.Option(
            "--blind",
            help="Write a page to vote on instead: each method's images beside the baseline's, "
            "unlabelled. compare --votes reads the votes. [default page: RUN/blind.html]",
        ),
    ] = False,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Pairs of a blind page at most. [default: 60]")
    ] = None,
    shuffle: Annotated[
        int | None,
        typer.Option(min=0, max=2**53 - 1, help="Order and sides of a blind page. [default: 0]"),
    ] = None,
) -> None:
    """Write one self-contained HTML page about a run: verdicts, plots, images, cost.

    Or, with --blind, a page on which people vote.
    """
    from eddy_bench.cli.reporting import report_runs, write_ballot
    from eddy_bench.compare.load import last_run

    folders = folders or [last_run()]
    if not blind:
        if pairs is not None or shuffle is not None:
            raise ParameterError("--pairs and --shuffle are of a page to vote on. Add --blind.")
        report_runs(folders, out, baseline, partly)
        return
    if len(folders) > 1 or partly:
        raise ParameterError("--blind takes one run folder, without --partly.")
    write_ballot(folders[0], out, baseline, pairs or 60, shuffle or 0)
