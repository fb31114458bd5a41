"""Options of `eddy-bench score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.cli.arguments import Log
from eddy_bench.cli.completion import names_of
from eddy_bench.storage.paths import reachable


def score(
    folder: Annotated[Path, typer.Argument(parser=reachable, metavar="RUN", help="A run folder.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="name[extractor]:key=value, or FILE.py:name, instead of the model's own; what is "
            "scored already stays. Repeatable.",
            autocompletion=names_of("metrics"),
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="A folder of real images for fd, fid, kid, precision, recall; or a file of "
            "eddy-bench reference."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A folder with weights of metrics that cannot be downloaded.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Of the scoring networks: auto, cpu, cuda, cuda:1, mps.")
    ] = "auto",
    log: Log = None,
) -> None:
    """Score a run folder again without drawing."""
    from eddy_bench.cli.scoring import score_run

    score_run(folder, metric, reference, weights, device, log or [])
