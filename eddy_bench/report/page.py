"""Put what a comparison shows into the template of the page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eddy_bench.compare.advice import of_aspect, summary, unfaithful
from eddy_bench.compare.classes import by_class, classes_of
from eddy_bench.compare.comparable import check_comparable, drawn_elsewhere, with_baseline
from eddy_bench.compare.comparison import Comparison, compare_methods
from eddy_bench.compare.fronts import Fronts
from eddy_bench.compare.paired import Difference, Progress, medians_by_method, quiet
from eddy_bench.compare.tables import TONES, class_tables, fronts_table, full_tables
from eddy_bench.errors import CompareError
from eddy_bench.ids import MethodId
from eddy_bench.render.table import Cell, Column, Table
from eddy_bench.report.front_plot import colours_of, front_plots
from eddy_bench.report.plots import pareto_plot
from eddy_bench.report.prompts import first_prompts, prompt_fields
from eddy_bench.report.templates import rendered
from eddy_bench.report.verdicts import verdicts, warnings
from eddy_bench.results.headroom import Headroom
from eddy_bench.results.results import Results, read_results
from eddy_bench.storage.files import check_writable, write_text
from eddy_bench.storage.run_folder import read_manifest, read_run

IN_STRIPS = 2  # methods beside the baseline, where none is recommended
SHOWN_AT_FIRST = 12


def write_report(
    folders: Sequence[Path],
    out: Path | None,
    baseline: str,
    allow_missing: bool,
    progress: Progress = quiet,
) -> Path:
    """Write the page of one or several run folders; returns its path.

    Raises:
        CompareError: a folder is no scored run, or they cannot be compared.

    """
    for path in folders:
        if not path.is_dir():
            raise CompareError(f"Expected a run folder, got {path}. A report shows its images.")
    results = with_baseline(read_results(folders), baseline)
    notes = check_comparable(results, None, allow_missing)
    target = out or folders[0] / "report.html"
    check_writable(target)  # before its plots, so that an error names the page
    plots = "plots" if out is None or target.stem == "report" else f"{target.stem}-plots"
    if len(results.methods) > 1:
        comparison = compare_methods(results)
    else:
        comparison = Comparison(results, str(results.baseline), [])
    answered = [str(answer.method or "") for answer in comparison.answers]
    pictures = prompt_fields(folders, comparison, progress)
    fields = {
        **_texts(folders, comparison, notes),
        **_first_screen(comparison, answered, pictures),
        **_front_fields(comparison, answered, target.parent / plots),
        **pictures,
        **_differences(comparison),
        "chosen": _chosen(results, answered, comparison.fronts),
        "costs": _costs(results),
        "manifests": [
            (path.name, json.dumps(read_manifest(path).as_dict(), indent=2, ensure_ascii=False))
            for path in folders
        ],
    }
    write_text(target, rendered("template.html", fields))
    return target


def _texts(folders: Sequence[Path], comparison: Comparison, notes: Sequence[str]) -> dict[str, Any]:
    results = comparison.results
    frame = results.frame
    drawn = dict.fromkeys(read_run(path).settings.described() for path in folders)
    prompts, particles = len(set(frame["prompt_id"]) - {""}), frame["particles"].iloc[0]
    tables = full_tables(comparison)
    return {
        "title": ", ".join(path.resolve().name for path in folders),
        "settings": f"{'; '.join(drawn)}; {prompts} prompts, {particles} images of each seed.",
        "baseline": str(results.baseline),
        "imported": ", ".join(map(str, dict.fromkeys(frame["method"][drawn_elsewhere(frame)]))),
        "verdicts": verdicts(comparison),
        "warnings": [*notes, *warnings(comparison, folders)],
        "tables": tables,
        "caption": tables[-1].caption if tables else "",
        "classes": _classes(comparison) if tables else [],
    }


def _classes(comparison: Comparison) -> list[tuple[str, list[Table]]]:
    """Return the tables of each class of prompts, by what the prompts are divided by."""
    results = comparison.results
    found = [
        (by, class_tables(replace(comparison, by=by, classes=by_class(results, by))))
        for by in classes_of(results)
    ]
    return [(by, tables) for by, tables in found if len(tables) > 1]


def _first_screen(
    comparison: Comparison, answered: Sequence[str], pictures: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of what is seen first: the answers, and images of a few prompts.

    Its methods are those of the answers, else the most diverse, or the first.
    """
    baseline, curves = str(comparison.results.baseline), comparison.fronts
    named = [name for name in answered if name]
    if not named and curves is not None:
        points = {point.method: point for family in curves.families for point in family.points}
        ordered = sorted(points.values(), key=lambda point: -point.diversity.value)
        named = [str(point.method) for point in ordered]
    others = [str(method) for method in comparison.results.methods if str(method) != baseline]
    named = (named or others[:IN_STRIPS])[: max(IN_STRIPS, len(set(answered)))]
    return {
        "answers": comparison.answers,
        "lead": summary(comparison.answers),
        "colours": colours_of(answered),
        "strip_methods": list(dict.fromkeys([baseline, *named])),
        "strip_prompts": first_prompts(pictures["gains"], len(pictures["pictures"]), answered),
    }


def _chosen(results: Results, answered: Sequence[str], curves: Fronts | None) -> list[str]:
    """Return the methods that the viewer shows at first: all where they are few."""
    names = list(map(str, results.methods))
    if len(names) <= SHOWN_AT_FIRST:
        return names
    points = [point for family in (curves.families if curves else ()) for point in family.points]
    front = [str(point.method) for point in points if point.front]
    chosen = dict.fromkeys([str(results.baseline), *filter(None, answered), *front])
    return list(chosen)[:SHOWN_AT_FIRST]


def _front_fields(comparison: Comparison, answered: Sequence[str], plots: Path) -> dict[str, Any]:
    curves = comparison.fronts
    if curves is None:
        return {"plot": "", "plots": "", "fronts": None, "front_fidelity": "", "front_plots": []}
    hollow = set(map(str, unfaithful(comparison.differences, comparison.results)))
    return {
        "front_fidelity": curves.fidelity,
        "front_plots": front_plots(curves, answered, hollow),
        "plot": pareto_plot(curves, plots),
        "plots": plots.name,
        "fronts": fronts_table(curves),
    }


def _costs(results: Results) -> Table:
    """Return the median of each cost that is not 0 everywhere, by method."""
    columns = [own for own in results.columns if results.metric(own).scope == "cost"]
    medians = {column: medians_by_method(results.rows(column=column)) for column in columns}
    return Table(
        "",
        list(map(str, results.methods)),
        [
            Column(str(column), [_number(own.get(m)) for m in results.methods])
            for column, own in medians.items()
            if any(own.values())
        ],
    )


def _number(value: float | None) -> Cell:
    return Cell("-" if value is None or math.isnan(value) else f"{value:.4g}")


def _differences(comparison: Comparison) -> dict[str, Any]:
    """Return the picture of differences: a line per method, the most diverse first.

    It has the intervals of diversity, fidelity and headroom; nothing without the first two.
    """
    differences, results = comparison.differences, comparison.results
    leading = [of_aspect(own, differences, results) for own in ("diversity", "fidelity")]
    found = [[own for own in part if own.metric == part[0].metric] for part in leading if part]
    if not found:
        return {"picture_names": (), "picture_rows": (), "picture_columns": 0}
    methods = [own.method for own in sorted(found[0], key=lambda own: own.gain, reverse=True)]
    names = [f"{part[0].metric}, difference" for part in found]
    parts = [_of_differences(part) for part in found]
    if own := comparison.headrooms:
        parts.append(_of_headrooms([one for one in own if one.column == own[0].column]))
        names.append("headroom used (line: the most of any marginal-preserving method)")
    rows = [
        {"name": str(method), "intervals": [part.get(method) for part in parts]}
        for method in methods
    ]
    return {"picture_names": names, "picture_rows": rows, "picture_columns": len(names)}


def _of_differences(own: Sequence[Difference]) -> dict[MethodId, dict[str, Any]]:
    scale = _Scale([bound for one in own for bound in (one.low, one.high, one.difference)])
    return {
        one.method: {
            **scale.of(one.difference, one.low, one.high),
            "text": f"{one.difference:+.3g} [{one.low:+.3g}, {one.high:+.3g}]",
            "tone": TONES[one.better],
            "mark": None,
        }
        for one in own
        if math.isfinite(one.low) and math.isfinite(one.high)
    }


def _of_headrooms(own: Sequence[Headroom]) -> dict[MethodId, dict[str, Any]]:
    known = [one for one in own if math.isfinite(one.low + one.high)]
    scale = _Scale([1.0, *(bound for one in known for bound in (one.low, one.high))])
    return {
        one.method: {
            **scale.of(one.value, one.low, one.high),
            "text": f"{one.value:z.2f} [{one.low:z.2f}, {one.high:z.2f}]"
            + (", shifted" if one.shifted else ""),
            "tone": "shifted" if one.shifted else "",
            "mark": scale(1.0),
        }
        for one in known
    }


class _Scale:
    """Map values to percent of an axis that shows all of them, and 0."""

    def __init__(self, values: Sequence[float]) -> None:
        finite = [value for value in values if math.isfinite(value)]
        low, high = min(0.0, *finite, 0.0), max(0.0, *finite, 0.0)
        margin = 0.03 * (high - low) or 1.0
        self.low, self.width = low - margin, high - low + 2 * margin

    def __call__(self, value: float) -> float:
        return round(100 * (value - self.low) / self.width, 2)

    def of(self, value: float, low: float, high: float) -> dict[str, float]:
        """Return an interval on the axis; `zero` is where nothing differs."""
        return {"zero": self(0.0), "value": self(value), "low": self(low), "high": self(high)}
