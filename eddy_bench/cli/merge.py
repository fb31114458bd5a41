"""Arguments of `eddy-bench merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.storage.paths import reachable


def merge(
    target: Annotated[
        Path, typer.Argument(parser=reachable, metavar="OUT", help="The run folder to be.")
    ],
    sources: Annotated[
        list[Path],
        typer.Argument(parser=reachable, metavar="SHARE...", help="Run folders of run --shard."),
    ],
) -> None:
    """Put the shares of a run together and score them."""
    from eddy_bench.cli.merging import merge_shards

    raise typer.Exit(merge_shards(target, sources))
