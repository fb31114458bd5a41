"""How the commands take paths and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eddy_bench.storage.paths import reachable

Log = Annotated[
    list[str] | None,
    typer.Option(
        help="Send the summary to wandb or mlflow, a run per method (extra: log). Repeatable."
    ),
]
PATH: Any = {"parser": reachable, "metavar": "PATH"}  # of a folder or file, here or remote
Sources = Annotated[
    list[Path] | None,
    typer.Argument(
        parser=reachable,
        metavar="RUN",
        help="Run folders or scores.csv files. [default: the last run]",
        show_default=False,
    ),
]
