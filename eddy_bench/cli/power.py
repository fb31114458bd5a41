"""Options of `eddy-bench power`."""

from __future__ import annotations

from typing import Annotated

import typer

from eddy_bench.cli.arguments import Sources


def power(
    sources: Sources = None,
    effect: Annotated[
        float,
        typer.Option(
            min=1e-6, max=10, help="The difference to be shown, as a share of the baseline's value."
        ),
    ] = 0.05,
    methods: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many methods the planned comparison has. [default: as the run]"
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="The method that the others are compared with.")
    ] = "iid",
) -> None:
    """Say how many prompts show a difference of a size 4 times in 5, from a run's own scatter."""
    from eddy_bench.cli.needing import print_needed

    print_needed(sources or [], effect, methods, baseline)
