"""`eddy-bench report`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.cli.arguments import PATH
from eddy_bench.cli.console import say, write_line
from eddy_bench.errors import ParameterError, counted
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
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Compare what all runs have where they differ.")
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
    from eddy_bench.cli.progress import growing_bar
    from eddy_bench.results.results import last_run
    from eddy_bench.storage.links import refuse_links

    folders = folders or [last_run()]
    if not blind and (pairs is not None or shuffle is not None):
        raise ParameterError("--pairs and --shuffle are of a page to vote on. Add --blind.")
    if blind and (len(folders) > 1 or allow_missing):
        raise ParameterError("--blind takes one run folder, without --allow-missing.")
    refuse_links(folders[0])
    with growing_bar("Writing") as progress:
        if not blind:
            from eddy_bench.report.page import write_report

            path = write_report(folders, out, baseline, allow_missing, progress)
        else:
            from eddy_bench.compare.comparable import canonical
            from eddy_bench.report.blind import write_blind

            own = canonical(baseline)
            path, *counts = write_blind(folders[0], out, own, pairs or 60, shuffle or 0, progress)
    if blind:
        _say_votes(path, counts, folders[0], baseline)
    else:
        write_line(f"report   {path} ({(path.stat().st_size or 0) / 1e6:.1f} MB)")


def _say_votes(path: Path, counts: Sequence[int], folder: Path, baseline: str) -> None:
    """Say where the page to vote on is, and what comes next."""
    write_line(f"blind    {path} ({counted(counts[0], 'pair')})")
    if counts[1]:
        say(f"left out {counted(counts[1], 'pair')} with images that cannot be read", "Warning")
    option = "" if baseline == "iid" else f" --baseline {shlex.quote(baseline)}"
    run = shlex.quote(str(folder))
    say(f"Then: eddy-bench compare {run}{option} --votes votes.csv")
