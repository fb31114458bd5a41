"""How the commands take paths and runs, and what the shell offers while a value is typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from eddy_bench.storage.paths import reachable

PATH: Any = {"parser": reachable, "metavar": "PATH"}  # of a folder or file, here or remote
LOG = "Send the summary to wandb or mlflow, a run per method (extra: log). Repeatable."
Sources = Annotated[
    list[Path] | None,
    typer.Argument(
        parser=reachable,
        metavar="RUN",
        help="Run folders or scores.csv files. [default: the last run]",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None, typer.Option(help="A folder with weights that cannot be downloaded.")
]
Device = Annotated[str, typer.Option(help="Of the scoring networks: auto, cpu, cuda, cuda:1, mps.")]


def names_of(kind: str) -> Callable[[str], list[str]]:
    """Return what completes a value with the names that `eddy-bench list KIND` shows."""

    def complete(incomplete: str) -> list[str]:
        from eddy_bench.cli.list import names

        return [name for name in names(kind) if name.startswith(incomplete)]

    return complete


def one_of(*values: str) -> Callable[[str], list[str]]:
    """Return what completes a value with one of a few."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]
