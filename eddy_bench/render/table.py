"""A table for every place: a terminal of any width, Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len
from rich.text import Text

from eddy_bench.shown import latex_text, markdown_text
from eddy_bench.suites.method_spec import folded, name_parts

GAP = 2  # columns between two columns of the table
INDENT = 2  # of figures below their row's name
LEADING = 4  # columns that stand beside the names; where they do not fit, names get their own line
FOLDS = 3  # lines of a name beside figures, at most
WORD = 32  # columns: no longer part of a name keeps figures from standing beside it
STYLES = {"": "", "better": "bold green", "worse": "red", "note": "yellow"}


@dataclass(frozen=True)
class Cell:
    """A figure or a text, its interval (`±0.16`, or empty), and its tone: a key of `STYLES`."""

    text: str
    interval: str = ""
    tone: str = ""

    @property
    def whole(self) -> str:
        """The figure with its interval."""
        return self.text + self.interval


@dataclass(frozen=True)
class Column:
    """A column of cells, a row each.

    rank: the lowest is left out last; None is a text, which is never left out.
    """

    title: str
    cells: Sequence[Cell]
    rank: int | None = None

    def width(self, inline: bool) -> int:
        """Return how wide the column is, with intervals beside the figures or below them."""
        return max(cell_len(text) for text in (self.title, *self._lines(inline)))

    def _lines(self, inline: bool) -> list[str]:
        if inline:
            return [cell.whole for cell in self.cells]
        return [line for cell in self.cells for line in (cell.text, cell.interval.strip())]


@dataclass(frozen=True)
class Table:
    """Rows of cells by name.

    names: of the rows.
    columns: in the order of the table.
    remarks: words on each row, such as verdicts; none, or one per row.
    tones: of each row; none, or one per row.
    heading: what the names are of. remarked: what the remarks are, in Markdown.
    caption: how to read it.
    sections: rows that begin a new part, by their number; its title, or empty.
    """

    title: str
    names: Sequence[str]
    columns: Sequence[Column]
    remarks: Sequence[str] = ()
    tones: Sequence[str] = ()
    heading: str = "method"
    remarked: str = "remark"
    caption: str = ""
    sections: dict[int, str] | None = None

    def left_out(self, width: int) -> list[str]:
        """Return the titles of the columns that do not fit."""
        if self._of_texts:
            return []
        kept = self._layout(width)
        return [column.title for column in self.columns if not kept.has(column)]

    def lines(self, width: int) -> Iterator[Text]:
        """Yield lines for a terminal; none is wider than `width` unless a word or a figure is."""
        return self._text_lines(width) if self._of_texts else self._figure_lines(width)

    def markdown(self) -> str:
        """Return lines of a Markdown table; what a cell holds cannot end it."""
        remarks = [(self.remarked, self.remarks)] if any(self.remarks) else []
        header = [self.heading, *(column.title for column in self.columns), *dict(remarks)]
        cells = [[cell.whole for cell in column.cells] for column in self.columns]
        rows = zip(self.names, *cells, *dict(remarks).values(), strict=True)
        return "\n".join(
            "| " + " | ".join(map(markdown_text, line)) + " |"
            for line in (header, ["---"] * len(header), *rows)
        )

    def latex(self, caption: str) -> str:
        """Return a LaTeX table with the rules of booktabs; intervals stand small beside figures."""
        header = [self.heading, *(column.title for column in self.columns)]
        lines = [" & ".join(map(latex_text, header))]
        for row, name in enumerate(self.names):
            cells = [column.cells[row] for column in self.columns]
            figures = [
                latex_text(cell.text)
                + (
                    f" {{\\scriptsize {latex_text(cell.interval.strip())}}}"
                    if cell.interval
                    else ""
                )
                for cell in cells
            ]
            lines.append(" & ".join([rf"\texttt{{{latex_text(name)}}}", *figures]))
        head, *body = (f"{line} \\\\" for line in lines)
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{latex_text(caption)}}}",
                rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}",
                *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
                r"\end{tabular}",
                r"\end{table}",
            ]
        )

    @property
    def _of_texts(self) -> bool:
        return any(column.rank is None for column in self.columns)

    def _tone(self, row: int) -> str:
        return STYLES[self.tones[row]] if self.tones else ""

    def _text_lines(self, width: int) -> Iterator[Text]:
        """Yield rows side by side where all columns fit, else a paragraph for each row."""
        names = [self.heading, *self.names]
        columns = [names, *([c.title, *(cell.whole for cell in c.cells)] for c in self.columns)]
        widths = [max(map(cell_len, texts)) for texts in columns]
        if self.title:
            yield Text(self.title, style="italic")
        if sum(widths) + GAP * (len(widths) - 1) > width:
            yield from self._paragraphs(width)
            return
        for number, texts in enumerate(zip(*columns, strict=True)):
            if self.sections and (title := self.sections.get(number - 1)) is not None:
                yield Text(f"── {title} ".ljust(sum(widths), "─") if title else "")
            padded = (
                text + " " * (wide - cell_len(text))
                for text, wide in zip(texts, widths, strict=True)
            )
            style = self._tone(number - 1) if number else "bold"
            yield Text((" " * GAP).join(padded).rstrip(), style=style)
            if number == 0 and not self.sections:
                yield Text("─" * (sum(widths) + GAP * (len(widths) - 1)))

    def _paragraphs(self, width: int) -> Iterator[Text]:
        """Yield each row's name above its cells, named where they are not the first."""
        indent = " " * INDENT
        for row, name in enumerate(self.names):
            if self.sections and (title := self.sections.get(row)):
                yield Text(f"── {title} ".ljust(width, "─"))
            yield Text(name, style=self._tone(row) or "bold")
            for number, column in enumerate(self.columns):
                text = column.cells[row].whole
                if not text:
                    continue
                text = f"{column.title}: {text}" if number else text
                yield from map(Text, wrapped(text, width, indent))

    def _figure_lines(self, width: int) -> Iterator[Text]:
        layout = self._layout(width)
        yield Text(self.title, style="italic")
        titles = [Cell(column.title) for column in layout.columns]
        heading = _line(self.heading if layout.names else "", layout, titles)
        heading.stylize("bold")
        yield heading
        yield Text("─" * layout.width)
        for row in range(len(self.names)):
            for line in self._row(row, layout, width):
                line.rstrip()
                line.stylize(self._tone(row))
                yield line

    def _layout(self, width: int) -> _Layout:
        """Return how the table is set in so many columns.

        Names are folded before figures are left out, and have lines of their own where the
        columns of the lowest ranks do not fit beside them.
        """
        remarks = max((GAP + cell_len(text) for text in self.remarks), default=0)
        widths = self._names_widths()
        all_of_it = (
            _Layout(self.columns, inline, names)
            for inline, folds in ((True, (0, 1)), (False, range(len(widths))))
            for names in (widths[k] for k in folds)
            if names + _width(self.columns, inline) + remarks <= width
        )
        if (whole := next(all_of_it, None)) is not None:
            return whole
        leading = sorted(self.columns, key=_rank)[:LEADING]
        beside = [_Layout(self._fitting(width - names), False, names) for names in widths]
        fitting = [layout for layout in beside if all(map(layout.has, leading))]
        if fitting and not self.remarks:
            return max(fitting, key=lambda layout: len(layout.columns))
        return _Layout(self._fitting(width - INDENT + GAP), False, 0)

    def _names_widths(self) -> list[int]:
        """Return the width of the names in one line, and folded into at most two and three."""
        names = (self.heading, *self.names)
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
        for column in sorted(self.columns, key=_rank):
            if _width([*kept, column], inline=False) <= width:
                kept.append(column)
        return [column for column in self.columns if any(column is other for other in kept)]

    def _row(self, row: int, layout: _Layout, width: int) -> Iterator[Text]:
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


@dataclass(frozen=True)
class _Layout:
    """The columns that fit; whether intervals stand beside figures; the width of the names, 0 where
    they have lines of their own.
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


def left_out_note(tables: Sequence[Table], width: int, elsewhere: str) -> str:
    """Say which columns have no room in some table and where else they are; empty without any."""
    names = dict.fromkeys(name for table in tables for name in table.left_out(width))
    return f"In {elsewhere} only, for want of width: {', '.join(names)}." if names else ""


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return lines broken between words; no word is torn."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _rank(column: Column) -> int:
    return column.rank or 0


def _width(columns: Sequence[Column], inline: bool) -> int:
    return sum(column.width(inline) + GAP for column in columns)


def _line(name: str, layout: _Layout, cells: Sequence[Cell]) -> Text:
    """Return a line of a table: a name, then cells set to the right of their columns."""
    line = Text(name + " " * (layout.start - cell_len(name)))
    for column, cell in zip(layout.columns, cells, strict=True):
        text = cell.text + (cell.interval if layout.inline else "")
        line.append(" " * (column.width(layout.inline) + GAP - cell_len(text)))
        line.append(text, style=STYLES[cell.tone])
    return line


def _above(name: str, remark: str, width: int) -> list[str]:
    """Return a name and the remark on it in lines of their own."""
    whole = f"{name}{' ' * GAP}{remark}" if remark else name
    if cell_len(whole) <= width:
        return [whole]
    return [*folded(name, width, cell_len), *wrapped(remark, width, " " * INDENT)]
