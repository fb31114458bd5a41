"""Print a comparison: a table, Markdown, CSV or JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from eddy_bench.cli.comparison_matrix import LEGEND, comparison_matrix
from eddy_bench.cli.comparison_tables import comparison_tables
from eddy_bench.cli.console import console, print_whole, write, write_line
from eddy_bench.cli.figure_table import left_out_note, print_figures
from eddy_bench.compare.advice import Answer, together
from eddy_bench.compare.front_tables import (
    CAPTION,
    front_differences,
    front_header,
    front_lines,
    front_records,
)
from eddy_bench.compare.fronts import Fronts
from eddy_bench.compare.paired import Difference
from eddy_bench.compare.published import HEADER as PUBLISHED
from eddy_bench.compare.published import published_table
from eddy_bench.compare.tables import as_csv, as_json, as_markdown, caption, markdown_rows
from eddy_bench.errors import ParameterError
from eddy_bench.shown import markdown_text


@dataclass(frozen=True)
class Comparison:
    """Hold what is printed of a comparison, in whatever format.

    differences: of every method on every metric.
    baseline: what the methods are compared with, in words.
    notes: on what differs or is left out.
    fronts: over strengths, where a method has several.
    published: lines of a paper's figures.
    answers: which method to use.
    words: how to read the tables, where they are not of scores.
    """

    differences: list[Difference]
    baseline: str
    notes: list[str]
    fronts: Fronts | None
    published: list[tuple[str, ...]]
    answers: list[Answer]
    words: str = ""

    @property
    def legend(self) -> str:
        """How to read the tables."""
        return self.words or caption(self.differences, self.baseline)


def printer_of(form: str, full: bool) -> Callable[[Comparison], None]:
    """Return what prints a comparison in a format."""
    printers = {
        "table": _print_tables if full else _print_matrix,
        "markdown": _print_full_markdown if full else _print_markdown,
        "csv": _print_csv,
        "json": _print_json,
    }
    if form not in printers:
        *others, last = printers
        raise ParameterError(f"Expected --format {', '.join(others)} or {last}, got {form!r}.")
    return printers[form]


def _print_matrix(comparison: Comparison) -> None:
    """Print what to use, and one table of all methods."""
    for question, sentence in together(comparison.answers):
        write_line(f"{question}: {sentence}")
    table = comparison_matrix(comparison.differences, comparison.baseline)
    if table is None:
        _print_tables(comparison)
        return
    print_figures(table)
    write_line(LEGEND.format(baseline=comparison.baseline))
    if left_out := left_out_note([table], console().width, "--full"):
        write_line(left_out)
    if comparison.published:
        print_whole(published_table(comparison.published))


def _print_tables(comparison: Comparison) -> None:
    """Print a table per metric, fronts and a paper's figures."""
    differences, baseline = comparison.differences, comparison.baseline
    tables = comparison_tables(differences, baseline)
    for table in tables:
        print_figures(table)
        write_line("")
    write_line(comparison.legend)
    if left_out := left_out_note(tables, console().width, "--format csv"):
        write_line(left_out)
    if comparison.fronts:
        print_whole(fronts_table(comparison.fronts))
    if comparison.published:
        print_whole(published_table(comparison.published))


def _print_markdown(comparison: Comparison) -> None:
    """Print what to use and one table of all methods, for a page or a pull request."""
    table = comparison_matrix(comparison.differences, comparison.baseline)
    if table is None:
        _print_full_markdown(comparison)
        return
    header = ["method", *(column.heading for column in table.columns)]
    rows = [
        [
            name,
            *(
                column.cells[number].figure + column.cells[number].interval
                for column in table.columns
            ),
        ]
        for number, name in enumerate(table.names)
    ]
    body = f"{markdown_rows(header, rows)}\n\n{LEGEND.format(baseline=comparison.baseline)}\n"
    published = [(PUBLISHED, comparison.published)] if comparison.published else []
    write(_as_page(comparison, body.replace("*", r"\*"), published))


def _print_full_markdown(comparison: Comparison) -> None:
    """Print a row per method and metric, fronts and a paper's figures."""
    tables = []
    if curves := comparison.fronts:
        tables.append((front_header(curves), front_lines(curves)))
    if comparison.published:
        tables.append((PUBLISHED, comparison.published))
    body = as_markdown(comparison.differences, comparison.legend)
    write(_as_page(comparison, body, tables))


def _as_page(
    comparison: Comparison,
    body: str,
    tables: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]],
) -> str:
    """Return answers, a comparison's own table, notes and further tables as Markdown."""
    notes = "".join(f"\n- {markdown_text(note)}" for note in comparison.notes)
    advice = "".join(
        f"- {markdown_text(f'{asked}: {said}')}\n" for asked, said in together(comparison.answers)
    )
    return (
        (f"{advice}\n" if advice else "")
        + body
        + (f"{notes}\n" if notes else "")
        + "".join(f"\n{markdown_rows(header, lines)}\n" for header, lines in tables)
    )


def _print_csv(comparison: Comparison) -> None:
    curves = comparison.fronts
    write(as_csv([*comparison.differences, *(front_differences(curves) if curves else [])]))


def _print_json(comparison: Comparison) -> None:
    curves = front_records(comparison.fronts) if comparison.fronts else []
    write(as_json(comparison.differences, comparison.notes, curves))


def fronts_table(curves: Fronts) -> Table:
    """Return methods over their strengths, for the terminal."""
    table = Table(
        *map(escape, front_header(curves)),
        caption=CAPTION,
        caption_justify="left",
    )
    for line in front_lines(curves):
        table.add_row(*map(escape, line))
    return table
