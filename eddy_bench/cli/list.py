"""Arguments of `eddy-bench list`."""

from __future__ import annotations

from typing import Annotated

import typer

from eddy_bench.cli.completion import one_of


def list_(
    kind: Annotated[
        str,
        typer.Argument(
            help="methods, models, tasks, metrics, prompts, schedulers or suites.",
            autocompletion=one_of(
                "methods", "models", "tasks", "metrics", "prompts", "schedulers", "suites"
            ),
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list of objects instead of a table.")
    ] = False,
) -> None:
    """List what can be asked for by name."""
    from eddy_bench.cli.listing import print_json, print_list

    (print_json if as_json else print_list)(kind)
