"""Arguments of `eddy-bench check-method`."""

from __future__ import annotations

from typing import Annotated

import typer

from eddy_bench.cli.completion import names_of


def check_method(
    method: Annotated[
        str,
        typer.Argument(
            help="name:key=value,... or FILE.py:Name:key=value,...",
            autocompletion=names_of("methods"),
        ),
    ],
) -> None:
    """Check what every method promises, on small models.

    Zero strength, N = 1, permutation, batches, finite values, determinism.

    Exit code 1 when a promise is broken.
    """
    from eddy_bench.cli.checking import check_promises

    raise typer.Exit(check_promises(method))
