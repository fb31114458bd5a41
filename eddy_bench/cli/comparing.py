"""`eddy-bench compare`: tables of differences, and gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from eddy_bench.cli.console import console
from eddy_bench.compare.front_tables import (
    CAPTION,
    front_differences,
    front_header,
    front_lines,
    front_records,
)
from eddy_bench.compare.gate import UNUSABLE, WORDS, CheckResult, exit_code, read_gate, run_gate
from eddy_bench.compare.load import (
    ScoreSet,
    canonical,
    check_comparable,
    check_settings,
    lacking,
    last_run,
    read_scores,
)
from eddy_bench.compare.paired import Difference, compare
from eddy_bench.compare.pareto import Fronts, fronts
from eddy_bench.compare.published import HEADER as PUBLISHED
from eddy_bench.compare.published import published_lines, published_table
from eddy_bench.compare.subsampling import Sides
from eddy_bench.compare.tables import (
    as_csv,
    as_json,
    as_junit,
    as_markdown,
    caption,
    comparison_tables,
    gate_markdown,
    gate_table,
    markdown_rows,
)
from eddy_bench.errors import CompareError, EddyError, ParameterError
from eddy_bench.scoring.statistics import holm
from eddy_bench.storage.files import write_text

FORMATS = ("table", "markdown", "csv", "json")
BEFORE, NOW = "before", "now"


def compare_runs(
    sources: Sequence[Path], baseline: str, form: str, against: Path | None, partly: bool
) -> int:
    """Print the differences to a baseline method, or to the same methods of another run. Returns the exit code."""
    if form not in FORMATS:
        raise ParameterError(
            f"Expected --format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {form!r}."
        )
    chosen = list(sources) or [last_run()]
    scores = read_scores(chosen)
    baseline = baseline if baseline in scores.labels else canonical(baseline)
    other = read_scores([against]) if against else None
    notes = [*check_comparable(scores, other, partly), *lacking(scores)]
    notes += [] if sources else [f"the last run is {chosen[0]}"]
    if other and (
        lonely := [*_only(scores, other, "here"), *_only(other, scores, f"in {against}")]
    ):
        notes.append(f"compared only where both sides have a method: {'; '.join(lonely)}")
    for note in notes:
        console(stderr=True).print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    found = between(scores, other) if other else compare(scores, baseline)
    if not found:
        held = f"{', '.join(scores.sources)} holds {', '.join(scores.labels[:8])}"
        if other:
            raise CompareError(
                f"Nothing to compare: no method is in both. {held}; {against} holds {', '.join(other.labels[:8])}."
            )
        raise CompareError(f"Nothing to compare: {held} alone. Run another method into it.")
    name = f"the same method in {against}" if against else baseline
    curves = None if other else fronts(scores, baseline)
    curves = (
        curves if curves and any(len(family.points) > 2 for family in curves.families) else None
    )
    published = [] if other else published_lines(scores)
    if form == "table":
        for table in comparison_tables(found, name):
            console().print(table)
        console().print(escape(caption(found, name)), soft_wrap=True)
        if curves:
            console().print(fronts_table(curves))
        if published:
            console().print(published_table(published))
    elif form == "markdown":
        tables = [(front_header(curves), front_lines(curves))] if curves else []
        tables += [(PUBLISHED, published)] if published else []
        said = "".join(f"\n- {note}" for note in notes)
        print(
            as_markdown(found, name)
            + (f"{said}\n" if said else "")
            + "".join(f"\n{markdown_rows(header, lines)}\n" for header, lines in tables),
            end="",
        )
    else:
        print(
            as_csv([*found, *(front_differences(curves) if curves else [])])
            if form == "csv"
            else as_json(found, notes, front_records(curves) if curves else []),
            end="",
        )
    return 0


def _only(side: ScoreSet, other: ScoreSet, where: str) -> list[str]:
    """Which methods one side alone has, in words."""
    labels = [label for label in side.labels if label not in other.labels]
    return [f"{', '.join(labels[:8])} only {where}"] if labels else []


def fronts_table(found: Fronts) -> Table:
    """Methods over their strengths, for the terminal."""
    table = Table(
        *map(escape, front_header(found)),
        caption=CAPTION,
        caption_justify="left",
    )
    for line in front_lines(found):
        table.add_row(*map(escape, line))
    return table


def between(now: ScoreSet, before: ScoreSet) -> list[Difference]:
    """Each method against itself in another run."""
    found = []
    for label in (label for label in now.labels if label in before.labels):
        parts = [
            side.frame[side.frame["label"] == label].assign(label=name)
            for side, name in ((before, BEFORE), (now, NOW))
        ]
        both = ScoreSet(pd.concat(parts, ignore_index=True), (*before.sources, *now.sources))
        found += [replace(one, label=label) for one in compare(both, BEFORE)]
    columns = list(dict.fromkeys(one.column for one in found))
    corrected = []
    for column in columns:
        family = [one for one in found if one.column == column]
        adjusted = holm([one.p if one.p == one.p else 1.0 for one in family])
        corrected += [
            replace(one, p_holm=p if one.prompts else one.p_holm)
            for one, p in zip(family, adjusted, strict=True)
        ]
    return corrected


def run_gate_files(
    sources: Sequence[Path], against: Path, gate: Path, junit: Path | None, summary: Path | None
) -> int:
    """Check a candidate against a baseline. Returns the gate's exit code; what is written is written for bad input, too."""
    try:
        outcomes = _gate_outcomes(sources, against, gate)
    except EddyError as error:
        _write_outcomes(
            [CheckResult("gate", "input", "read", UNUSABLE, str(error))], junit, summary
        )
        raise
    code = exit_code(outcomes)
    _write_outcomes(outcomes, junit, summary)
    console().print(gate_table(outcomes))
    counts = ", ".join(
        f"{sum(one.status == status for one in outcomes)} {word}" for status, word in WORDS.items()
    )
    console().print(escape(f"{WORDS[code].capitalize()}: {counts}."))
    return code


def _gate_outcomes(sources: Sequence[Path], against: Path, gate: Path) -> list[CheckResult]:
    rules = read_gate(gate)
    candidates = list(sources) or [last_run()]
    candidate, baseline = read_scores(candidates), read_scores([against])
    check_settings(candidate, baseline)
    folders = [path if path.is_dir() else None for path in (candidates[0], against)]
    halves = Sides(folders[0], folders[1]) if len(candidates) == 1 else None
    return run_gate(rules, candidate, baseline, halves.difference if halves else None)


def _write_outcomes(
    outcomes: Sequence[CheckResult], junit: Path | None, summary: Path | None
) -> None:
    if junit:
        write_text(junit, as_junit(outcomes))
    if summary:
        write_text(summary, gate_markdown(outcomes, exit_code(outcomes)))
