"""Options of `eddy-bench reference`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reference(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder of real images.")],
    extractor: Annotated[
        str,
        typer.Option(
            help="Through which images are seen; eddy-bench list metrics has their names."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write, as stats.npz.")],
    weights: Annotated[
        str | None, typer.Option(help="A folder with weights that cannot be downloaded.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Of the network: auto, cpu, cuda, cuda:1, mps.")
    ] = "auto",
) -> None:
    """Save what fd and fid need of real images, to score with --reference FILE without them."""
    from eddy_bench.cli.referencing import save_reference

    save_reference(folder, extractor, weights, out, device)
