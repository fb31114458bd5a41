"""`eddy-bench score`: score a run folder again without drawing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.cli.arguments import LOG, Device, Weights, names_of
from eddy_bench.cli.terminal import Terminal
from eddy_bench.storage.paths import reachable
from eddy_bench.suites.plugins import Permission


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
    weights: Weights = None,
    device: Device = "auto",
    log: Annotated[list[str] | None, typer.Option(help=LOG)] = None,
) -> None:
    """Score a run folder again without drawing."""
    terminal, typed = Terminal(log or ()), Permission()
    from eddy_bench.experiment.checks import check_folder
    from eddy_bench.experiment.score import ScoringRequest, score_again
    from eddy_bench.scoring.metrics import parse_all
    from eddy_bench.storage.lock import locked
    from eddy_bench.storage.run_folder import RunFolder

    parse_all(metric or [], typed)
    check_folder(weights, "a folder at --weights")
    run = RunFolder.existing(folder)
    with locked(run.path, terminal.tell) as check_ownership:
        request = ScoringRequest(metric, reference, weights, device, check_ownership, typed)
        score_again(run, request, terminal)
    terminal.finished(run)
