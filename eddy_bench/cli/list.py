"""Arguments of `eddy-bench list`."""

from __future__ import annotations

from typing import Annotated

import typer

from eddy_bench.cli.completion import one_of
from eddy_bench.errors import ParameterError

KINDS = ("methods", "models", "tasks", "metrics", "prompts", "schedulers", "suites")
NAMES = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(help=f"{NAMES}.", show_default=False, autocompletion=one_of(*KINDS)),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list of objects instead of a table.")
    ] = False,
) -> None:
    """List what can be asked for by name."""
    from eddy_bench.cli.listing import print_json, print_list

    if kind is None:
        raise ParameterError(f"Expected what to list ({NAMES}), got nothing.")
    (print_json if as_json else print_list)(kind)
