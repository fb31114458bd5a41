"""Arguments of `eddy-bench list`."""

from __future__ import annotations

from typing import Annotated

import typer


def list_(
    kind: Annotated[
        str, typer.Argument(help="methods, models, tasks, metrics, prompts, schedulers or suites.")
    ],
) -> None:
    """List what can be asked for by name."""
    from eddy_bench.cli.listing import print_list

    print_list(kind)
