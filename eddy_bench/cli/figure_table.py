"""A table of figures that fits any terminal of 60 columns or more without cutting a word of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.text import Text

from eddy_bench.cli.console import console

GAP = 2  # columns between two columns of the table
INDENT = 2  # of figures below their row's name
LEADING = 4  # columns that stand beside the names; where they do not fit, names get their own line


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
        return [line for cell in self.cells for line in (cell.figure, cell.interval)]


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

    def shown(self, width: int) -> tuple[list[Column], bool, bool]:
        """Return the columns that fit, whether intervals stand beside figures, and names above."""
        words = self._names_width() + max(
            (GAP + cell_len(text) for text in self.remarks), default=0
        )
        for inline in (True, False):
            if _width(self.columns, inline) + words <= width:
                return list(self.columns), inline, False
        beside = self._fitting(width - words)
        leading = sorted(self.columns, key=lambda column: column.rank)[:LEADING]
        if not self.remarks and all(any(column is other for other in beside) for column in leading):
            return beside, False, False
        return self._fitting(width - INDENT + GAP), False, True

    def _names_width(self) -> int:
        return max(map(cell_len, ("method", *self.names)))

    def _fitting(self, width: int) -> list[Column]:
        """Return the columns of the lowest ranks that fit, in the table's order."""
        kept: list[Column] = []
        for column in sorted(self.columns, key=lambda column: column.rank):
            if _width([*kept, column], inline=False) <= width:
                kept.append(column)
        return [column for column in self.columns if any(column is other for other in kept)]

    def left_out(self, width: int) -> list[str]:
        """Return the headings of the columns that do not fit."""
        columns, _, _ = self.shown(width)
        return [c.heading for c in self.columns if not any(c is other for other in columns)]

    def lines(self, width: int) -> Iterator[Text]:
        """Yield the lines of the table; none is wider than `width` unless a name is."""
        columns, inline, above = self.shown(width)
        start = INDENT - GAP if above else self._names_width()
        total = start + _width(columns, inline)
        yield Text(self.title, style="italic")
        heading = _line("" if above else "method", start, columns, inline, _headings(columns))
        heading.stylize("bold")
        yield heading
        yield Text("─" * total)
        for row in range(len(self.names)):
            for line in self._row(row, width):
                line.stylize(self.styles[row] if self.styles else "")
                yield line

    def _row(self, row: int, width: int) -> Iterator[Text]:
        """Yield the lines of a row, its remark at the end of the first."""
        columns, inline, above = self.shown(width)
        name, remark = self.names[row], self.remarks[row] if self.remarks else ""
        start = INDENT - GAP if above else self._names_width()
        cells = [column.cells[row] for column in columns]
        if above:
            words = f"{name}  {remark}" if remark else name
            yield from (Text(part, style="bold") for part in _wrapped(words, width))
        line = _line("" if above else name, start, columns, inline, cells)
        yield line.append(" " * GAP + remark) if remark and not above else line
        if not inline and any(cell.interval for cell in cells):
            below = [Cell(cell.interval) for cell in cells]
            yield _line("", start, columns, inline, below)


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


def _line(
    name: str, start: int, columns: Sequence[Column], inline: bool, cells: Sequence[Cell]
) -> Text:
    """Return a line of a table: a name, then cells set to the right of their columns."""
    line = Text(name + " " * (start - cell_len(name)))
    for column, cell in zip(columns, cells, strict=True):
        text = cell.figure + (cell.interval if inline else "")
        padding = " " * (column.width(inline) + GAP - cell_len(text))
        line.append(padding)
        line.append(text, style=cell.style)
    return line


def _wrapped(name: str, width: int) -> Iterator[str]:
    """Yield a name in lines that end between its parameters."""
    line = ""
    for part in name.split(" "):
        if line and cell_len(line) + 1 + cell_len(part) > width:
            yield line
            line = f"{' ' * INDENT}{part}"
        else:
            line = f"{line} {part}" if line else part
    yield line
