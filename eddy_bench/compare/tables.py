"""Comparisons and gates as tables, as documents in every format, and as JUnit XML."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any
from xml.etree import ElementTree

from eddy_bench.compare.advice import together
from eddy_bench.compare.comparison import Comparison
from eddy_bench.compare.fronts import Fronts, Range, front_differences
from eddy_bench.compare.gate import PASS, TOO_FEW, WORDS, CheckResult
from eddy_bench.compare.paired import Difference
from eddy_bench.compare.published import CAPTION as PUBLISHED_CAPTION
from eddy_bench.compare.published import HEADER as PUBLISHED
from eddy_bench.errors import EddyError, ParameterError, counted
from eddy_bench.ids import IID, MetricId
from eddy_bench.methods.registry import load_method
from eddy_bench.render.records import as_csv, as_json
from eddy_bench.render.table import Cell, Column, Table
from eddy_bench.results.results import Results
from eddy_bench.shown import latex_text, markdown_text, shown

FORMATS = ("table", "markdown", "csv", "json", "latex", "bibtex")
TONES = {True: "better", False: "worse", None: ""}
KINDS = (
    "headroom: of what marginal-preserving methods can gain, * the marginals shifted. Costs and "
    "pooled metrics: times the baseline's."
)
MATRIX_LEGEND = (
    "Difference to {against} with its 95% interval over prompts; * significant, after Holm's "
    f"correction over the methods. {KINDS} Everything else: --full."
)
CLASSES_LEGEND = "Classes have fewer prompts: p is corrected over the methods and the classes."
FRONTS_CAPTION = (
    "Diversity at 1% loss is interpolated between neighbouring strengths. Hypervolumes: over the "
    "worst point of all, of diversity times fidelity, and of diversity times doublings of speed; "
    "seconds have no interval of their own, so close ones are not told apart."
)
GATE_STYLES = {PASS: "", TOO_FEW: "note"}


def check_format(form: str) -> None:
    """Raise ParameterError for what is no format."""
    if form not in FORMATS:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise ParameterError(f"Expected --format {known}, got {form!r}.")


def tables_of(comparison: Comparison, full: bool = False) -> list[Table]:
    """Return one table of all methods, or with `full` one per metric, and those that follow it."""
    matrix = None if full else matrix_of(comparison)
    tables = full_tables(comparison) if matrix is None else [matrix]
    if matrix is None and comparison.swept:
        tables.append(fronts_table(comparison.swept))
    tables += class_tables(comparison)
    if comparison.published:
        names, *cells = zip(*comparison.published, strict=True)
        columns = [
            Column(title, [*map(Cell, own)]) for title, own in zip(PUBLISHED, cells, strict=True)
        ]
        tables.append(Table("", names, columns, caption=PUBLISHED_CAPTION))
    return tables


def document_of(comparison: Comparison, form: str, full: bool = False) -> str:
    """Return a comparison as Markdown, CSV, JSON or LaTeX, or the sources of what is in it."""
    curves = comparison.swept
    parts = [
        {"class": own.name, **record_of(d)} for own in comparison.classes for d in own.differences
    ]
    if form == "csv":
        own = [*comparison.differences, *(front_differences(curves) if curves else [])]
        whole = {"class": ""} if comparison.by else {}
        return as_csv([*({**whole, **record_of(difference)} for difference in own), *parts])
    if form == "json":
        document = {
            "differences": [record_of(difference) for difference in comparison.differences],
            "fronts": front_records(curves) if curves else [],
            "notes": comparison.notes,
            **({"by": comparison.by, "classes": parts} if comparison.by else {}),
        }
        return as_json(document)
    if form == "bibtex":
        return bibtex_of(comparison)
    if form == "latex":
        tables = [table.latex(latex_caption(table, comparison)) for table in tables_of(comparison)]
        return "\n\n".join(tables) + "\n"
    answers = [f"{question}: {answer}" for question, answer in together(comparison.answers)]
    texts = [*_bullets(answers)]
    for table in tables_of(comparison, full):
        titled = table.title and (full or comparison.by)
        texts += [f"**{markdown_text(table.title)}**"] if titled else []
        texts += [table.markdown().replace("*", r"\*"), table.caption.replace("*", r"\*")]
    return "\n\n".join(filter(None, [*texts, *_bullets(comparison.notes)])) + "\n"


def latex_caption(table: Table, comparison: Comparison) -> str:
    """Return what a reviewer asks for: of what, over how many, with which interval and test."""
    frame = comparison.results.frame
    counts = [own.prompts for own in comparison.differences if own.prompts]
    sizes = sorted({str(size) for size in frame["particles"]})
    over = (
        f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else f"{max(counts, default=0)}"
    )
    title = table.title or "Beside the published figures"
    return (
        f"{title[0].upper()}{title[1:]}: paired over {over} prompts on the same noise, "
        f"N = {', '.join(sizes)} images a prompt. In brackets 95% studentised bootstrap intervals; "
        f"* significant at 5% after Holm's correction over the methods. {KINDS}"
    )


def bibtex_of(comparison: Comparison) -> str:
    """Return an entry for each source of the methods and metrics that are compared."""
    used: dict[str, list[str]] = {}
    for method in dict.fromkeys(own.method for own in comparison.differences):
        with suppress(EddyError):  # a plug-in that is not installed
            used.setdefault(load_method(method.name).citation, []).append(method.name)
    for metric in dict.fromkeys(own.metric for own in comparison.differences):
        used.setdefault(comparison.results.metric(metric).citation, []).append(metric.name)
    entries: dict[str, list[str]] = {}
    for citation, names in used.items():
        for source in ARXIV.findall(citation) or filter(None, [citation]):
            entries.setdefault(source, []).extend(names)
    return "\n".join(_entry(source, names) for source, names in entries.items())


ARXIV = re.compile(r"\d{4}\.\d{4,5}")


def _entry(source: str, names: Sequence[str]) -> str:
    known = ARXIV.fullmatch(source)
    key = f"arxiv:{source}" if known else "-".join(re.findall(r"\w+", source)).lower()
    title = f"arXiv:{source}" if known else source
    fields = {"title": title, **({"eprint": source, "archiveprefix": "arXiv"} if known else {})}
    fields["note"] = f"eddy-bench: {', '.join(dict.fromkeys(names))}"
    lines = "".join(f"  {name} = {{{latex_text(text)}}},\n" for name, text in fields.items())
    return f"@misc{{{key},\n{lines}}}\n"


def _bullets(texts: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {markdown_text(text)}" for text in texts)] if texts else []


def record_of(difference: Difference) -> dict[str, Any]:
    """Return a difference in numbers; the record holds everything but `judged`."""
    ids = {"method": str(difference.method), "metric": str(difference.metric)}
    record = {**asdict(difference), **ids, "better": difference.better}
    del record["judged"]
    return record


def matrix_of(comparison: Comparison) -> Table | None:
    """Return a row per method, a column per metric; None where no column belongs there."""
    differences, results = comparison.differences, comparison.results
    methods = list(dict.fromkeys(own.method for own in differences))
    by_place = {(own.method, own.metric): own for own in differences}
    columns = ordered_columns(differences, results)
    if not columns:
        return None
    return Table(
        f"differences to {comparison.against}",
        [*map(str, methods)],
        [
            Column(
                _heading(column, columns, results),
                [_cell(by_place.get((method, column)), results) for method in methods],
                rank,
            )
            for rank, column in enumerate(columns)
        ],
        caption=MATRIX_LEGEND.format(against=comparison.against),
    )


def class_tables(comparison: Comparison) -> list[Table]:
    """Return a row per method for each class of prompts, as `matrix_of`."""
    tables = [
        (own, matrix_of(replace(comparison, results=own.results, differences=own.differences)))
        for own in comparison.classes
    ]
    return [
        replace(
            table,
            title=f"{comparison.by} {own.name}: {counted(own.prompts, 'prompt')}, differences to "
            f"{comparison.against}",
            caption=CLASSES_LEGEND if own is tables[-1][0] else "",
        )
        for own, table in tables
        if table is not None
    ]


def ordered_columns(differences: Sequence[Difference], results: Results) -> list[MetricId]:
    """Return metrics by their importance: the first of each kind, then the rest of it."""
    told = [own.metric for own in differences if own.prompts or own.difference]
    columns = list(dict.fromkeys(told))
    roles = {column: results.metric(column).role for column in columns}
    diversity, fidelity = (results.of_aspect(own, columns) for own in ("diversity", "fidelity"))

    def of_role(role: str) -> list[MetricId]:
        return [column for column in columns if roles[column] == role]

    real = of_role("reference-distance")
    first = [*diversity[:1], *fidelity[:2], *of_role("seconds"), *real[:1]]
    rest = [*of_role("headroom")[:1], *diversity[1:], *fidelity[2:], *real, *of_role("nfe")]
    return list(dict.fromkeys([*first, *rest]))


def _heading(column: MetricId, columns: Sequence[MetricId], results: Results) -> str:
    metric = results.metric(column)
    if metric.scope == "cost":
        return "seconds" if metric.role == "seconds" else column.name
    alone = sum(own.bare == column.bare for own in columns) == 1
    name = column.bare if alone else str(column)
    return name if metric.role == "headroom" else f"{name} {_arrow(metric.higher_is_better)}"


def _arrow(higher_is_better: bool) -> str:
    return "↑" if higher_is_better else "↓"


def _cell(difference: Difference | None, results: Results) -> Cell:
    if difference is None or math.isnan(difference.difference):
        return Cell("-")
    if not difference.prompts:
        return Cell("-" if math.isnan(difference.ratio) else f"x{difference.ratio:.3g}")
    headroom = results.metric(difference.metric).role == "headroom"
    shifted = headroom and bool(difference.warning)
    significant = shifted or difference.better is not None
    figure = number_text(difference.difference, 2) if headroom else signed(difference.difference)
    low, high = _short(difference.low), _short(difference.high)
    return Cell(
        figure + ("*" if significant else ""),
        "" if math.isnan(difference.low) else f" [{low}, {high}]",
        "worse" if shifted else TONES[difference.better],
    )


def _short(bound: float) -> str:
    """Return a signed bound of an interval, one digit below 0.01, no zero before the point.

    >>> _short(0.0319), _short(-1.204), _short(0.0087)
    ('+.032', '-1.2', '+.009')
    """
    text = f"{bound:+.2g}" if abs(bound) >= 0.01 else f"{bound:+.1g}"
    return text.replace("+0.", "+.").replace("-0.", "-.")


def full_tables(comparison: Comparison) -> list[Table]:
    """Return a table per metric; a counter that is the same everywhere is left out."""
    shown = [own for own in comparison.differences if own.prompts or own.difference]
    columns = dict.fromkeys(own.metric for own in shown)
    tables = [
        _metric_table([own for own in shown if own.metric == column], comparison)
        for column in columns
    ]
    legend = comparison.legend or _full_legend(comparison)
    return [*tables[:-1], replace(tables[-1], caption=legend)] if tables else []


def _metric_table(differences: Sequence[Difference], comparison: Comparison) -> Table:
    first = differences[0]
    levels = sorted({number_text(own.baseline) for own in differences})
    level = levels[0] if len(levels) == 1 else "each on its own prompts or run"
    against = comparison.against if first.judged else str(IID)  # headroom is what iid leaves
    tested = any(own.prompts for own in differences)
    columns = [
        Column(title, [Cell(text(own)) for own in differences], rank)
        for rank, (title, text) in enumerate(FULL if tested else POOLED)
    ]
    return Table(
        f"{first.metric} {_arrow(first.higher_is_better)}   {against} {level}",
        [str(own.method) for own in differences],
        columns,
        remarks=[remark(own) for own in differences],
        tones=[TONES[own.better] for own in differences],
    )


def remark(own: Difference) -> str:
    """Say whether a difference is significant, and what speaks against reading much into it."""
    verdict = {True: "better", False: "worse", None: ""}[own.better]
    return ", ".join(filter(None, (verdict, own.warning)))


def times(own: Difference) -> str:
    """Return how many times the baseline a metric without an interval is."""
    return "" if math.isnan(own.ratio) else f"x{own.ratio:.3g}"


def number_text(value: float, digits: int = 4) -> str:
    """Return a number as tables show it; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def signed(value: float) -> str:
    """Return a signed number as tables show it; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:+.3g}"


def _interval(own: Difference) -> str:
    return f"{signed(own.low)} to {signed(own.high)}" if own.prompts else times(own)


def _of_prompts(text: Callable[[Difference], str]) -> Callable[[Difference], str]:
    """Return a cell that is empty where nothing is compared per prompt."""
    return lambda own: text(own) if own.prompts else ""


# Columns of a full table, those that are left out last first: a title and a cell.
FULL: tuple[tuple[str, Callable[[Difference], str]], ...] = (
    ("difference", lambda own: signed(own.difference)),
    ("95% interval", _interval),
    ("p", _of_prompts(lambda own: number_text(own.p_holm, 2))),
    ("wins", _of_prompts(lambda own: "-" if math.isnan(own.wins) else f"{own.wins:.0%}")),
    ("effect", _of_prompts(lambda own: number_text(own.effect, 2))),
    ("detectable", _of_prompts(lambda own: number_text(own.detectable, 2))),
    ("prompts", _of_prompts(lambda own: str(own.prompts))),
)
POOLED: tuple[tuple[str, Callable[[Difference], str]], ...] = (FULL[0], ("times", times))


def _full_legend(comparison: Comparison) -> str:
    """Say how to read the full tables."""
    prompts = sorted({own.prompts for own in comparison.differences if own.prompts})
    count = " to ".join(map(str, dict.fromkeys([*prompts[:1], *prompts[-1:]]))) or "no"
    return (
        f"Difference to {comparison.against}, paired over {count} "
        f"prompt{'' if count == '1' else 's'}, bootstrap interval. Effect: mean over standard "
        "deviation of the differences. p: by the same bootstrap, Holm over the methods; of "
        "headroom one-sided, that marginals were kept. Wins: share of prompts on which the method "
        "is better. Detectable: the smallest difference that is significant 4 times in 5, the "
        "methods sharing 5%; inf: none, with so few prompts. Better, worse: p below 0.05 and an "
        "interval without 0. Pooled metrics and costs: how many times the baseline; equal ones are "
        "left out of the table."
    )


def fronts_table(curves: Fronts) -> Table:
    """Return methods over their strengths, then the baseline."""
    start = curves.families[0].points[0]
    names = [*(family.name for family in curves.families), str(curves.baseline)]
    figures = [("at_fidelity", f"{curves.diversity} at no more than 1% loss of {curves.fidelity}")]
    figures += [("hypervolume", "hypervolume"), ("hypervolume_seconds", "hypervolume, seconds")]
    columns = [
        Column(
            "strengths", [*(Cell(str(len(own.points) - 1)) for own in curves.families), Cell("0")]
        )
    ]
    for name, title in figures:
        own = [Cell(_range_text(getattr(family, name))) for family in curves.families]
        last = f"{start.diversity.value:.3g}" if name == "at_fidelity" else "-"
        columns.append(Column(title, [*own, Cell(last)]))
    for name, title in (("front", "on the front"), ("front_seconds", "on the front, seconds")):
        on = [
            ", ".join(
                own.strength or str(own.method) for own in family.points[1:] if getattr(own, name)
            )
            for family in curves.families
        ]
        on.append(str(curves.baseline) if getattr(start, name) else "")
        columns.append(Column(title, [Cell(text or "-") for text in on]))
    return Table("", names, columns, caption=FRONTS_CAPTION)


def _range_text(interval: Range) -> str:
    """Return `1.55 [1.5, 1.59]`; a dash where it could not be measured."""
    if not math.isfinite(interval.value):
        return "-"
    return f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def front_records(curves: Fronts) -> list[dict[str, Any]]:
    """Return each family in numbers, with its points."""
    names = ("at_fidelity", "hypervolume", "hypervolume_seconds")
    return [
        {
            "family": family.name,
            "strengths": len(family.points) - 1,
            **{name: asdict(getattr(family, name)) for name in names},
            "points": [{**asdict(own), "method": str(own.method)} for own in family.points],
        }
        for family in curves.families
    ]


def gate_table(outcomes: Sequence[CheckResult]) -> Table:
    """Return a gate's outcomes."""
    names = [own.method for own in outcomes]
    cells = [(own.metric, own.test, WORDS[own.status], own.detail) for own in outcomes]
    columns = [
        Column(title, [Cell(row[k]) for row in cells])
        for k, title in enumerate(("metric", "test", "outcome", "figures"))
    ]
    tones = [GATE_STYLES.get(own.status, "worse") for own in outcomes]
    return Table("", names, columns, tones=tones)


def gate_markdown(outcomes: Sequence[CheckResult], code: int) -> str:
    """Return Markdown: the verdict, what did not pass, and the rest folded away."""
    failed = [own for own in outcomes if own.status != PASS]
    passed = [own for own in outcomes if own.status == PASS]
    parts = [f"**eddy-bench gate: {WORDS[code]}** ({len(passed)} of {len(outcomes)} checks pass)"]
    if failed:
        parts.append(gate_table(failed).markdown())
    if passed:
        parts.append(
            f"<details><summary>{len(passed)} checks that pass</summary>\n\n"
            f"{gate_table(passed).markdown()}\n\n</details>"
        )
    return "\n\n".join(parts) + "\n"


def as_junit(outcomes: Sequence[CheckResult]) -> str:
    """Return JUnit XML.

    A regression is a failure, what could not be measured an error, too little data skipped.
    """
    counts = {code: sum(own.status == code for own in outcomes) for code in WORDS}
    suite = ElementTree.Element(
        "testsuite",
        name="eddy-bench gate",
        tests=str(len(outcomes)),
        failures=str(counts[1]),
        errors=str(counts[2]),
        skipped=str(counts[3]),
    )
    for own in outcomes:
        name = shown(f"{own.metric} {own.test}")
        case = ElementTree.SubElement(suite, "testcase", classname=shown(own.method), name=name)
        if tag := {1: "failure", 2: "error", 3: "skipped"}.get(own.status):
            ElementTree.SubElement(case, tag, message=shown(own.detail))
    ElementTree.indent(suite)
    text = ElementTree.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'
