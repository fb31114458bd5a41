"""Arguments of `eddy-bench doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    weights: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder with weights, as run and score take it."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of text.")
    ] = False,
) -> None:
    """Say what works here: versions, devices, hub, weights, a short draw.

    A verdict on each: ok, note (something optional is not there) or problem, with the cure.

    Exit code 1 when there is a problem.
    """
    from eddy_bench.cli.diagnosing import print_findings

    raise typer.Exit(print_findings(weights, as_json))
