"""The table that `run`, `score` and `benchmark` end with: a row per method, the baseline first."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from eddy_bench.compare.paired import compare
from eddy_bench.ids import MethodId, MetricId
from eddy_bench.render.table import Cell, Column, Table
from eddy_bench.results.results import Results
from eddy_bench.results.summary import MethodSummary
from eddy_bench.scoring.metrics import METRICS

REQUESTED = 4  # rank of what was requested by name


def summary_table(
    title: str,
    results: Results,
    summaries: Sequence[MethodSummary],
    requested: Collection[MetricId] = (),
) -> Table:
    """Return means with half their intervals, and a mark on what gains significantly.

    requested: metrics to show beside the usual ones.
    """
    metrics = _columns(results, summaries, requested)
    letters = _letters(metrics)
    better = _better(results)
    columns = [
        Column(
            _heading(metric, results, letters),
            [_cell(own, metric, results, (own.method, metric) in better) for own in summaries],
            _rank(metric, results, requested),
        )
        for metric in metrics
    ]
    notes = _notes(
        results, summaries, metrics, letters, any(cell.tone for c in columns for cell in c.cells)
    )
    return Table(title, [str(own.method) for own in summaries], columns, caption="\n".join(notes))


def _columns(
    results: Results, summaries: Sequence[MethodSummary], requested: Collection[MetricId]
) -> list[MetricId]:
    """Return the columns of the table, in order: the usual ones, with those requested."""
    there = list(dict.fromkeys(metric for own in summaries for metric in own.values))
    usual = [name for name, metric in METRICS.items() if metric.rank is not None]
    ordered = [metric for name in usual for metric in there if metric.name == name]
    extra = [metric for metric in there if metric not in ordered and metric in requested]
    costs = [metric for metric in ordered if results.metric(metric).scope == "cost"]
    return [*(metric for metric in ordered if metric not in costs), *extra, *costs]


def _rank(metric: MetricId, results: Results, requested: Collection[MetricId]) -> int:
    rank = results.metric(metric).rank
    return rank if rank is not None else REQUESTED if metric in requested else REQUESTED**2


def _letters(metrics: Sequence[MetricId]) -> dict[str, str]:
    """Return a letter per extractor, where a metric is computed with several."""
    names = [metric.name for metric in metrics]
    if len(set(names)) == len(names):
        return {}
    extractors = list(dict.fromkeys(metric.extractor for metric in metrics if metric.extractor))
    return {name: chr(ord("a") + k) for k, name in enumerate(extractors)}


def _heading(metric: MetricId, results: Results, letters: Mapping[str, str]) -> str:
    own = results.metric(metric)
    letter = f"({letters[metric.extractor]})" if metric.extractor in letters else ""
    return f"{own.title or metric.bare}{letter} {'↑' if own.higher_is_better else '↓'}"


def _cell(summary: MethodSummary, metric: MetricId, results: Results, better: bool) -> Cell:
    own = summary.values.get(metric)
    if own is None or math.isnan(own.value):
        return Cell("-")
    digits = results.metric(metric).digits
    digits = digits if digits is not None else 3 if abs(own.value) < 10 else 2
    interval = "" if math.isnan(own.low) else f"±{(own.high - own.low) / 2:.2f}"
    mark, tone = ("*", "better") if better else ("", "")
    return Cell(f"{own.value:.{digits}f}{mark}", interval, tone)


def _better(results: Results) -> set[tuple[MethodId, MetricId]]:
    """Return what is significantly better than the baseline, paired over prompts."""
    if results.baseline not in results.methods:  # without the baseline nothing is
        return set()
    return {(own.method, own.metric) for own in compare(results) if own.better}


def _notes(
    results: Results,
    summaries: Sequence[MethodSummary],
    metrics: Sequence[MetricId],
    letters: Mapping[str, str],
    marked: bool,
) -> list[str]:
    """Return how to read the table."""
    notes = ["Mean over prompts; ± half the width of its 95% interval."]
    if marked:
        notes[0] += f" * significantly better than {results.baseline}, paired over prompts."
    elif len(summaries) > 1 and results.baseline in results.methods:
        notes[0] += (
            f" Nothing is significantly better than {results.baseline}, paired over prompts."
        )
    extractors = dict.fromkeys(metric.extractor for metric in metrics if metric.extractor)
    computed = [f"({letters[name]}) {name}" if name in letters else name for name in extractors]
    notes += [f"Computed with {', '.join(computed)}."] if computed else []
    taken: dict[str, dict[str, None]] = {}
    for own in summaries:
        if own.kernel and "kernel" not in own.method.values:
            taken.setdefault(own.kernel, {})[own.method.name] = None
    if taken:
        parts = [f"{kernel} of {', '.join(names)}" for kernel, names in taken.items()]
        notes.append(f"Kernel where none is named: {'; '.join(parts)}.")
    return notes
