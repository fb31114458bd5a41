"""The table that `run` and `score` end with: one row per method, the baseline first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eddy_bench.cli.console import console, verbose, write_line
from eddy_bench.cli.figure_table import Cell, Column, FigureTable, left_out_note, print_figures
from eddy_bench.errors import CompareError
from eddy_bench.storage.records import method_text

if TYPE_CHECKING:
    import pandas as pd

    from eddy_bench.storage.run_folder import RunFolder

BASELINE = "iid"
WANTED = 4  # rank of what was asked for by name
SHORT = {"seconds_per_image": "s/image"}


def print_summary(
    summary: pd.DataFrame, folder: RunFolder, grids: Sequence[Path], wanted: Sequence[str] = ()
) -> None:
    """Print the table and where the files are.

    Args:
        summary: one row per method, as summary.csv holds it.
        folder: of the run.
        grids: that were drawn; none for those that are there.
        wanted: columns that were asked for by name, shown beside the usual ones.

    """
    out = console()
    table = _table(summary, folder, wanted)
    write_line(f"{folder.read_run().settings.described()}.")
    print_figures(table)
    for note in _notes(summary, table, out.width):
        write_line(note)
    for label in ("scores", "summary"):
        out.print(f"{label:9}{folder.path / label}.csv", soft_wrap=True, markup=False)
    for text in _shown_grids(folder, grids):
        out.print(f"{'grids':9}{text}", soft_wrap=True, markup=False)


def _shown_grids(folder: RunFolder, grids: Sequence[Path]) -> list[str]:
    """Return where the picture of all methods is, or the only one, and where the others are."""
    from eddy_bench.experiment.grids import SIDE_BY_SIDE

    found = list(grids) or sorted((folder.path / "grids").glob("*.png"))
    if verbose():
        return list(map(str, found))
    shown = [path for path in found if path.name == SIDE_BY_SIDE] or found[:1]
    others = len(found) - len(shown)
    beside = ", and one per method beside it" if others else ""
    return [f"{path}{beside}" for path in shown]


def _table(summary: pd.DataFrame, folder: RunFolder, wanted: Sequence[str]) -> FigureTable:
    records = [
        {str(key): value for key, value in row.items()} for row in summary.to_dict("records")
    ]
    better = _shown_to_be_better(folder)
    columns = []
    names = _columns(summary, wanted)
    letters = _letters(names)
    for name in names:
        cells = [_cell(row, name, (_label(row), name) in better) for row in records]
        columns.append(Column(_heading(name, letters), _rank(name, wanted), cells))
    return FigureTable(str(folder.path), [_label(row) for row in records], columns)


def _columns(summary: pd.DataFrame, wanted: Sequence[str]) -> list[str]:
    """Return the columns of the table, in order: the usual ones, with those asked for."""
    from eddy_bench.scoring.metrics import COSTS, METRICS, MetricSpec
    from eddy_bench.scoring.signature import BAD_IMAGES

    values = [
        name
        for name in summary.columns[6:]  # after model, method, params, kernel, groups, images
        if not name.endswith((".low", ".high")) and name != BAD_IMAGES
    ]
    metrics = {name: MetricSpec.of_column(name).name for name in values}
    usual = [name for name, metric in METRICS.items() if metric.rank is not None]
    ordered = [name for metric in usual for name in values if metrics[name] == metric]
    extra = [name for name in values if name not in ordered and name in wanted]
    costs = [name for name in ordered if name in COSTS]
    return [*(name for name in ordered if name not in costs), *extra, *costs]


def _rank(name: str, wanted: Sequence[str]) -> int:
    from eddy_bench.scoring.metrics import MetricSpec

    rank = MetricSpec.of_column(name).metric.rank
    return rank if rank is not None else WANTED if name in wanted else WANTED * WANTED


def _letters(names: Sequence[str]) -> dict[str, str]:
    """Return a letter per extractor, where a metric is seen through several."""
    from eddy_bench.scoring.metrics import MetricSpec

    specs = [MetricSpec.of_column(name) for name in names]
    metrics = [spec.name for spec in specs]
    if all(metrics.count(name) == 1 for name in metrics):
        return {}
    extractors = list(dict.fromkeys(spec.extractor for spec in specs if spec.extractor))
    return {name: chr(ord("a") + k) for k, name in enumerate(extractors)}


def _heading(name: str, letters: Mapping[str, str]) -> str:
    from eddy_bench.scoring.metrics import MetricSpec

    spec = MetricSpec.of_column(name)
    arrow = "↑" if spec.metric.higher_is_better else "↓"
    bare = SHORT.get(name, replace(spec, extractor="").column)
    letter = letters.get(spec.extractor, "")
    return f"{bare}({letter}) {arrow}" if letter else f"{bare} {arrow}"


def _text(row: Mapping[str, Any], key: str) -> str:
    """Return a cell of text; empty ones are read back as NaN."""
    return row[key] if isinstance(row[key], str) else ""


def _label(row: Mapping[str, Any]) -> str:
    """Return a method as score files, `compare` and the command line name it."""
    return method_text(str(row["method"]), _text(row, "params"))


def _cell(row: Mapping[str, Any], name: str, better: bool) -> Cell:
    value = row[name]
    if math.isnan(value):
        return Cell("-")
    digits = (
        4 if name == "seconds_per_image" else 0 if name == "nfe" else 3 if abs(value) < 10 else 2
    )
    low, high = row.get(f"{name}.low", math.nan), row.get(f"{name}.high", math.nan)
    interval = "" if math.isnan(low) else f"±{(high - low) / 2:.2f}"
    return Cell(f"{value:.{digits}f}{'*' if better else ''}", interval, better)


def _shown_to_be_better(folder: RunFolder) -> set[tuple[str, str]]:
    """Return (method, column) pairs that a paired test over prompts shows to beat the baseline."""
    from eddy_bench.compare.load import read_scores
    from eddy_bench.compare.paired import compare

    try:
        scores = read_scores([folder.path])
        differences = compare(scores, BASELINE)
    except CompareError:  # without the baseline nothing is shown
        return set()
    return {(item.label, item.column) for item in differences if item.better}


def _notes(summary: pd.DataFrame, table: FigureTable, width: int) -> list[str]:
    """Return how to read the table, and what it leaves out."""
    from eddy_bench.scoring.metrics import MetricSpec

    marked = any(cell.marked for column in table.columns for cell in column.cells)
    notes = ["Mean over prompts; ± half the width of its 95% interval."]
    if marked:
        notes[0] += f" * shown to be better than {BASELINE}, paired over prompts."
    elif len(summary) > 1:
        notes[0] += f" Nothing is shown to be better than {BASELINE}, paired over prompts."
    names = [str(name) for name in summary.columns]
    shown = [name for name in names if "[" in name and not name.endswith((".low", ".high"))]
    letters = _letters(_columns(summary, shown))
    extractors = dict.fromkeys(MetricSpec.of_column(name).extractor for name in shown)
    seen = [f"({letters[name]}) {name}" if name in letters else name for name in extractors]
    if seen:
        notes.append(f"Through: {', '.join(seen)}.")
    notes += filter(None, [_kernels(summary)])
    return [*notes, *filter(None, [left_out_note([table], width, "summary.csv")])]


def _kernels(summary: pd.DataFrame) -> str:
    """Say which kernels methods took whose names leave it to the model."""
    rows = summary.to_dict("records")
    taken: dict[str, list[str]] = {}
    for row in ({str(key): value for key, value in row.items()} for row in rows):
        if (kernel := _text(row, "kernel")) and "kernel=" not in _text(row, "params"):
            taken.setdefault(kernel, []).append(str(row["method"]))
    if not taken:
        return ""
    parts = [f"{kernel} of {', '.join(dict.fromkeys(names))}" for kernel, names in taken.items()]
    return f"Kernel where none is named: {'; '.join(parts)}."
