"""What `eddy-bench power` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from eddy_bench.cli.comparison_matrix import ordered_columns
from eddy_bench.cli.console import console, say, write_line
from eddy_bench.cli.figure_table import Cell, Column, FigureTable, left_out_note, print_figures
from eddy_bench.cli.progress import progress_bar
from eddy_bench.compare.comparable import canonical, check_comparable
from eddy_bench.compare.load import last_run, read_scores
from eddy_bench.compare.paired import compare
from eddy_bench.compare.power import Needed, fewest, prompts_needed
from eddy_bench.errors import CompareError, counted

FEW = 16  # prompts whose scatter is hardly known


def print_needed(
    sources: Sequence[Path], effect: float, methods: int | None, baseline: str
) -> None:
    """Print the prompts that each method needs on each metric."""
    scores = read_scores(list(sources) or [last_run()])
    for note in check_comparable(scores, None, partly=False):
        say(note, "Note")
    baseline = baseline if baseline in scores.labels else canonical(baseline)
    with progress_bar("Comparing", len(scores.columns), passing=True) as advance:
        differences = compare(scores, baseline, advance)
    count = methods or max(1, len(scores.labels) - 1)
    needed = prompts_needed(differences, effect, count)
    if not needed:
        raise CompareError(
            "Expected two methods on two prompts or more, whose scatter can be taken; found fewer."
        )
    columns = [
        name for name in ordered_columns(differences) if any(n.column == name for n in needed)
    ]
    labels = list(dict.fromkeys(item.label for item in needed))
    by_place = {(item.label, item.column): item for item in needed}
    table = FigureTable(
        f"prompts that show a difference of {effect:.3g} of {baseline}'s value, 4 times in 5",
        labels,
        [
            Column(name, rank, [_cell(by_place.get((label, name))) for label in labels])
            for rank, name in enumerate(columns)
        ],
    )
    write_line(_answer(columns[0], [item for item in needed if item.column == columns[0]]))
    print_figures(table)
    others = "one method" if count == 1 else f"{count} methods that share them"
    write_line(
        f"At a level of 5% for {others}, from the scatter of {needed[0].had} prompts with "
        f"{len(set(scores.frame['seed']) - {''})} seed(s) each; paired over prompts, on the same "
        "noise. More seeds lower the scatter within prompts. inf: more than 10 million."
        f" {fewest(count)} at least: fewer could show nothing."
    )
    if needed[0].had < FEW:
        say(f"The scatter of {counted(needed[0].had, 'prompt')} is hardly known.", "Note")
    if left_out := left_out_note([table], console().width, "a wider terminal"):
        write_line(left_out)


def _answer(column: str, needed: Sequence[Needed]) -> str:
    """Say how many prompts, in one line."""
    counts = sorted(item.prompts for item in needed)
    half, most = counts[(len(counts) - 1) // 2], counts[-1]
    words = [f"{count:.0f}" if math.isfinite(count) else "no number of" for count in (half, most)]
    if half == most:
        return f"{column}: {words[0]} prompts show it."
    return f"{column}: {words[0]} prompts show it for half of the methods, {words[1]} for all."


def _cell(needed: Needed | None) -> Cell:
    if needed is None or math.isnan(needed.prompts):
        return Cell("-")
    return Cell("inf" if math.isinf(needed.prompts) else str(int(needed.prompts)))
