"""Options of `eddy-bench audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.cli.arguments import names_of
from eddy_bench.errors import ParameterError


def audit(
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="name:key=value,... [default: every method that couples particles]. Repeatable.",
            show_default=False,
            autocompletion=names_of("methods"),
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="A task's name (see list tasks) or a YAML file. "
            "[default: every closed-form task]. Repeatable.",
            show_default=False,
            autocompletion=names_of("tasks"),
        ),
    ] = None,
    scheduler: Annotated[
        list[str] | None,
        typer.Option(
            help="name:key=value,... [default: ddim and ddim:eta=1]. Repeatable.",
            show_default=False,
            autocompletion=names_of("schedulers"),
        ),
    ] = None,
    particles: Annotated[
        int | None,
        typer.Option(help="Particles per group, N. [default: the task's own]", show_default=False),
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(
            help="Groups per method and step count. "
            "[default: 1500, in many dimensions fewer; quick 1000]",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="The ladder of step counts. [default: 25,50,100,200,400, quick 25,50,200]",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="A gain below this counts as none, in modes.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    out: Annotated[
        Path, typer.Option(help="The folder for audit.csv, audit.md and audit.png.")
    ] = Path("results/audit"),
    quick: Annotated[
        bool, typer.Option("--quick", help="ring8 only, three step counts: under a minute.")
    ] = False,
    divergence: Annotated[
        bool,
        typer.Option(
            "--divergence", help="Measure div(p g) / p by automatic differentiation instead."
        ),
    ] = False,
) -> None:
    """Tell a real gain from an artefact of finite steps.

    It says too whether each sample keeps its distribution. Methods are compared with iid where the
    score is known exactly, over a ladder of step counts.
    """
    from eddy_bench.cli.auditing import audit_divergence, audit_methods

    if divergence:
        unused = {
            "--scheduler": scheduler,
            "--particles": particles,
            "--groups": groups,
            "--steps": steps,
            "--quick": quick,
        }
        if given := [name for name, value in unused.items() if value]:
            raise ParameterError(
                f"--divergence draws nothing, so {given[0]} means nothing there. Leave it out."
            )
        raise typer.Exit(audit_divergence(task or [], method or [], seed, out))
    options = {
        "tasks": task or [],
        "methods": method or [],
        "schedulers": scheduler or [],
        "particles": particles,
        "groups": groups,
        "steps": steps,
        "seed": seed,
        "margin": margin,
        "quick": quick,
    }
    raise typer.Exit(audit_methods(options, out))
