"""Comparisons and gates as tables, Markdown, CSV, JSON and JUnit XML."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from eddy_bench.compare.gate import PASS, TOO_FEW, WORDS, CheckResult
from eddy_bench.compare.paired import Difference
from eddy_bench.scoring.score_table import escaped

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


def cells(one: Difference) -> tuple[str, ...]:
    """A line of the table."""
    arrow = "↑" if one.higher_is_better else "↓"
    shown = {True: "better", False: "worse", None: ""}[one.better]
    note = ", ".join(part for part in (shown, one.warning) if part)
    if not one.prompts:
        return (
            f"{one.column} {arrow}",
            one.label,
            "",
            _number(one.baseline),
            _signed(one.difference),
            _share(one),
            "",
            "",
            "",
            "",
            note,
        )
    return (
        f"{one.column} {arrow}",
        one.label,
        str(one.prompts),
        _number(one.baseline),
        _signed(one.difference),
        f"{_signed(one.low)} to {_signed(one.high)}",
        _number(one.effect, 2),
        _number(one.p_holm, 2),
        f"{one.wins:.0%}",
        _number(one.detectable, 2),
        note,
    )


def _share(one: Difference) -> str:
    """Of a metric without an interval: how many times the baseline."""
    return f"x{one.value / one.baseline:.3g}" if one.baseline else ""


def _number(value: float, digits: int = 4) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3g}"


def caption(found: Sequence[Difference], baseline: str) -> str:
    """How to read the table."""
    prompts = sorted({one.prompts for one in found if one.prompts})
    count = (
        f"{prompts[0]}"
        if len(prompts) == 1
        else f"{prompts[0]} to {prompts[-1]}"
        if prompts
        else "no"
    )
    return (
        f"Difference to {baseline}, paired over {count} prompt{'' if count == '1' else 's'}, bootstrap interval. Effect: mean over standard deviation of the differences. p: sign flips, Holm over "
        "the methods. Wins: share of prompts on which the method is better. Detectable: the smallest difference that is shown 4 times in 5, the methods sharing 5%; inf: none, with so few prompts. "
        "Better, worse: p below 0.05 and an interval without 0. Pooled metrics and costs: how many times the baseline; equal ones are left out of the table."
    )


def comparison_tables(found: Sequence[Difference], baseline: str) -> list[Table]:
    """For the terminal, a table per metric; names are wrapped where it is narrow, figures never."""
    tables = []
    for column in dict.fromkeys(one.column for one in found):
        lines = [
            one for one in found if one.column == column and (one.prompts or one.difference)
        ]  # a counter that is the same is left out
        if not lines:
            continue
        tested, usual = (
            any(one.prompts for one in lines),
            sorted({_number(one.baseline) for one in lines}),
        )
        title = f"{cells(lines[0])[0]}   {baseline} {usual[0] if len(usual) == 1 else 'each on its own prompts or run'}"
        table = Table(
            title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
        )
        names = [
            name
            for name in HEADER
            if name not in ("metric", "baseline")
            and (tested or name in ("method", "difference", "95% interval", "note"))
        ]
        for name in names:
            text = name in ("method", "note")
            shown = "times" if name == "95% interval" and not tested else name
            table.add_column(
                shown,
                justify="left" if text else "right",
                no_wrap=not text,
                overflow="fold",
                min_width=8 if text else None,
            )
        for one in lines:
            line = dict(zip(HEADER, cells(one), strict=True))
            table.add_row(
                *(escape(line[name]) for name in names),
                style={True: "green", False: "red", None: None}[one.better],
            )
        tables.append(table)
    return tables


def as_markdown(found: Sequence[Difference], baseline: str) -> str:
    """A Markdown table with its caption."""
    return f"{markdown_rows(HEADER, [cells(one) for one in found])}\n\n{caption(found, baseline)}\n"


def markdown_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of a Markdown table; what a cell holds cannot end it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


def as_csv(found: Sequence[Difference]) -> str:
    """One line per method and metric."""
    text: str = escaped(pd.DataFrame([_record(one) for one in found])).to_csv(
        index=False, lineterminator="\n"
    )
    return text


def as_json(
    found: Sequence[Difference], notes: Sequence[str] = (), fronts: Sequence[dict[Any, Any]] = ()
) -> str:
    """Lists of objects under `differences` and `fronts`; numbers that are not there are null."""
    data = {
        "differences": [_record(one) for one in found],
        "fronts": list(fronts),
        "notes": list(notes),
    }
    return json.dumps(_finite(data), indent=1, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(one: Difference) -> dict[str, Any]:
    return {**asdict(one), "better": one.better}


def gate_table(outcomes: Sequence[CheckResult]) -> Table:
    """For the terminal."""
    table = Table("method", "metric", "test", "outcome", "figures")
    for one in outcomes:
        style = {PASS: None, TOO_FEW: "yellow"}.get(one.status, "red")
        table.add_row(
            *map(escape, (one.label, one.metric, one.test, WORDS[one.status], one.detail)),
            style=style,
        )
    return table


def gate_markdown(outcomes: Sequence[CheckResult], code: int) -> str:
    """For a pull request: the verdict, then what did not pass, then the rest folded away."""
    header = ("method", "metric", "test", "outcome", "figures")
    lines = {
        one: (one.label, one.metric, one.test, WORDS[one.status], one.detail) for one in outcomes
    }
    failed = [line for one, line in lines.items() if one.status != PASS]
    passed = [line for one, line in lines.items() if one.status == PASS]
    parts = [f"**eddy-bench gate: {WORDS[code]}** ({len(passed)} of {len(outcomes)} checks pass)"]
    if failed:
        parts.append(markdown_rows(header, failed))
    if passed:
        parts.append(
            f"<details><summary>{len(passed)} checks that pass</summary>\n\n{markdown_rows(header, passed)}\n\n</details>"
        )
    return "\n\n".join(parts) + "\n"


def as_junit(outcomes: Sequence[CheckResult]) -> str:
    """JUnit XML: a regression is a failure, what could not be measured an error, too little data skipped."""
    counts = {code: sum(one.status == code for one in outcomes) for code in WORDS}
    suite = ElementTree.Element(
        "testsuite",
        name="eddy-bench gate",
        tests=str(len(outcomes)),
        failures=str(counts[1]),
        errors=str(counts[2]),
        skipped=str(counts[3]),
    )
    for one in outcomes:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=_printable(one.label),
            name=_printable(f"{one.metric} {one.test}"),
        )
        tag = {1: "failure", 2: "error", 3: "skipped"}.get(one.status)
        if tag:
            ElementTree.SubElement(case, tag, message=_printable(one.detail))
    ElementTree.indent(suite)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        + ElementTree.tostring(suite, encoding="unicode")
        + "\n"
    )


def _printable(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return "".join(
        c
        if c in "\t\n\r" or " " <= c < "\ud800" or "\ue000" <= c < "\ufffe" or c > "\uffff"
        else "\ufffd"
        for c in text
    )
