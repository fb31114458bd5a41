"""Arguments of `eddy-bench check-metric`."""

from __future__ import annotations

from typing import Annotated

import typer

from eddy_bench.cli.completion import names_of


def check_metric(
    metric: Annotated[
        str,
        typer.Argument(
            help="name[extractor]:key=value, or FILE.py:name, or torchmetrics:CLASS.",
            autocompletion=names_of("metrics"),
        ),
    ],
    weights: Annotated[
        str | None, typer.Option(help="A folder with weights that cannot be downloaded.")
    ] = None,
) -> None:
    """Check what every metric promises, on small images.

    Range, determinism, order of images and groups, one image, blank images, and that blur, noise
    or duplicates are no gain.

    Exit code 1 when a promise is broken.
    """
    from eddy_bench.cli.checking import check_metric_promises

    raise typer.Exit(check_metric_promises(metric, weights))
