"""Put what a run shows into the template of the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from eddy_bench.compare.advice import Answer, answers, summary, unfaithful
from eddy_bench.compare.comparable import bad_notes, canonical, check_comparable, lacking
from eddy_bench.compare.free_shares import MethodShare, free_shares
from eddy_bench.compare.front_tables import CAPTION as FRONTS_CAPTION
from eddy_bench.compare.front_tables import front_header, front_lines
from eddy_bench.compare.fronts import Fronts
from eddy_bench.compare.load import ScoreSet, read_scores
from eddy_bench.compare.paired import Difference, compare
from eddy_bench.compare.pareto import fronts
from eddy_bench.compare.tables import HEADER, caption, cells
from eddy_bench.errors import CompareError
from eddy_bench.report.difference_rows import difference_picture
from eddy_bench.report.front_plot import colours_of, front_plots
from eddy_bench.report.plots import pareto_plot
from eddy_bench.report.prompts import first_prompts, prompt_fields
from eddy_bench.report.templates import rendered
from eddy_bench.report.verdicts import verdicts, warnings
from eddy_bench.scoring.feature_cache import Advance
from eddy_bench.scoring.metrics import COSTS
from eddy_bench.scoring.score_table import read_table, unescaped
from eddy_bench.storage.files import check_writable, write_text
from eddy_bench.storage.records import method_text
from eddy_bench.storage.run_folder import read_manifest, read_run

IN_STRIPS = 2  # methods beside the baseline, where none is recommended
SHOWN_AT_FIRST = 12


def write_report(
    folders: Sequence[Path],
    out: Path | None,
    baseline: str,
    partly: bool,
    progress: Callable[[int], Advance] = lambda total: lambda count, label: None,
) -> Path:
    """Write the page of one or several run folders; returns its path.

    Raises:
        CompareError: a folder is no scored run, or they cannot be compared.

    """
    for path in folders:
        if not path.is_dir():
            raise CompareError(f"Expected a run folder, got {path}. A report shows its images.")
    scores = read_scores(folders)
    notes = check_comparable(scores, None, partly)
    baseline = baseline if baseline in scores.labels else canonical(baseline)
    target = out or folders[0] / "report.html"
    check_writable(target)  # before its plots, so that an error names the page
    several = len(scores.labels) > 1
    differences = compare(scores, baseline) if several else []
    curves = fronts(scores, baseline) if several else None
    plots = "plots" if out is None or target.stem == "report" else f"{target.stem}-plots"
    shares = free_shares(scores) if several else []
    advice = answers(differences, scores, shares, baseline)
    answered = tuple(answer.label for answer in advice)
    pictures = prompt_fields(folders, scores, differences, baseline, progress)
    fields = {
        **_texts(folders, scores, differences, shares, baseline, notes),
        **_first_screen(advice, baseline, scores.labels, curves, pictures),
        **_front_fields(curves, answered, unfaithful(differences), target.parent / plots),
        **pictures,
        **_picture(differences, shares),
        "chosen": _chosen(scores.labels, baseline, answered, curves),
        "costs": _costs(scores),
        "manifests": [
            (path.name, json.dumps(read_manifest(path).as_dict(), indent=2, ensure_ascii=False))
            for path in folders
        ],
    }
    write_text(target, rendered("template.html", fields))
    return target


def _first_screen(
    advice: Sequence[Answer],
    baseline: str,
    labels: Sequence[str],
    curves: Fronts | None,
    pictures: dict[str, Any],
) -> dict[str, Any]:
    """Return the fields of what is seen first: the answers, and images of a few prompts."""
    answered = [answer.label for answer in advice]
    shown = first_prompts(pictures["gains"], len(pictures["pictures"]), answered)
    return {
        "answers": advice,
        "lead": summary(advice),
        "colours": colours_of(answered),
        "strip_methods": _in_strips(baseline, answered, labels, curves),
        "strip_prompts": shown,
    }


def _in_strips(
    baseline: str, answered: Sequence[str], labels: Sequence[str], curves: Fronts | None
) -> list[str]:
    """Return the methods of the first images: of the answers, else the most diverse or first."""
    named = [label for label in answered if label]
    if not named and curves is not None:
        points = {point.label: point for family in curves.families for point in family.points}
        ordered = sorted(points.values(), key=lambda point: -point.diversity.value)
        named = [point.label for point in ordered]
    named = named or [label for label in labels if label != baseline][:IN_STRIPS]
    return list(dict.fromkeys([baseline, *named[: max(IN_STRIPS, len(set(answered)))]]))


def _picture(differences: Sequence[Difference], shares: Sequence[MethodShare]) -> dict[str, Any]:
    picture = difference_picture(differences, shares)
    if picture is None:
        return {"picture_names": (), "picture_rows": (), "picture_columns": 0}
    return {
        "picture_names": picture.columns,
        "picture_rows": picture.rows,
        "picture_columns": len(picture.columns),
    }


def _chosen(
    labels: Sequence[str], baseline: str, answered: Sequence[str], curves: Fronts | None
) -> list[str]:
    """Return the methods that the viewer shows at first: all where they are few."""
    if len(labels) <= SHOWN_AT_FIRST:
        return list(labels)
    points = [point for family in (curves.families if curves else ()) for point in family.points]
    front = [point.label for point in points if point.front]
    return list(dict.fromkeys([baseline, *filter(None, answered), *front]))[:SHOWN_AT_FIRST]


def _texts(
    folders: Sequence[Path],
    scores: ScoreSet,
    differences: Sequence[Difference],
    shares: Sequence[MethodShare],
    baseline: str,
    notes: Sequence[str],
) -> dict[str, Any]:
    drawn = dict.fromkeys(read_run(path).settings.described() for path in folders)
    particles = scores.frame["particles"].iloc[0]
    prompts = scores.frame[scores.frame["prompt_id"] != ""]["prompt_id"].nunique()
    tones = {True: "better", False: "worse", None: ""}
    shown = [item for item in differences if item.prompts or item.difference]
    by_column = [
        [item for item in shown if item.column == column]
        for column in dict.fromkeys(item.column for item in shown)
    ]
    return {
        "title": ", ".join(path.resolve().name for path in folders),
        "settings": f"{'; '.join(drawn)}; {prompts} prompts, {particles} images of each seed.",
        "baseline": baseline,
        "verdicts": verdicts(differences, scores, shares, baseline),
        "warnings": [
            *notes,
            *bad_notes(scores),
            *lacking(scores),
            *warnings(differences, scores, _kernels(folders, scores.labels)),
        ],
        "header": HEADER[1:],
        "tables": [
            (
                cells(rows[0])[0],
                [{"cells": cells(item)[1:], "tone": tones[item.better]} for item in rows],
            )
            for rows in by_column
        ],
        "caption": caption(differences, baseline),
    }


def _kernels(folders: Sequence[Path], labels: Sequence[str]) -> dict[str, str]:
    """Return the kernel of each method that is compared, from summary.csv."""
    kernels = {}
    for path in folders:
        try:
            table = read_table(
                path / "summary.csv", keep_default_na=False, usecols=["method", "params", "kernel"]
            ).pipe(unescaped)
        except (OSError, ValueError):
            continue
        for method, params, kernel in table.itertuples(index=False):
            kernels[method_text(method, params)] = kernel
    return {label: kernels[label] for label in labels if label in kernels}


def _front_fields(
    curves: Fronts | None, answered: Sequence[str], hollow: Collection[str], plots: Path
) -> dict[str, Any]:
    if curves is None:
        return {
            "plot": "",
            "plots": "",
            "front_header": (),
            "front_lines": [],
            "front_caption": "",
            "front_fidelity": "",
            "front_plots": [],
        }
    return {
        "front_fidelity": curves.fidelity,
        "front_plots": front_plots(curves, answered, hollow),
        "plot": pareto_plot(curves, plots),
        "plots": plots.name,
        "front_caption": FRONTS_CAPTION,
        "front_header": front_header(curves),
        "front_lines": front_lines(curves),
    }


def _costs(scores: ScoreSet) -> dict[str, Any]:
    frame = scores.frame[scores.frame["metric"].isin(COSTS)]
    table = frame.pivot_table(
        index="label", columns="metric", values="value", aggfunc="median", sort=False
    )
    names = [name for name in COSTS if name in table and table[name].abs().sum() > 0]
    return {
        "names": names,
        "rows": [
            [str(label), *(f"{value:.4g}" for value in table.loc[label, names])]
            for label in table.index
        ],
    }
