"""Options of `eddy-bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.cli.arguments import PATH, Sources, one_of
from eddy_bench.errors import ParameterError


def compare(
    sources: Sources = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The method that the others are compared with, with its parameters if any. "
            "[default: iid]",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="table, markdown, csv or json. [default: table]",
            show_default=False,
            autocompletion=one_of("table", "markdown", "csv", "json"),
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            **PATH, help="Another run or a scores.csv: compare each method with itself there."
        ),
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(
            help="A gate's YAML file; needs --against. Exit codes: 0 passes, 1 regression, "
            "2 could not be measured, 3 not enough data."
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write the gate's outcome as JUnit XML.")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write the gate's outcome as Markdown, for a pull request.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="A table per metric with effect sizes, p, wins and what was detectable."
        ),
    ] = False,
    statistic: Annotated[
        str | None,
        typer.Option(
            help="Of metrics of single images (clip, aesthetic, pickscore) compare each group's "
            "best, worst or mean image. [default: mean]",
            show_default=False,
        ),
    ] = None,
    votes: Annotated[
        list[Path] | None,
        typer.Option(
            help="Votes that a page of report --blind saved: how often each method wins, and how "
            "far each metric agrees. Repeatable."
        ),
    ] = None,
    partly: Annotated[
        bool, typer.Option("--partly", help="Compare what both sides have where they differ.")
    ] = False,
) -> None:
    """Say which method is better, by how much and how surely: paired over prompts.

    Or gate a run against a recorded one.
    """
    from eddy_bench.cli.comparing import compare_runs, run_gate_files

    if votes:
        others = {
            "--gate": gate,
            "--against": against,
            "--junit": junit,
            "--summary": summary,
            "--full": full,
            "--statistic": statistic,
            "--partly": partly,
        }
        if given := [name for name, value in others.items() if value]:
            raise ParameterError(
                f"{given[0]} means nothing to --votes, which takes a run, --baseline and --format. "
                "Leave it out."
            )
        from eddy_bench.cli.voting import compare_votes

        raise typer.Exit(compare_votes(sources or [], baseline or "iid", form or "table", votes))
    if gate is None:
        if junit or summary:
            raise ParameterError("--junit and --summary are of a gate. Add --gate FILE.")
        if against and baseline:
            raise ParameterError(
                "With --against each method is compared with itself, "
                "so --baseline means nothing there. Leave one out."
            )
        raise typer.Exit(
            compare_runs(
                sources or [],
                baseline or "iid",
                form or "table",
                against,
                partly,
                full,
                statistic or "mean",
            )
        )
    meaningless = {
        "--baseline": baseline,
        "--format": form,
        "--full": full,
        "--partly": partly,
        "--statistic": statistic,
    }
    if given := [name for name, value in meaningless.items() if value]:
        raise ParameterError(f"{given[0]} means nothing to a gate. Leave it out.")
    if against is None:
        raise ParameterError(
            "--gate needs a baseline to compare with. Add --against RUN or --against FILE.csv."
        )
    raise typer.Exit(run_gate_files(sources or [], against, gate, junit, summary))
