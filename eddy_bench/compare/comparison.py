"""A comparison, computed once: what the table, the page and every format show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from eddy_bench.compare.advice import Answer, answers
from eddy_bench.compare.classes import ClassDifferences, by_class
from eddy_bench.compare.comparable import LISTED, check_comparable, with_baseline
from eddy_bench.compare.fronts import Fronts, fronts
from eddy_bench.compare.paired import (
    Difference,
    Progress,
    between,
    compare,
    headroom_differences,
    quiet,
)
from eddy_bench.compare.published import published_lines
from eddy_bench.compare.statistic import with_statistic
from eddy_bench.errors import CompareError
from eddy_bench.results.headroom import Headroom, headrooms, why_no_headroom
from eddy_bench.results.results import Results, last_run, read_results


@dataclass(frozen=True)
class Comparison:
    """Every method against the baseline, or against itself in another run.

    results: that are compared.
    against: what the methods are compared with, in words.
    differences: of every method on every metric; `headrooms` among them where there is iid.
    notes: on what differs or is left out.
    fronts: over strengths, where there is a diversity and a fidelity metric.
    published: lines of a paper's figures.
    answers: which method to use.
    legend: how to read the tables, where they are not of scores.
    by, classes: what the prompts were divided by, and the differences on each part.
    """

    results: Results
    against: str
    differences: list[Difference]
    notes: list[str] = field(default_factory=list)
    headrooms: list[Headroom] = field(default_factory=list)
    fronts: Fronts | None = None
    published: list[tuple[str, ...]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    legend: str = ""
    by: str = ""
    classes: list[ClassDifferences] = field(default_factory=list)

    @property
    def swept(self) -> Fronts | None:
        """The fronts where some method has several strengths."""
        own = self.fronts
        return own if own and any(len(family.points) > 2 for family in own.families) else None


def compare_runs(
    sources: Sequence[Path],
    baseline: str,
    against: Path | None = None,
    allow_missing: bool = False,
    statistic: str = "mean",
    progress: Progress = quiet,
    by: str = "",
) -> Comparison:
    """Compare the methods of runs with a baseline, or with themselves in another run.

    Args:
        sources: run folders or CSV files; the last run where there are none.
        baseline: a method as on the command line.
        against: another run.
        allow_missing: compare what both sides have where they differ.
        statistic: of the images of a group: `mean`, `best` or `worst`.
        progress: over metrics, or over methods.
        by: compare on each class of prompts, too; see `by_class`.

    Raises:
        CompareError: they cannot be compared, or there is nothing to compare.

    """
    chosen = list(sources) or [last_run()]
    results, notes = with_statistic(read_results(chosen), statistic)
    notes += [] if sources else [f"the last run is {chosen[0]}"]
    if against is None:
        results = with_baseline(results, baseline)
        notes = [*check_comparable(results, None, allow_missing), *notes]
        comparison = compare_methods(results, notes, progress)
        if not comparison.differences:
            raise CompareError(
                f"Nothing to compare: {_held(results)} alone. Run another method into it."
            )
        return replace(comparison, by=by, classes=by_class(results, by)) if by else comparison
    other, _ = with_statistic(read_results([against]), statistic)
    notes = [*check_comparable(results, other, allow_missing), *notes]
    if lonely := [*_only(results, other, "here"), *_only(other, results, f"in {against}")]:
        notes.append(f"compared only where both sides have a method: {'; '.join(lonely)}")
    differences = between(results, other, progress)
    if not differences:
        raise CompareError(
            f"Nothing to compare: no method is in both. {_held(results)}; "
            f"{against} holds {_listed(other)}."
        )
    return Comparison(results, f"the same method in {against}", differences, notes)


def compare_methods(
    results: Results, notes: Sequence[str] = (), progress: Progress = quiet
) -> Comparison:
    """Compare every method of results with their baseline.

    Raises:
        CompareError: the baseline is not there.

    """
    advance = progress(len(results.columns) + 1)
    differences = compare(results, advance)
    own = headrooms(results)
    advance(0, "fronts")
    curves = fronts(results)
    advance(1, "fronts")
    advice = answers(differences, results, own)
    further = [*filter(None, [why_no_headroom(results)])]
    if not advice:
        further.append(
            "no metric of diversity was scored for two methods, so none is recommended: "
            "eddy-bench score RUN --metric vendi"
        )
    return Comparison(
        results,
        str(results.baseline),
        [*differences, *headroom_differences(own)] if differences else [],
        [*notes, *further],
        own,
        curves,
        published_lines(results),
        advice,
    )


def _listed(results: Results) -> str:
    return ", ".join(map(str, results.methods[:LISTED]))


def _held(results: Results) -> str:
    return f"{', '.join(results.sources)} holds {_listed(results)}"


def _only(side: Results, other: Results, where: str) -> list[str]:
    """Say which methods one side alone has."""
    methods = [str(method) for method in side.methods if method not in other.methods]
    return [f"{', '.join(methods[:LISTED])} only {where}"] if methods else []
