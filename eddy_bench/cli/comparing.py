"""Print differences and run gates: what `eddy-bench compare` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.markup import escape

from eddy_bench.cli.comparison_formats import Comparison, printer_of
from eddy_bench.cli.console import console, print_whole, say
from eddy_bench.cli.progress import growing_bar
from eddy_bench.compare.advice import answers
from eddy_bench.compare.between import between
from eddy_bench.compare.comparable import (
    bad_notes,
    canonical,
    check_comparable,
    check_settings,
    lacking,
)
from eddy_bench.compare.free_shares import as_differences, free_shares, why_none
from eddy_bench.compare.gate import CheckResult, exit_code, read_gate, run_gate
from eddy_bench.compare.gate_checks import UNUSABLE, WORDS
from eddy_bench.compare.load import ScoreSet, last_run, read_scores
from eddy_bench.compare.paired import compare
from eddy_bench.compare.pareto import fronts
from eddy_bench.compare.published import published_lines
from eddy_bench.compare.statistic import check_statistic, with_statistic
from eddy_bench.compare.subsampling import Subsampling
from eddy_bench.compare.tables import (
    as_junit,
    gate_markdown,
    gate_table,
)
from eddy_bench.errors import CompareError, EddyError
from eddy_bench.storage.files import write_text

SHOWN_LABELS = 8


def compare_runs(
    sources: Sequence[Path],
    baseline: str,
    form: str,
    against: Path | None,
    partly: bool,
    full: bool,
    statistic: str = "mean",
) -> int:
    """Print the differences to a baseline method, or to the same methods of another run.

    Returns the exit code.
    """
    printer = printer_of(form, full)
    check_statistic(statistic)
    with growing_bar("Comparing", passing=True) as progress:
        comparison = _compare(sources, baseline, against, partly, statistic, progress)
    for note in comparison.notes:
        say(note, "Note")
    printer(comparison)
    return 0


def _compare(
    sources: Sequence[Path],
    baseline: str,
    against: Path | None,
    partly: bool,
    statistic: str,
    progress: Callable[[int], Callable[[int, str], None]],
) -> Comparison:
    """Read the scores of both sides, or of one, and compare them."""
    chosen = list(sources) or [last_run()]
    scores, notes = with_statistic(read_scores(chosen), statistic)
    notes += [] if sources else [f"the last run is {chosen[0]}"]
    if against is None:
        baseline = baseline if baseline in scores.labels else canonical(baseline)
        checked = check_comparable(scores, None, partly)
        notes = [*checked, *bad_notes(scores), *lacking(scores), *notes]
        advance = progress(len(scores.columns) + 1)
        differences = compare(scores, baseline, advance)
        if not differences:
            raise CompareError(
                f"Nothing to compare: {_held(scores)} alone. Run another method into it."
            )
        shares = free_shares(scores)
        differences += as_differences(shares)
        notes += filter(None, [why_none(scores)])
        advance(0, "fronts")
        curves = fronts(scores, baseline)
        advance(1, "fronts")
        if curves and all(len(family.points) <= 2 for family in curves.families):
            curves = None
        advice = answers(differences, scores, shares, baseline)
        if not advice:
            notes.append(
                "no metric of diversity was scored for two methods, so none is recommended: "
                "eddy-bench score RUN --metric vendi"
            )
        return Comparison(differences, baseline, notes, curves, published_lines(scores), advice)
    other, _ = with_statistic(read_scores([against]), statistic)
    checked = check_comparable(scores, other, partly)
    notes = [*checked, *bad_notes(scores, other), *lacking(scores), *notes]
    if lonely := [*_only(scores, other, "here"), *_only(other, scores, f"in {against}")]:
        notes.append(f"compared only where both sides have a method: {'; '.join(lonely)}")
    differences = between(scores, other, progress)
    if not differences:
        raise CompareError(
            f"Nothing to compare: no method is in both. {_held(scores)}; "
            f"{against} holds {', '.join(other.labels[:SHOWN_LABELS])}."
        )
    return Comparison(differences, f"the same method in {against}", notes, None, [], [])


def _held(scores: ScoreSet) -> str:
    return f"{', '.join(scores.sources)} holds {', '.join(scores.labels[:SHOWN_LABELS])}"


def _only(side: ScoreSet, other: ScoreSet, where: str) -> list[str]:
    """Say which methods one side alone has."""
    labels = [label for label in side.labels if label not in other.labels]
    return [f"{', '.join(labels[:SHOWN_LABELS])} only {where}"] if labels else []


def run_gate_files(
    sources: Sequence[Path], against: Path, gate: Path, junit: Path | None, summary: Path | None
) -> int:
    """Check a candidate against a baseline; returns the gate's exit code.

    Files are written for bad input, too.
    """
    try:
        results = _gate_outcomes(sources, against, gate)
    except EddyError as error:
        _write_outcomes(
            [CheckResult("gate", "input", "read", UNUSABLE, str(error))], junit, summary
        )
        raise
    code = exit_code(results)
    _write_outcomes(results, junit, summary)
    print_whole(gate_table(results))
    statuses = [result.status for result in results]
    counts = ", ".join(f"{statuses.count(status)} {word}" for status, word in WORDS.items())
    console().print(escape(f"{WORDS[code].capitalize()}: {counts}."))
    return code


def _gate_outcomes(sources: Sequence[Path], against: Path, gate: Path) -> list[CheckResult]:
    rules = read_gate(gate)
    candidates = list(sources) or [last_run()]
    candidate, baseline = read_scores(candidates), read_scores([against])
    check_settings(candidate, baseline)
    folders = [path if path.is_dir() else None for path in (candidates[0], against)]
    subsample = Subsampling(*folders).difference if len(candidates) == 1 else None
    with growing_bar("Checking", passing=True) as progress:
        return run_gate(rules, candidate, baseline, subsample, progress)


def _write_outcomes(
    results: Sequence[CheckResult], junit: Path | None, summary: Path | None
) -> None:
    if junit:
        write_text(junit, as_junit(results))
    if summary:
        write_text(summary, gate_markdown(results, exit_code(results)))
