"""`eddy-bench compare`: differences, votes and gates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eddy_bench.cli.arguments import PATH, Sources, one_of
from eddy_bench.errors import ParameterError, counted

if TYPE_CHECKING:
    from eddy_bench.compare.comparison import Comparison
    from eddy_bench.compare.gate import CheckResult


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
            help="table, markdown, csv, json or latex; bibtex is the sources of its methods and "
            "metrics. [default: table]",
            show_default=False,
            autocompletion=one_of("table", "markdown", "csv", "json", "latex", "bibtex"),
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
    by: Annotated[
        str | None,
        typer.Option(
            help="Compare on each class of prompts, too: by a column of the prompt set, such as "
            "category, or by length.",
            show_default=False,
        ),
    ] = None,
    write_baseline: Annotated[
        Path | None,
        typer.Option(
            **PATH, help="Write these scores into one CSV file, as the baseline of later gates."
        ),
    ] = None,
    votes: Annotated[
        list[Path] | None,
        typer.Option(
            help="Votes that a page of report --blind saved: how often each method wins, and how "
            "far each metric agrees. Repeatable."
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Compare what both sides have where they differ."),
    ] = False,
) -> None:
    """Say which method is better, by how much and how surely: paired over prompts.

    Or gate a run against a recorded one.
    """
    given = {
        "--gate": gate,
        "--against": against,
        "--junit": junit,
        "--summary": summary,
        "--full": full,
        "--statistic": statistic,
        "--by": by,
        "--write-baseline": write_baseline,
        "--allow-missing": allow_missing,
        "--baseline": baseline,
        "--format": form,
    }
    if votes:
        own = ("--baseline", "--format")
        _refuse(given, own, "to --votes, which takes a run, --baseline and --format")
        _compare_votes(sources or [], baseline or "iid", form or "table", votes)
    elif gate is not None:
        _refuse(given, ("--gate", "--against", "--junit", "--summary"), "to a gate")
        if against is None:
            raise ParameterError(
                "--gate needs a baseline to compare with. Add --against RUN or --against FILE.csv."
            )
        raise typer.Exit(_run_gate(sources or [], against, gate, junit, summary))
    else:
        if junit or summary:
            raise ParameterError("--junit and --summary are of a gate. Add --gate FILE.")
        if against and baseline:
            raise ParameterError(
                "With --against each method is compared with itself, "
                "so --baseline means nothing there. Leave one out."
            )
        if against and by:
            raise ParameterError("--by is of one run's methods. Leave --against out.")
        _compare(
            sources or [],
            baseline or "iid",
            form or "table",
            full,
            against,
            allow_missing,
            statistic,
            by or "",
        )
        if write_baseline is not None:
            _write_baseline(sources or [], write_baseline)


def _write_baseline(sources: Sequence[Path], path: Path) -> None:
    """Write the scores of some runs, or of the last one, into a file."""
    from eddy_bench.cli.console import say
    from eddy_bench.errors import counted
    from eddy_bench.results.io import write_baseline
    from eddy_bench.results.results import last_run, read_results

    results = read_results(sources or [last_run()])
    write_baseline(path, results.frame)
    say(
        f"{counted(len(results.methods), 'method')} and {counted(len(results.columns), 'metric')} "
        f"written into {path}."
    )


def _refuse(given: dict[str, Any], own: Sequence[str], to: str) -> None:
    """Raise ParameterError for an option that means nothing here."""
    if others := [name for name, value in given.items() if value and name not in own]:
        raise ParameterError(f"{others[0]} means nothing {to}. Leave it out.")


def _compare(
    sources: Sequence[Path],
    baseline: str,
    form: str,
    full: bool,
    against: Path | None,
    allow_missing: bool,
    statistic: str | None,
    by: str,
) -> None:
    """Print the differences to a baseline method, or to the same methods of another run."""
    from eddy_bench.cli.progress import growing_bar
    from eddy_bench.compare.comparison import compare_runs
    from eddy_bench.compare.statistic import check_statistic
    from eddy_bench.compare.tables import check_format

    check_format(form)
    check_statistic(statistic or "mean")
    with growing_bar("Comparing", passing=True) as progress:
        comparison = compare_runs(
            sources, baseline, against, allow_missing, statistic or "mean", progress, by
        )
    _print(comparison, form, full)


def _print(comparison: Comparison, form: str, full: bool) -> None:
    from eddy_bench.cli.console import print_table, say_all, write, write_line
    from eddy_bench.compare.advice import together
    from eddy_bench.compare.tables import document_of, tables_of

    say_all(comparison.notes, "Note")
    if form != "table":
        write(document_of(comparison, form, full))
        return
    if not full:
        for question, answer in together(comparison.answers):
            write_line(f"{question}: {answer}")
    # --full has a table per metric of all prompts, none of classes
    elsewhere = "--format csv" if full or comparison.by else "--full"
    for table in tables_of(comparison, full):
        print_table(table, elsewhere)


def _compare_votes(
    sources: Sequence[Path], baseline: str, form: str, votes: Sequence[Path]
) -> None:
    """Print how often each method wins people's votes, and how far each metric agrees."""
    from eddy_bench.compare.comparable import with_baseline
    from eddy_bench.compare.comparison import Comparison
    from eddy_bench.compare.preference import (
        FEW,
        LEGEND,
        agreements,
        opinions,
        read_votes,
        win_rates,
    )
    from eddy_bench.compare.tables import check_format
    from eddy_bench.results.results import last_run, read_results

    check_format(form)
    given = read_votes(votes)
    folders = list(sources) or [last_run()]
    if len(folders) > 1:
        raise ParameterError("--votes takes one run folder: votes are on its images.")
    results = with_baseline(read_results(folders), baseline)
    found, lost = opinions(folders[0], given, results.baseline)
    voters = len({vote.voter for vote in given})
    notes = [f"{counted(len(given), 'vote')} of {counted(voters, 'voter')}"]
    notes += [f"left out {counted(lost, 'vote')} on no pair of {folders[0]}"] if lost else []
    agreeing = agreements(results, found)
    if not agreeing:
        notes.append(
            f"how far metrics agree is not said: that takes {FEW} pairs with an answer, "
            "not all of them the same"
        )
    lines = [*win_rates(found), *agreeing]
    _print(Comparison(results, "a tie", lines, notes, legend=LEGEND), form, full=True)


def _run_gate(
    sources: Sequence[Path], against: Path, gate: Path, junit: Path | None, summary: Path | None
) -> int:
    """Check a candidate against a baseline; returns the gate's exit code.

    Files are written for bad input, too.
    """
    from eddy_bench.cli.console import print_table, write_line
    from eddy_bench.compare.gate import UNUSABLE, WORDS, CheckResult, exit_code
    from eddy_bench.compare.tables import as_junit, gate_markdown, gate_table
    from eddy_bench.errors import EddyError
    from eddy_bench.storage.files import write_text

    def write(outcomes: Sequence[CheckResult]) -> int:
        code = exit_code(outcomes)
        if junit:
            write_text(junit, as_junit(outcomes))
        if summary:
            write_text(summary, gate_markdown(outcomes, code))
        return code

    try:
        outcomes = _gate_outcomes(sources, against, gate)
    except EddyError as error:
        write([CheckResult("gate", "input", "read", UNUSABLE, str(error))])
        raise
    code = write(outcomes)
    print_table(gate_table(outcomes))
    statuses = [own.status for own in outcomes]
    counts = ", ".join(f"{statuses.count(status)} {word}" for status, word in WORDS.items())
    write_line(f"{WORDS[code].capitalize()}: {counts}.")
    return code


def _gate_outcomes(sources: Sequence[Path], against: Path, gate: Path) -> list[CheckResult]:
    from eddy_bench.cli.progress import growing_bar
    from eddy_bench.compare.comparable import check_settings
    from eddy_bench.compare.gate import read_gate, run_gate
    from eddy_bench.compare.subsampling import Subsampling
    from eddy_bench.results.results import last_run, read_results

    rules = read_gate(gate)
    candidates = list(sources) or [last_run()]
    candidate, baseline = read_results(candidates), read_results([against])
    check_settings(candidate, baseline)
    alone = candidates[0] if len(candidates) == 1 else None
    folders = [path if path and path.is_dir() else None for path in (alone, against)]
    with growing_bar("Checking", passing=True) as progress:
        return run_gate(rules, candidate, baseline, Subsampling(*folders).difference, progress)
