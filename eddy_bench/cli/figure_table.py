"""A table of figures that fits any terminal of 60 columns or more without cutting a word of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from rich.cells import cell_len
from rich.text import Text

from eddy_bench.cli.console import console
from eddy_bench.suites.method_spec import folded, name_parts

GAP = 2  # columns between two columns of the table
INDENT = 2  # of figures below their row's name
LEADING = 4  # columns that stand beside the names; where they do not fit, names get their own line
FOLDS = 3  # lines of a name beside figures, at most
WORD = 32  # columns: no longer part of a name keeps figures from standing beside it


@dataclass(frozen=True)
class Cell:
    """Hold a figure, its interval (`±0.16`, or empty), and whether it is a gain or a loss."""

    figure: str
    interval: str = ""
    marked: bool = False
    worse: bool = False

    @property
    def style(self) -> str:
        """How the figure is shown."""
        return "bold green" if self.marked else "red" if self.worse else ""


@dataclass(frozen=True)
class Column:
    """Hold a column. rank: the lower, the later it is left out."""

    heading: str
    rank: int
    cells: list[Cell] = field(default_factory=list)

    def width(self, inline: bool) -> int:
        """Return how wide the column is, with intervals beside the figures or below them."""
        return max(cell_len(text) for text in (self.heading, *self.lines(inline)))

    def lines(self, inline: bool) -> list[str]:
        """Return every line of the column's cells."""
        if inline:
            return [cell.figure + cell.interval for cell in self.cells]
        return [line for cell in self.cells for line in (cell.figure, cell.interval.strip())]


@dataclass(frozen=True)
class Layout:
    """Hold how a table is set.

    columns: that fit, in the table's order.
    inline: whether intervals stand beside figures, or below them.
    names: columns of the names; 0 where they have lines of their own.
    """

    columns: Sequence[Column]
    inline: bool
    names: int

    @property
    def start(self) -> int:
        """Where figures begin."""
        return self.names or INDENT - GAP

    @property
    def width(self) -> int:
        """Columns of the whole, remarks aside."""
        return self.start + _width(self.columns, self.inline)

    def has(self, column: Column) -> bool:
        """Return whether a column is shown."""
        return any(column is other for other in self.columns)


@dataclass(frozen=True)
class FigureTable:
    """Lay out rows of figures by name.

    names: of the rows.
    columns: in the order of the table.
    remarks: words on each row, such as verdicts; none, or one per row.
    styles: of each row; none, or one per row.
    """

    title: str
    names: Sequence[str]
    columns: Sequence[Column]
    remarks: Sequence[str] = ()
    styles: Sequence[str] = ()

    def layout(self, width: int) -> Layout:
        """Return how the table is set in so many columns.

        Names are folded before figures are left out, and have lines of their own where the
        columns of the lowest ranks do not fit beside them.
        """
        remarks = max((GAP + cell_len(text) for text in self.remarks), default=0)
        widths = self._names_widths()
        all_of_it = (
            Layout(self.columns, inline, names)
            for inline, folds in ((True, (0, 1)), (False, range(len(widths))))
            for names in (widths[k] for k in folds)
            if names + _width(self.columns, inline) + remarks <= width
        )
        if (whole := next(all_of_it, None)) is not None:
            return whole
        leading = sorted(self.columns, key=lambda column: column.rank)[:LEADING]
        beside = [Layout(self._fitting(width - names), False, names) for names in widths]
        fitting = [layout for layout in beside if all(map(layout.has, leading))]
        if fitting and not self.remarks:
            return max(fitting, key=lambda layout: len(layout.columns))
        return Layout(self._fitting(width - INDENT + GAP), False, 0)

    def _names_widths(self) -> list[int]:
        """Return the width of the names in one line, and folded into at most two and three."""
        names = ("method", *self.names)
        full = max(map(cell_len, names))
        parts = max(INDENT + cell_len(part) for name in names for part in name_parts(name))
        widths = [full]
        for lines in range(2, FOLDS + 1):
            narrower = range(min(parts, WORD), full)
            fits = (w for w in narrower if all(len(folded(n, w, cell_len)) <= lines for n in names))
            widths.append(next(fits, full))
        return widths

    def _fitting(self, width: int) -> list[Column]:
        """Return the columns of the lowest ranks that fit, in the table's order."""
        kept: list[Column] = []
        for column in sorted(self.columns, key=lambda column: column.rank):
            if _width([*kept, column], inline=False) <= width:
                kept.append(column)
        return [column for column in self.columns if any(column is other for other in kept)]

    def left_out(self, width: int) -> list[str]:
        """Return the headings of the columns that do not fit."""
        layout = self.layout(width)
        return [column.heading for column in self.columns if not layout.has(column)]

    def lines(self, width: int) -> Iterator[Text]:
        """Yield the lines of the table; none is wider than `width` unless a figure is."""
        layout = self.layout(width)
        yield Text(self.title, style="italic")
        heading = _line("method" if layout.names else "", layout, _headings(layout.columns))
        heading.stylize("bold")
        yield heading
        yield Text("─" * layout.width)
        for row in range(len(self.names)):
            for line in self._row(row, layout, width):
                line.rstrip()
                line.stylize(self.styles[row] if self.styles else "")
                yield line

    def _row(self, row: int, layout: Layout, width: int) -> Iterator[Text]:
        """Yield the lines of a row, its remark at the end of the first."""
        name, remark = self.names[row], self.remarks[row] if self.remarks else ""
        cells = [column.cells[row] for column in layout.columns]
        figures = [cells]
        if not layout.inline and any(cell.interval for cell in cells):
            figures.append([Cell(cell.interval.strip()) for cell in cells])
        if not layout.names:
            yield from (Text(part, style="bold") for part in _above(name, remark, width))
        names = folded(name, layout.names, cell_len) if layout.names else []
        nothing = [Cell("")] * len(cells)
        for number, (part, own) in enumerate(zip_longest(names, figures)):
            line = _line(part or "", layout, own or nothing)
            beside = remark if layout.names and number == 0 else ""
            yield line.append(" " * GAP + beside) if beside else line


def print_figures(table: FigureTable) -> None:
    """Print a table as wide as the terminal."""
    out = console()
    for line in table.lines(out.width):
        line.overflow = "ignore"
        out.print(line, soft_wrap=True)


def left_out_note(tables: Sequence[FigureTable], width: int, elsewhere: str) -> str:
    """Say which columns have no room in some table and where else they are; empty without any."""
    names = dict.fromkeys(name for table in tables for name in table.left_out(width))
    return f"In {elsewhere} only, for want of width: {', '.join(names)}." if names else ""


def _width(columns: Sequence[Column], inline: bool) -> int:
    return sum(column.width(inline) + GAP for column in columns)


def _headings(columns: Sequence[Column]) -> list[Cell]:
    return [Cell(column.heading) for column in columns]


def _line(name: str, layout: Layout, cells: Sequence[Cell]) -> Text:
    """Return a line of a table: a name, then cells set to the right of their columns."""
    line = Text(name + " " * (layout.start - cell_len(name)))
    for column, cell in zip(layout.columns, cells, strict=True):
        text = cell.figure + (cell.interval if layout.inline else "")
        padding = " " * (column.width(layout.inline) + GAP - cell_len(text))
        line.append(padding)
        line.append(text, style=cell.style)
    return line


def _above(name: str, remark: str, width: int) -> list[str]:
    """Return a name and the remark on it in lines of their own."""
    whole = f"{name}{' ' * GAP}{remark}" if remark else name
    if cell_len(whole) <= width:
        return [whole]
    indent = " " * INDENT
    words = textwrap.wrap(remark, width, initial_indent=indent, subsequent_indent=indent)
    return [*folded(name, width, cell_len), *words]
