"""Comparisons and gates as tables, Markdown, CSV, JSON and JUnit XML."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import pandas as pd
from rich.markup import escape
from rich.table import Table

from eddy_bench.compare.gate import CheckResult
from eddy_bench.compare.gate_checks import PASS, TOO_FEW, WORDS
from eddy_bench.compare.paired import Difference
from eddy_bench.scoring.score_table import escaped
from eddy_bench.shown import markdown_text, shown, shown_json

HEADER = (
    "metric",
    "method",
    "prompts",
    "baseline",
    "difference",
    "95% interval",
    "effect",
    "p",
    "wins",
    "detectable",
    "note",
)


def cells(difference: Difference) -> tuple[str, ...]:
    """Return a line of the table."""
    arrow = "↑" if difference.higher_is_better else "↓"
    shown = {True: "better", False: "worse", None: ""}[difference.better]
    note = ", ".join(part for part in (shown, difference.warning) if part)
    figures = (_share(difference), "", "", "", "")
    if difference.prompts:
        figures = (
            f"{_signed(difference.low)} to {_signed(difference.high)}",
            number_text(difference.effect, 2),
            number_text(difference.p_holm, 2),
            "-" if math.isnan(difference.wins) else f"{difference.wins:.0%}",
            number_text(difference.detectable, 2),
        )
    return (
        f"{difference.column} {arrow}",
        difference.label,
        str(difference.prompts or ""),
        number_text(difference.baseline),
        _signed(difference.difference),
        *figures,
        note,
    )


def _share(difference: Difference) -> str:
    """Return how many times the baseline a metric without an interval is."""
    return f"x{difference.value / difference.baseline:.3g}" if difference.baseline else ""


def number_text(value: float, digits: int = 4) -> str:
    """Return a number as tables show it; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3g}"


def caption(differences: Sequence[Difference], baseline: str) -> str:
    """Say how to read the table."""
    prompts = sorted({difference.prompts for difference in differences if difference.prompts})
    count = " to ".join(map(str, dict.fromkeys([*prompts[:1], *prompts[-1:]]))) or "no"
    return (
        f"Difference to {baseline}, paired over {count} prompt{'' if count == '1' else 's'}, "
        "bootstrap interval. Effect: mean over standard deviation of the differences. p: by the "
        "same bootstrap, Holm over the methods; of free_share one-sided, that samples kept their "
        "distribution. Wins: share of prompts on which the method is better. "
        "Detectable: the smallest difference that is shown 4 times in 5, the methods sharing 5%; "
        "inf: none, with so few prompts. Better, worse: p below 0.05 and an interval without 0. "
        "Pooled metrics and costs: how many times the baseline; equal ones are left out of the "
        "table."
    )


def as_markdown(differences: Sequence[Difference], legend: str) -> str:
    """Return a Markdown table with its legend."""
    rows = [cells(difference) for difference in differences]
    return f"{markdown_rows(HEADER, rows)}\n\n{legend}\n"


def markdown_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines of a Markdown table; what a cell holds cannot end it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(markdown_text(cell) for cell in line) + " |" for line in lines
    )


def as_csv(differences: Sequence[Difference]) -> str:
    """Return a line per method and metric."""
    text: str = escaped(pd.DataFrame([_record(difference) for difference in differences])).to_csv(
        index=False, lineterminator="\n"
    )
    return text


def as_json(
    differences: Sequence[Difference],
    notes: Sequence[str] = (),
    fronts: Sequence[dict[Any, Any]] = (),
) -> str:
    """Return objects under `differences` and `fronts`; numbers that are not there are null."""
    data = {
        "differences": [_record(difference) for difference in differences],
        "fronts": list(fronts),
        "notes": list(notes),
    }
    return shown_json(json.dumps(_finite(data), indent=1, ensure_ascii=False)) + "\n"


def _finite(value: Any) -> Any:
    """Return the same with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(difference: Difference) -> dict[str, Any]:
    return {**asdict(difference), "better": difference.better}


def _gate_cells(result: CheckResult) -> tuple[str, ...]:
    return result.label, result.metric, result.test, WORDS[result.status], result.detail


def gate_table(results: Sequence[CheckResult]) -> Table:
    """Return a gate's results for the terminal."""
    table = Table("method", "metric", "test", "outcome", "figures")
    for result in results:
        style = {PASS: None, TOO_FEW: "yellow"}.get(result.status, "red")
        table.add_row(
            *map(escape, _gate_cells(result)),
            style=style,
        )
    return table


def gate_markdown(results: Sequence[CheckResult], code: int) -> str:
    """Return Markdown: the verdict, what did not pass, and the rest folded away."""
    header = ("method", "metric", "test", "outcome", "figures")
    lines = {result: _gate_cells(result) for result in results}
    failed = [line for result, line in lines.items() if result.status != PASS]
    passed = [line for result, line in lines.items() if result.status == PASS]
    parts = [f"**eddy-bench gate: {WORDS[code]}** ({len(passed)} of {len(results)} checks pass)"]
    if failed:
        parts.append(markdown_rows(header, failed))
    if passed:
        parts.append(
            f"<details><summary>{len(passed)} checks that pass</summary>\n\n"
            f"{markdown_rows(header, passed)}\n\n</details>"
        )
    return "\n\n".join(parts) + "\n"


def as_junit(results: Sequence[CheckResult]) -> str:
    """Return JUnit XML.

    A regression is a failure, what could not be measured an error, too little data skipped.
    """
    counts = {code: sum(result.status == code for result in results) for code in WORDS}
    suite = ElementTree.Element(
        "testsuite",
        name="eddy-bench gate",
        tests=str(len(results)),
        failures=str(counts[1]),
        errors=str(counts[2]),
        skipped=str(counts[3]),
    )
    for result in results:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=shown(result.label),
            name=shown(f"{result.metric} {result.test}"),
        )
        tag = {1: "failure", 2: "error", 3: "skipped"}.get(result.status)
        if tag:
            ElementTree.SubElement(case, tag, message=shown(result.detail))
    ElementTree.indent(suite)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        + ElementTree.tostring(suite, encoding="unicode")
        + "\n"
    )
